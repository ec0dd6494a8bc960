// The innermost loops of gemm.h for few columns: vectors of rows. docs/kernels/gemm.md tells what was tried.
#include "gemm.h"
#include "unroll.h"

namespace fastdl {
namespace {

// c = beta c + sums, where the lanes of the sums are rows; c_next is looked at where rows are neighbours.
void write_few(const vec* sums, int columns, float* c, i64 c_step, i64 c_next, i64 rows, float beta) {
  if (c_step == 1) {
    for (int n = 0; n < columns; ++n, c += c_next) {
      store_part(c, beta == 0.0f ? sums[n] : beta * load_part(c, rows) + sums[n], rows);
    }
  } else if (columns < kLanes / 3 || columns > kLanes) {
    for (int n = 0; n < columns; ++n) {
      float* at = c + n;
      for (i64 r = 0; r < rows; ++r, at += c_step) *at = beta == 0.0f ? sums[n][r] : beta * *at + sums[n][r];
    }
  } else {
    vec v[kLanes];
    unrolled<kLanes>([&](auto n) FASTDL_INLINED { v[n] = sums[smaller<int>(n, columns - 1)]; });
    transpose(v);
    for (i64 r = 0; r < rows; ++r, c += c_step) {
      store_part(c, beta == 0.0f ? v[r] : beta * load_part(c, columns) + v[r], columns);
    }
  }
}

// A few columns: a step of k takes as many multiply-adds as there are columns.
template <int N>
struct FewSums {
  vec at[N];

