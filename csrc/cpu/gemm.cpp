// The innermost loops of gemm.h, and matmul: its product for plain matrices. docs/kernels/gemm.md derives both.
#include "gemm.h"

#include "../kernels.h"

namespace fastdl {
namespace {

// A tile that hangs over the right edge of c.
void write_edge(const TileArgs& t, const float* whole, int rows, int width) {
  for (int r = 0; r < rows; ++r) {
    float* c = t.c + r * t.c_step;
    const float* sum = whole + r * width;
    i64 j = 0;
    if (t.beta == 0.0f) {
      for (; j + kLanes <= t.cols; j += kLanes) store(c + j, load(sum + j));
      for (; j < t.cols; ++j) c[j] = sum[j];
    } else {
      for (; j + kLanes <= t.cols; j += kLanes) store(c + j, t.beta * load(c + j) + load(sum + j));
      for (; j < t.cols; ++j) c[j] = t.beta * c[j] + sum[j];
    }
  }
}

// f(0), f(1), .. f(N - 1), written out before the optimiser sees it: an array indexed so is a set of registers.
template <int I>
struct Constant {
  constexpr operator int() const { return I; }
};
template <int N, int I = 0, class F>
FASTDL_INLINE void unrolled(const F& f) {
  if constexpr (I < N) {
    f(Constant<I>{});
    unrolled<N, I + 1>(f);
  }
}
#define FASTDL_INLINED __attribute__((always_inline))  // for a lambda

// The sums of a tile: R rows of V vectors.
template <int R, int V>
struct Sums {
  vec at[R][V];

  // The lines of c that will be updated are fetched while the sums are made.
  FASTDL_INLINE void begin(const TileArgs& t) {
    unrolled<R>([&](auto r) FASTDL_INLINED {
      __builtin_prefetch(t.c + r * t.c_step);
      unrolled<V>([&](auto v) FASTDL_INLINED { at[r][v] = vec{}; });
    });
  }

  // One step of k: row r's element of a is a(r), the vectors of b are at b.
  template <class Element>
  FASTDL_INLINE void add(const float* b, const Element& a) {
    vec bv[V];
    unrolled<V>([&](auto v) FASTDL_INLINED { bv[v] = load(b + v * kLanes); });
    unrolled<R>([&](auto r) FASTDL_INLINED {
      const vec ar = splat(a(r));
      unrolled<V>([&](auto v) FASTDL_INLINED { at[r][v] = fma(ar, bv[v], at[r][v]); });
    });
    // Left alone, GCC hoists the loads of the next steps up here and then runs out of registers.
    __asm__ volatile("" ::: "memory");
  }

  // c = beta c + sums.
  FASTDL_INLINE void end(const TileArgs& t) {
    if (t.cols < V * kLanes) {
      float whole[R * V * kLanes];
      unrolled<R>([&](auto r) FASTDL_INLINED {
        unrolled<V>([&](auto v) FASTDL_INLINED { store(whole + (r * V + v) * kLanes, at[r][v]); });
      });
      write_edge(t, whole, R, V * kLanes);
    } else if (t.beta == 0.0f) {
      unrolled<R>([&](auto r) FASTDL_INLINED {
        unrolled<V>([&](auto v) FASTDL_INLINED { store(t.c + r * t.c_step + v * kLanes, at[r][v]); });
      });
    } else {
      unrolled<R>([&](auto r) FASTDL_INLINED {
        unrolled<V>([&](auto v) FASTDL_INLINED {
          float* c = t.c + r * t.c_step + v * kLanes;
          store(c, t.beta * load(c) + at[r][v]);
        });
      });
    }
  }
};

// One chunk of one tile, a read by rows.
template <int R, class S>
void tile_by_rows(const TileArgs& t) {
  S sums;
  sums.begin(t);
  const float* b = t.b;
  const i64 b_step = t.b_step;
  const int run_count = t.run_count;
  for (int i = 0; i < run_count; ++i) {
    const i64 offset = t.runs[i].offset, length = t.runs[i].length;
    const float* row[R];
    unrolled<R>([&](auto r) FASTDL_INLINED { row[r] = t.rows[r] + offset; });
    i64 k = 0;
    for (; k + 4 <= length; k += 4) {
      unrolled<4>([&](auto u) FASTDL_INLINED {
        sums.add(b, [&](auto r) FASTDL_INLINED { return row[r][k + u]; });
        b += b_step;
      });
    }
    for (; k < length; ++k) {
      sums.add(b, [&](auto r) FASTDL_INLINED { return row[r][k]; });
      b += b_step;
    }
  }
  sums.end(t);
}

// One chunk of one tile, a packed or read by columns.
template <class S>
void tile_by_columns(const TileArgs& t) {
  S sums;
  sums.begin(t);
  const float *a = t.a, *b = t.b;
  const i64 a_step = t.a_step, b_step = t.b_step;
  i64 k = t.count;
  for (; k >= 4; k -= 4) {
    unrolled<4>([&](auto) FASTDL_INLINED {
      sums.add(b, [&](auto r) FASTDL_INLINED { return a[r]; });
      a += a_step;
      b += b_step;
    });
  }
  for (; k > 0; --k) {
    sums.add(b, [&](auto r) FASTDL_INLINED { return a[r]; });
    a += a_step;
    b += b_step;
  }
  sums.end(t);
}

#if FASTDL_VECTOR_BYTES == 32
// Ten columns: eight rows have a vector each for their first eight columns, and the last two columns of four rows share
// one vector, (row 0: 8 9, row 1: 8 9, ..). A step takes 10 fma where a tile of two vectors a row takes 16; the mixing of
// broadcasts that it needs are blends, which other ports do.
struct TenSums {
  vec first[8], last[2];

