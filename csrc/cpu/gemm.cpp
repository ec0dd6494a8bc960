// The innermost loops of gemm.h (those for few columns are in gemm_few.cpp), and matmul: its product for plain matrices.
// docs/kernels/gemm.md derives both.
#include "gemm.h"

#include "../kernels.h"
#include "unroll.h"

namespace fastdl {
namespace {

// A tile that hangs over the right edge of c.
void write_edge(const TileArgs& t, const float* whole, int rows, int width) {
  for (int r = 0; r < rows; ++r) {
    float* c = t.c + r * t.c_step;
    const float* sum = whole + r * width;
    i64 j = 0;
    for (; j + kLanes <= t.cols; j += kLanes) {
      store(c + j, t.beta == 0.0f ? load(sum + j) : t.beta * load(c + j) + load(sum + j));
    }
#if defined(__AVX512F__)
    const i64 rest = t.cols - j;
    store_part(c + j, t.beta == 0.0f ? load(sum + j) : t.beta * load_part(c + j, rest) + load(sum + j), rest);
#else
    for (; j < t.cols; ++j) c[j] = t.beta == 0.0f ? sum[j] : t.beta * c[j] + sum[j];
#endif
  }
}

// The sums of a tile: R rows of V vectors.
template <int R, int V>
struct Sums {
  static constexpr int kUnroll = R < kTileRows ? 2 : 4;  // edges are not worth more code
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
      if constexpr (V == 1) {
        add_scaled(at[r][0], a(r), bv[0]);
      } else {
        const vec ar = splat(a(r));
        unrolled<V>([&](auto v) FASTDL_INLINED { add_product(at[r][v], ar, bv[v]); });
      }
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
    for (; k + S::kUnroll <= length; k += S::kUnroll) {
      unrolled<S::kUnroll>([&](auto u) FASTDL_INLINED {
        sums.add(b, [&](auto r) FASTDL_INLINED -> const float& { return row[r][k + u]; });
        b += b_step;
      });
    }
    for (; k < length; ++k) {
      sums.add(b, [&](auto r) FASTDL_INLINED -> const float& { return row[r][k]; });
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
  for (; k >= S::kUnroll; k -= S::kUnroll) {
    unrolled<S::kUnroll>([&](auto) FASTDL_INLINED {
      sums.add(b, [&](auto r) FASTDL_INLINED -> const float& { return a[r]; });
      a += a_step;
      b += b_step;
    });
  }
  for (; k > 0; --k) {
    sums.add(b, [&](auto r) FASTDL_INLINED -> const float& { return a[r]; });
    a += a_step;
    b += b_step;
  }
  sums.end(t);
}

#if defined(__AVX2__)
// Ten columns: eight rows have a vector of eight lanes each for their first eight columns, and the last two columns of four rows
// share one vector (row 0: 8 9, row 1: 8 9, ..). A step takes 10 fma where a tile of sixteen columns takes 16; the broadcasts are
// mixed by blends, which do not wait for the multipliers.
struct TenSums {
  static constexpr int kUnroll = 4;
  __m256 first[8], last[2];

  FASTDL_INLINE void begin(const TileArgs& t) {
    unrolled<8>([&](auto r) FASTDL_INLINED {
      __builtin_prefetch(t.c + r * t.c_step);
      first[r] = _mm256_setzero_ps();
    });
    last[0] = last[1] = _mm256_setzero_ps();
  }

  template <class Element>
  FASTDL_INLINE void add(const float* b, const Element& a) {
    double pair;
    memcpy(&pair, b + 8, sizeof(pair));
    const __m256 b_first = _mm256_loadu_ps(b), b_last = _mm256_castpd_ps(_mm256_set1_pd(pair));
    unrolled<2>([&](auto g) FASTDL_INLINED {
      __m256 ar[4];
      unrolled<4>([&](auto i) FASTDL_INLINED {
        ar[i] = _mm256_set1_ps(a(Constant<g * 4 + i>{}));
        __asm__("" : "+x"(ar[i]));  // or GCC builds the mixed vectors from scalars
        first[g * 4 + i] = _mm256_fmadd_ps(ar[i], b_first, first[g * 4 + i]);
      });
      const __m256 even = _mm256_blend_ps(ar[0], ar[1], 0xcc), odd = _mm256_blend_ps(ar[2], ar[3], 0xcc);
      last[g] = _mm256_fmadd_ps(_mm256_blend_ps(even, odd, 0xf0), b_last, last[g]);
    });
    __asm__ volatile("" ::: "memory");
  }

