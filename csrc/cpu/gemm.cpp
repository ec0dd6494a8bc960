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
template <int R, int V>
void tile_by_rows(const TileArgs& t) {
  Sums<R, V> sums;
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
template <int R, int V>
void tile_by_columns(const TileArgs& t) {
  Sums<R, V> sums;
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

}  // namespace

#if FASTDL_VECTOR_BYTES == 64
#define FASTDL_ROWS(f, V) \
  { nullptr, f<1, V>, f<2, V>, f<3, V>, f<4, V>, f<5, V>, f<6, V>, f<7, V>, f<8, V>, f<9, V>, f<10, V>, f<11, V>, f<12, V>, f<13, V>, f<14, V> }
#define FASTDL_NARROW_ROWS FASTDL_ROWS
static_assert(kTileRows == 14 && kNarrowRows == 14, "the tables go as far as a tile has rows");
#else
#define FASTDL_NARROW_ROWS(f, V) \
  { nullptr, f<1, V>, f<2, V>, f<3, V>, f<4, V>, f<5, V>, f<6, V>, f<7, V>, f<8, V> }
#if defined(__aarch64__)
#define FASTDL_ROWS FASTDL_NARROW_ROWS
static_assert(kTileRows == 8 && kNarrowRows == 8, "the tables go as far as a tile has rows");
#else
#define FASTDL_ROWS(f, V) \
  { nullptr, f<1, V>, f<2, V>, f<3, V>, f<4, V>, f<5, V>, f<6, V> }
static_assert(kTileRows == 6 && kNarrowRows == 8, "the tables go as far as a tile has rows");
#endif
#endif
const TileFunction gemm_by_rows[] = FASTDL_ROWS(tile_by_rows, kTileVecs);
const TileFunction gemm_by_columns[] = FASTDL_ROWS(tile_by_columns, kTileVecs);
const TileFunction gemm_narrow_by_rows[] = FASTDL_NARROW_ROWS(tile_by_rows, 1);
const TileFunction gemm_narrow_by_columns[] = FASTDL_NARROW_ROWS(tile_by_columns, 1);

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