  FASTDL_INLINE void begin(const TileArgs& t) {
    unrolled<8>([&](auto r) FASTDL_INLINED {
      __builtin_prefetch(t.c + r * t.c_step);
      first[r] = vec{};
    });
    last[0] = last[1] = vec{};
  }

  template <class Element>
  FASTDL_INLINE void add(const float* b, const Element& a) {
    typedef double pair_vec __attribute__((vector_size(32)));
    double pair;
    memcpy(&pair, b + kLanes, sizeof(pair));
    const vec b_first = load(b), b_last = reinterpret_cast<vec>(pair_vec{pair, pair, pair, pair});
    unrolled<2>([&](auto g) FASTDL_INLINED {
      vec ar[4];
      unrolled<4>([&](auto i) FASTDL_INLINED {
        ar[i] = splat(a(Constant<g * 4 + i>{}));
        __asm__("" : "+x"(ar[i]));  // or GCC builds the mixed vectors from scalars
        first[g * 4 + i] = fma(ar[i], b_first, first[g * 4 + i]);
      });
      const __m256 even = _mm256_blend_ps((__m256)ar[0], (__m256)ar[1], 0xcc);
      const __m256 odd = _mm256_blend_ps((__m256)ar[2], (__m256)ar[3], 0xcc);
      last[g] = fma((vec)_mm256_blend_ps(even, odd, 0xf0), b_last, last[g]);
    });
    __asm__ volatile("" ::: "memory");
  }

  FASTDL_INLINE void end(const TileArgs& t) {
    float whole[8 * 16], pairs[16];
    unrolled<8>([&](auto r) FASTDL_INLINED { store(whole + r * 16, first[r]); });
    store(pairs, last[0]);
    store(pairs + 8, last[1]);
    for (int r = 0; r < 8; ++r) memcpy(whole + r * 16 + 8, pairs + r * 2, 2 * sizeof(float));
    write_edge(t, whole, 8, 16);
  }
};
#endif

template <int R, int V>
constexpr TileFunction rows_tile = tile_by_rows<R, Sums<R, V>>;
template <int R, int V>
constexpr TileFunction columns_tile = tile_by_columns<Sums<R, V>>;

}  // namespace

#define FASTDL_TO_6(f, V) nullptr, f<1, V>, f<2, V>, f<3, V>, f<4, V>, f<5, V>, f<6, V>
#define FASTDL_TO_8(f, V) FASTDL_TO_6(f, V), f<7, V>, f<8, V>
#if FASTDL_VECTOR_BYTES == 64
#define FASTDL_ROWS(f, V) FASTDL_TO_8(f, V), f<9, V>, f<10, V>, f<11, V>, f<12, V>, f<13, V>, f<14, V>
#define FASTDL_NARROW_ROWS FASTDL_ROWS
#elif defined(__aarch64__)
#define FASTDL_ROWS FASTDL_TO_8
#define FASTDL_NARROW_ROWS FASTDL_TO_8
#else
#define FASTDL_ROWS FASTDL_TO_6
#define FASTDL_NARROW_ROWS FASTDL_TO_8
#endif
const TileFunction gemm_by_rows[] = {FASTDL_ROWS(rows_tile, kTileVecs)};
const TileFunction gemm_by_columns[] = {FASTDL_ROWS(columns_tile, kTileVecs)};
const TileFunction gemm_narrow_by_rows[] = {FASTDL_NARROW_ROWS(rows_tile, 1)};
const TileFunction gemm_narrow_by_columns[] = {FASTDL_NARROW_ROWS(columns_tile, 1)};
static_assert(sizeof(gemm_by_rows) / sizeof(TileFunction) == kTileRows + 1, "a function for every number of rows");
static_assert(sizeof(gemm_narrow_by_rows) / sizeof(TileFunction) == kNarrowRows + 1, "likewise");
#if FASTDL_VECTOR_BYTES == 32
const TileFunction gemm_ten_by_rows = tile_by_rows<8, TenSums>, gemm_ten_by_columns = tile_by_columns<TenSums>;
#else
const TileFunction gemm_ten_by_rows = nullptr, gemm_ten_by_columns = nullptr;
#endif

void matmul(i64 B, i64 M, i64 N, i64 K, const float* a, const float* b, int trans_a, int trans_b, float beta, float* c,
            void*) {
  for (i64 i = 0; i < B; ++i) {
    const float *ai = a + i * M * K, *bi = b + i * K * N;
    float* ci = c + i * M * N;
    if (trans_a && trans_b) {
      gemm(M, N, K, ColumnsA{ai, M}, ColumnsB{bi, K}, beta, ci, N, NoEpilogue{});
    } else if (trans_a) {
      gemm(M, N, K, ColumnsA{ai, M}, RowsB{bi, N}, beta, ci, N, NoEpilogue{});
    } else if (trans_b) {
      gemm(M, N, K, RowsA{ai, K}, ColumnsB{bi, K}, beta, ci, N, NoEpilogue{});
    } else {
      gemm(M, N, K, RowsA{ai, K}, RowsB{bi, N}, beta, ci, N, NoEpilogue{});
    }
  }
}

}  // namespace fastdl