  FASTDL_INLINE void end(const TileArgs& t) {
    float whole[8 * 16], pairs[16];
    unrolled<8>([&](auto r) FASTDL_INLINED { _mm256_storeu_ps(whole + r * 16, first[r]); });
    _mm256_storeu_ps(pairs, last[0]);
    _mm256_storeu_ps(pairs + 8, last[1]);
    for (int r = 0; r < 8; ++r) memcpy(whole + r * 16 + 8, pairs + r * 2, 2 * sizeof(float));
    write_edge(t, whole, 8, 16);
  }
};

// The same by halves of a vector, four rows at a time, for machines whose multipliers are half as wide: there a blend costs
// two operations on the multipliers' ports, and a shuffle of one half one elsewhere.
struct TenHalfSums {
  static constexpr int kUnroll = 4;
  __m128 first[4][2], last[2];

  FASTDL_INLINE void begin(const TileArgs& t) {
    unrolled<4>([&](auto r) FASTDL_INLINED {
      __builtin_prefetch(t.c + r * t.c_step);
      first[r][0] = first[r][1] = _mm_setzero_ps();
    });
    last[0] = last[1] = _mm_setzero_ps();
  }

  template <class Element>
  FASTDL_INLINE void add(const float* b, const Element& a) {
    double pair;
    memcpy(&pair, b + 8, sizeof(pair));
    const __m128 b_first[2] = {_mm_loadu_ps(b), _mm_loadu_ps(b + 4)}, b_last = _mm_castpd_ps(_mm_set1_pd(pair));
    unrolled<2>([&](auto g) FASTDL_INLINED {
      __m128 ar[2], mixed;
      unrolled<2>([&](auto i) FASTDL_INLINED {
        ar[i] = _mm_set1_ps(a(Constant<g * 2 + i>{}));
        unrolled<2>([&](auto v)
                        FASTDL_INLINED { first[g * 2 + i][v] = _mm_fmadd_ps(ar[i], b_first[v], first[g * 2 + i][v]); });
      });
      __asm__("vshufps $0, %2, %1, %0" : "=x"(mixed) : "x"(ar[0]), "x"(ar[1]));  // GCC would make a blend of it
      last[g] = _mm_fmadd_ps(mixed, b_last, last[g]);
    });
    __asm__ volatile("" ::: "memory");
  }