  FASTDL_INLINE void begin() {
    unrolled<N>([&](auto n) FASTDL_INLINED { at[n] = vec{}; });
  }
  FASTDL_INLINE void add(const float* b, vec a) {
    unrolled<N>([&](auto n) FASTDL_INLINED { add_scaled(at[n], b[n], a); });
  }
  FASTDL_INLINE void end(vec* out) const {
    unrolled<N>([&](auto n) FASTDL_INLINED { out[n] = at[n]; });
  }
};

constexpr i64 kLineFloats = 16;

// Steps k .. k + steps - 1 of kLanes rows, fewer than kLanes: out[j * kLanes + r] = row[r][k + j].
void turn_part(const float* const* row, i64 k, i64 steps, float* out) {
  vec v[kLanes];
  for (int r = 0; r < kLanes; ++r) v[r] = load_part(row[r] + k, steps);
  transpose(v);
  for (int j = 0; j < steps; ++j) store(out + j * kLanes, v[j]);
}

// Rows become lanes by transposing square blocks of a on their way; V of them at a time, where the sums of one column would wait for
// each other.
template <int N, int V>
FASTDL_INLINE void few_blocks(const TileArgs& t, int first) {
  FewSums<N> sums[V];
  unrolled<V>([&](auto v) FASTDL_INLINED { sums[v].begin(); });
  const float* const* const rows = t.rows + first;
  const float* b = t.b;
  const i64 b_step = t.b_step;
  for (int i = 0; i < t.run_count; ++i) {
    const i64 end = t.runs[i].offset + t.runs[i].length;
    i64 k = t.runs[i].offset;
    // Rows that lie alike in cache lines may share one set of L1, and a line that two blocks need is gone before the second.
    i64 whole_from = k;
    if (end - k >= 4 * kLanes && (rows[1] - rows[0]) % kLineFloats == 0) {
      whole_from += -reinterpret_cast<intptr_t>(rows[0] + k) / intptr_t(sizeof(float)) & (kLineFloats - 1);
    }
    while (k < end) {
      if (k >= whole_from && k + kLanes <= end) {
        unrolled<V>([&](auto block) FASTDL_INLINED {
          vec v[kLanes];
          unrolled<kLanes>([&](auto r) FASTDL_INLINED {
            v[r] = load(rows[block * kLanes + r] + k);
            fetched(v[r]);
          });
          transpose(v);
          const float* bj = b;
          unrolled<kLanes>([&](auto j) FASTDL_INLINED {
            sums[block].add(bj, v[j]);
            bj += b_step;
          });
        });
        b += kLanes * b_step;
        k += kLanes;
        continue;
      }
      const i64 steps = smaller<i64>(kLanes, (k < whole_from ? whole_from : end) - k);
      float part[V][kLanes * kLanes];
      unrolled<V>([&](auto block) FASTDL_INLINED { turn_part(rows + block * kLanes, k, steps, part[block]); });
      for (i64 j = 0; j < steps; ++j, b += b_step) {
        unrolled<V>([&](auto block) FASTDL_INLINED { sums[block].add(b, load(part[block] + j * kLanes)); });
      }
      k += steps;
    }
  }
  vec whole[V][N];
  unrolled<V>([&](auto v) FASTDL_INLINED { sums[v].end(whole[v]); });
  for (int v = 0; v < V; ++v) {
    const i64 row = first + v * kLanes, left = t.height - row;
    if (left > 0) write_few(whole[v], N, t.c + row * t.c_step, t.c_step, t.c_next, smaller<i64>(kLanes, left), t.beta);
  }
}

template <int N>
void few_by_rows(const TileArgs& t) {
  constexpr int V = N == 1 ? 16 / kLanes : 1;
  static_assert(V * kLanes <= kTurnedRows, "as many rows as are given");
  for (int i = 0; i < t.height; i += V * kLanes) few_blocks<N, V>(t, i);
}

// V vectors of rows from a on, or the first rows of one.
template <int N, int V>
FASTDL_INLINE void few_vectors(const TileArgs& t, i64 first, i64 rows) {
  FewSums<N> sums[V];
  unrolled<V>([&](auto v) FASTDL_INLINED { sums[v].begin(); });
  const float *a = t.a + first, *b = t.b;
  if constexpr (V == 1) {
    for (i64 k = t.count; k > 0; --k, a += t.a_step, b += t.b_step) sums[0].add(b, load_part(a, rows));
  } else {
    for (i64 k = t.count; k > 0; --k, a += t.a_step, b += t.b_step) {
      vec av[V];
      unrolled<V>([&](auto v) FASTDL_INLINED { av[v] = load(a + v * kLanes); });
      unrolled<N>([&](auto n) FASTDL_INLINED {
        const vec bn = splat(b[n]);
        unrolled<V>([&](auto v) FASTDL_INLINED { add_product(sums[v].at[n], bn, av[v]); });
      });
    }
  }
  vec whole[V][N];
  unrolled<V>([&](auto v) FASTDL_INLINED { sums[v].end(whole[v]); });
  for (int v = 0; v < V; ++v) {
    write_few(whole[v], N, t.c + (first + v * kLanes) * t.c_step, t.c_step, t.c_next, V == 1 ? rows : kLanes, t.beta);
  }
}

template <int N>
void few_by_columns(const TileArgs& t) {
  // Enough sums that they need not wait for each other.
  constexpr int V = N == 1 ? 8 : kLanes == 16 ? (N < 4 ? 4 : 2) : (N == 2 ? 4 : N < 7 ? 2 : 1);
  i64 i = 0;
  for (; i + V * kLanes <= t.height; i += V * kLanes) few_vectors<N, V>(t, i, V * kLanes);
  for (; i < t.height; i += kLanes) few_vectors<N, 1>(t, i, smaller<i64>(kLanes, t.height - i));
}

}  // namespace

#define FASTDL_TO_4(f) nullptr, f<1>, f<2>, f<3>, f<4>
#if FASTDL_VECTOR_BYTES == 64
#define FASTDL_FEW_BY_ROWS(f) FASTDL_TO_4(f), f<5>, f<6>, f<7>, f<8>
#define FASTDL_FEW_BY_COLUMNS(f) FASTDL_FEW_BY_ROWS(f), f<9>, f<10>
#elif FASTDL_VECTOR_BYTES == 32
#define FASTDL_FEW_BY_ROWS FASTDL_TO_4
#define FASTDL_FEW_BY_COLUMNS(f) FASTDL_TO_4(f), f<5>, f<6>, f<7>, f<8>, f<9>, f<10>
#else
#define FASTDL_FEW_BY_ROWS(f) nullptr, f<1>
#define FASTDL_FEW_BY_COLUMNS(f) nullptr, f<1>, f<2>
#endif
const TileFunction gemm_few_by_rows[] = {FASTDL_FEW_BY_ROWS(few_by_rows)};
const TileFunction gemm_few_by_columns[] = {FASTDL_FEW_BY_COLUMNS(few_by_columns)};
static_assert(sizeof(gemm_few_by_rows) / sizeof(TileFunction) == kFewByRows + 1, "for every number of columns");
static_assert(sizeof(gemm_few_by_columns) / sizeof(TileFunction) == kFewByColumns + 1, "likewise");

}  // namespace fastdl