  FASTDL_INLINE void end(const TileArgs& t) {
    float whole[4 * 16];
    unrolled<4>([&](auto r) FASTDL_INLINED {
      unrolled<2>([&](auto v) FASTDL_INLINED { _mm_storeu_ps(whole + r * 16 + v * 4, first[r][v]); });
    });
    unrolled<2>([&](auto g) FASTDL_INLINED {
      _mm_storel_pi(reinterpret_cast<__m64*>(whole + g * 32 + 8), last[g]);
      _mm_storeh_pi(reinterpret_cast<__m64*>(whole + g * 32 + 24), last[g]);
    });
    write_edge(t, whole, 4, 16);
  }
};

// Zen and Zen+ have multipliers of 128 bits.
TenTile ten_by_rows() {
  __builtin_cpu_init();
  return __builtin_cpu_is("znver1") ? TenTile{tile_by_rows<4, TenHalfSums>, 4} : TenTile{tile_by_rows<8, TenSums>, 8};
}
#endif

// Rows of a chunk of a matrix as columns: out[k * rows + r] = source[r * step + k].
void turn(i64 rows, i64 count, const float* source, i64 step, float* out) {
  for (i64 r = 0; r < rows; ++r) {
    for (i64 k = 0; k < count; ++k) out[k * rows + r] = source[r * step + k];
  }
}

// c[M,N] = a[M,K] b[N,K]^T for a few rows: the rows of b are read as those of a left operand, and c is written transposed.
void few_rows(i64 M, i64 N, i64 K, const float* a, i64 a_step, const float* b, i64 b_step, float beta, float* c,
              i64 c_step, const Epilogue& epilogue) {
  float turned[kChunk * (kFewByRows > 1 ? kFewByRows : 1)];
  for (i64 k0 = 0; k0 < K; k0 += kChunk) {
    const i64 depth = smaller(kChunk, K - k0);
    if (M > 1) turn(M, depth, a + k0, a_step, turned);
    parallel_for(N, (i64(1) << 16) / (depth * kTurnedRows) * kTurnedRows + kTurnedRows, [&](i64 begin, i64 end) {
      const Run run = {k0, depth};
      TileArgs t = {};
      t.runs = &run;
      t.run_count = 1;
      t.b = M > 1 ? turned : a + k0;
      t.b_step = M;
      t.c_step = 1;
      t.c_next = c_step;
      t.beta = k0 == 0 ? beta : 1.0f;
      for (i64 n = begin; n < end; n += t.height) {
        t.height = smaller<i64>(kTurnedRows, end - n);
        for (i64 r = 0; r < kTurnedRows; ++r) t.rows[r] = b + (r < t.height ? n + r : n) * b_step;
        t.c = c + n;
        gemm_few_by_rows[M](t);
        if (k0 + depth == K) epilogue(0, M, n, n + t.height, c, c_step);
      }
    });
  }
}

// One step of k: c = a b^T, where element m of a is a[m * a_step].
void outer_product(i64 M, i64 N, const float* a, i64 a_step, const float* b, i64 b_step, float beta, float* c,
                   i64 c_step, const Epilogue& epilogue) {
  for (i64 n0 = 0; n0 < N; n0 += kStripCols) {
    const i64 cols = smaller(kStripCols, N - n0);
    const float* row = b + n0 * b_step;
    if (b_step != 1) {
      float* const copy = thread_scratch(1, size_t(kStripCols));
      for (i64 n = 0; n < cols; ++n) copy[n] = row[n * b_step];
      row = copy;
    }
    parallel_for(M, (i64(1) << 17) / cols + 1, [&](i64 begin, i64 end) {
      for (i64 m = begin; m < end; ++m) {
        const vec am = splat(a[m * a_step]);
        float* const cm = c + m * c_step + n0;
        i64 n = 0;
        for (; n + kLanes <= cols; n += kLanes) {
          const vec product = fma(am, load(row + n), vec{});
          store(cm + n, beta == 0.0f ? product : beta * load(cm + n) + product);
        }
        if (n < cols) {
          const vec product = fma(am, load_part(row + n, cols - n), vec{});
          store_part(cm + n, beta == 0.0f ? product : beta * load_part(cm + n, cols - n) + product, cols - n);
        }
        epilogue(m, m + 1, n0, n0 + cols, c, c_step);
      }
    });
  }
}

// A few vectors of columns: their sums stay in registers, and b is read from front to back.
template <int R, int V>
void row_sums_in_registers(const float* a, i64 a_step, i64 depth, const float* b, i64 b_step, float* sums,
                           i64 sums_step) {
  vec s[R][V];
  unrolled<R>([&](auto r) FASTDL_INLINED { unrolled<V>([&](auto v) FASTDL_INLINED { s[r][v] = vec{}; }); });
  for (i64 k = 0; k < depth; ++k, a += a_step, b += b_step) {
    unrolled<R>([&](auto r) FASTDL_INLINED {
      const vec ar = splat(a[r]);
      unrolled<V>([&](auto v) FASTDL_INLINED { add_product(s[r][v], ar, load(b + v * kLanes)); });
    });
  }
  unrolled<R>([&](auto r) FASTDL_INLINED {
    unrolled<V>([&](auto v) FASTDL_INLINED { store(sums + r * sums_step + v * kLanes, s[r][v]); });
  });
}

// Steps of k go by the four or eight, so that the sums are read and written that much less often.
template <int R>
FASTDL_INLINE void row_sums(const float* a, i64 a_step, i64 depth, const float* b, i64 b_step, i64 cols, float* sums,
                            i64 sums_step) {
  constexpr int kSteps = 8 / R, kPair = kLanes < 16 ? 16 / kLanes : 1;  // a cache line is kPair vectors
  for (int r = 0; r < R; ++r) memset(sums + r * sums_step, 0, size_t(cols) * sizeof(float));
  i64 k = 0;
  for (; k + kSteps <= depth; k += kSteps) {
    vec ar[R][kSteps];
    for (int u = 0; u < kSteps; ++u) {
      for (int r = 0; r < R; ++r) ar[r][u] = splat(a[(k + u) * a_step + r]);
    }
    const float* bk = b + k * b_step;
    i64 n = 0;
    for (; n + kPair * kLanes <= cols; n += kPair * kLanes) {
      vec s[R][kPair];
      for (int r = 0; r < R; ++r) {
        for (int v = 0; v < kPair; ++v) s[r][v] = load(sums + r * sums_step + n + v * kLanes);
      }
      for (int u = 0; u < kSteps; ++u) {
        for (int v = 0; v < kPair; ++v) {
          const vec bn = load(bk + u * b_step + n + v * kLanes);
          for (int r = 0; r < R; ++r) s[r][v] = fma(ar[r][u], bn, s[r][v]);
        }
      }
      for (int r = 0; r < R; ++r) {
        for (int v = 0; v < kPair; ++v) store(sums + r * sums_step + n + v * kLanes, s[r][v]);
      }
    }
    for (; n + kLanes <= cols; n += kLanes) {
      vec s[R];
      for (int r = 0; r < R; ++r) s[r] = load(sums + r * sums_step + n);
      for (int u = 0; u < kSteps; ++u) {
        const vec bn = load(bk + u * b_step + n);
        for (int r = 0; r < R; ++r) s[r] = fma(ar[r][u], bn, s[r]);
      }
      for (int r = 0; r < R; ++r) store(sums + r * sums_step + n, s[r]);
    }
    if (n < cols) {
      const i64 part = cols - n;
      vec s[R];
      for (int r = 0; r < R; ++r) s[r] = load_part(sums + r * sums_step + n, part);
      for (int u = 0; u < kSteps; ++u) {
        const vec bn = load_part(bk + u * b_step + n, part);
        for (int r = 0; r < R; ++r) s[r] = fma(ar[r][u], bn, s[r]);
      }
      for (int r = 0; r < R; ++r) store_part(sums + r * sums_step + n, s[r], part);
    }
  }
  for (; k < depth; ++k) {
    for (int r = 0; r < R; ++r) {
      const vec ar = splat(a[k * a_step + r]);
      i64 n = 0;
      for (; n + kLanes <= cols; n += kLanes) {
        store(sums + r * sums_step + n, fma(ar, load(b + k * b_step + n), load(sums + r * sums_step + n)));
      }
      for (; n < cols; ++n) sums[r * sums_step + n] = fma(ar[0], b[k * b_step + n], sums[r * sums_step + n]);
    }
  }
}

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
#if defined(__AVX2__)
const TenTile gemm_ten_by_rows = ten_by_rows();
#else
const TenTile gemm_ten_by_rows = {nullptr, 0};
#endif
void gemm_row_sums(int rows, const float* a, i64 a_step, i64 depth, const float* b, i64 b_step, i64 cols, float* sums,
                   i64 sums_step) {
  if (cols == 4 * kLanes || cols == 8 * kLanes) {
    const auto narrow = rows == 1 ? (cols == 4 * kLanes ? row_sums_in_registers<1, 4> : row_sums_in_registers<1, 8>)
                                  : (cols == 4 * kLanes ? row_sums_in_registers<2, 4> : row_sums_in_registers<2, 8>);
    narrow(a, a_step, depth, b, b_step, sums, sums_step);
  } else if (rows == 1) {
    row_sums<1>(a, a_step, depth, b, b_step, cols, sums, sums_step);
  } else {
    row_sums<2>(a, a_step, depth, b, b_step, cols, sums, sums_step);
  }
}

void gemm_strided(i64 M, i64 N, i64 K, const float* a, i64 a_step, int trans_a, const float* b, i64 b_step, int trans_b,
                  float beta, float* c, i64 c_step, const Epilogue& epilogue) {
  // A row is a column.
  if (N == 1 && trans_b) {
    trans_b = 0;
    b_step = 1;
  }
  if (M == 1 && trans_a && a_step == 1) trans_a = 0;
  if (K == 1 && N >= kLanes) {
    outer_product(M, N, a, trans_a ? 1 : a_step, b, trans_b ? b_step : 1, beta, c, c_step, epilogue);
  } else if (N == 1 && trans_a && b_step == 1 && c_step == 1 && !epilogue.block) {
    gemm(1, M, K, RowsA{b, K}, RowsB{a, a_step}, beta, c, M, epilogue);
  } else if (trans_b && !trans_a && M <= kFewByRows && M > 0 && M <= N && K > 1) {
    few_rows(M, N, K, a, a_step, b, b_step, beta, c, c_step, epilogue);
  } else if (trans_b && N <= kFewByColumns && K > 1) {
    float turned[kChunk * kFewByColumns];
    for (i64 k = 0; k < K; k += kChunk) {
      const i64 depth = smaller(kChunk, K - k);
      turn(N, depth, b + k, b_step, turned);
      gemm_strided(M, N, depth, a + (trans_a ? k * a_step : k), a_step, trans_a, turned, N, 0, k == 0 ? beta : 1.0f, c,
                   c_step, k + depth == K ? epilogue : Epilogue{});
    }
  } else if (trans_a && trans_b) {
    gemm(M, N, K, ColumnsA{a, a_step}, ColumnsB{b, b_step}, beta, c, c_step, epilogue);
  } else if (trans_a) {
    gemm(M, N, K, ColumnsA{a, a_step}, RowsB{b, b_step}, beta, c, c_step, epilogue);
  } else if (trans_b) {
    gemm(M, N, K, RowsA{a, a_step}, ColumnsB{b, b_step}, beta, c, c_step, epilogue);
  } else {
    gemm(M, N, K, RowsA{a, a_step}, RowsB{b, b_step}, beta, c, c_step, epilogue);
  }
}

i64 panel_floats(i64 K, i64 N) { return K * ((N + kTileCols - 1) / kTileCols * kTileCols); }

void pack_panels(i64 K, i64 N, const float* b, i64 b_step, int trans_b, float* panels) {
  for (i64 n = 0; n < N; n += kTileCols) {
    const i64 cols = smaller<i64>(kTileCols, N - n);
    if (trans_b) {
      ColumnsB{b, b_step}.pack(0, K, n, cols, panels + n * K);
    } else {
      RowsB{b, b_step}.pack(0, K, n, cols, panels + n * K);
    }
  }
}

void gemm_panels(i64 M, i64 N, i64 K, const float* a, i64 a_step, const float* panels, float beta, float* c,
                 i64 c_step) {
  gemm(M, N, K, RowsA{a, a_step}, PanelsB{panels, K}, beta, c, c_step);
}

void matmul(i64 B, i64 M, i64 N, i64 K, const float* a, const float* b, int trans_a, int trans_b, float beta, float* c,
            void*) {
  // Small products go to the threads whole, large ones one after another, each on all threads.
  const double flops = 2.0 * double(M) * double(N) * double(K);
  const i64 grain = flops > 2e6 ? B : i64(5e5 / (flops + 1e3)) + 1;
  parallel_for(B, grain, [=](i64 begin, i64 end) {
    for (i64 i = begin; i < end; ++i) {
      gemm_strided(M, N, K, a + i * M * K, trans_a ? M : K, trans_a, b + i * K * N, trans_b ? K : N, trans_b, beta,
                   c + i * M * N, N);
    }
  });
}

}  // namespace fastdl
