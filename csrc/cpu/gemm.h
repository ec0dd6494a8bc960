// The matrix product of dense layers and matmul, made for every kernel that multiplies by matrices as they lie in memory
// (convolution reads its image through tiles of its own, conv_tiles.cpp, with the same order of sums):
//
//   c[M,N] = epilogue(a[M,K] b[K,N] + beta c)
//
// Operands are views (see "Operands" below), so an image, a transposed matrix or a gather is multiplied without being
// copied first. The loops, from the outside in:
//
//                          N
//                +----------+-----------+    strip  kStripCols columns of b and c
//                |   b      |  strip    |    chunk  kChunk steps of k; a chunk of a strip is packed into panels of
//          K     |..........|....||.....|           kTileCols columns (at most 2 MiB, scratch slot 1)
//                |   chunk  |    ||panel|    slice  kTileRows rows of a, one chunk deep: packed (slot 0), or read
//                +----------+-----------+           where they are when the strip is too narrow to repay packing
//     +-------+  +----------+-----------+    block  kBlockRows rows: their slices stay in L2 while the panels pass
//     | a :   |  |   c      |           |    tile   kTileRows x kTileCols of c: registers, while k runs down a chunk;
//  M  |---:---|  |----------|----++-----|           the panel of b (16 KiB) stays in L1 while the slices pass
//     | block |  |          |   tile    |
//     |---:---|  |----------|-----------|    A step of a tile (AVX2, 6 x 16): 2 loads of b, 6 broadcasts of a,
//     +-------+  +----------+-----------+    12 fused multiply-adds into 12 registers.
//
// Threads first pack together, then take tasks (a block of rows x some panels) from the shared panels and slices.
//
// Order of every sum, whatever the path: K is cut into chunks of 256; inside a chunk acc = fma(a, b, acc) for k
// ascending, from acc = 0; then c = beta c + acc for the first chunk (c = acc when beta is 0, and c is not read) and
// c = c + acc for the others. It depends on K alone, so a row's result depends neither on M, nor on the path, nor on
// the threads.
// docs/kernels/gemm.md derives the sizes and keeps the diary of what was tried.
#pragma once
#include "chains.h"
#include "packing.h"

namespace fastdl {
namespace {

// ---------------------------------------------------------------------------------------------------- sizes

// A tile fills the vector registers: rows x vectors of sums, the vectors of b, one broadcast of a.
// A narrow tile, for panels whose columns fit in one vector, has more rows instead where it can; 8 hide the latency of fma.
#if FASTDL_VECTOR_BYTES == 64
constexpr int kTileRows = 14, kTileVecs = 2, kNarrowRows = 14;
#elif defined(__aarch64__)
constexpr int kTileRows = 8, kTileVecs = 3, kNarrowRows = 8;
#else
constexpr int kTileRows = 6, kTileVecs = 2, kNarrowRows = 8;
#endif
constexpr int kTileCols = kTileVecs * kLanes;
// Columns that are few: tiles whose lanes are rows are cheaper then. Where a is read by rows, blocks of it are turned for them, which
// costs about as much as kTurning columns.
#if FASTDL_VECTOR_BYTES == 64
constexpr int kFewByRows = 8, kFewByColumns = 10, kTurning = 5;
#elif FASTDL_VECTOR_BYTES == 32
constexpr int kFewByRows = 4, kFewByColumns = 10, kTurning = 3;
#else
constexpr int kFewByRows = 1, kFewByColumns = 2, kTurning = 2;
#endif
constexpr int kTurnedRows = 16;
constexpr i64 kChunk = 256;  // part of the definition of a sum: never tune it
constexpr i64 kBlockRows = 192 / kTileRows * kTileRows;
constexpr i64 kGroupRows = 5 * kBlockRows;                // packed at a time when threads share
constexpr i64 kStripCols = 2048 / kTileCols * kTileCols;  // its panels fill one huge page
constexpr i64 kInL1 = 8192;                               // floats of b that tiles read where they lie
constexpr int kMaxRuns = 64;                              // pieces of a chunk's k range, see Run

template <class T>
FASTDL_INLINE constexpr T smaller(T a, T b) {
  return a < b ? a : b;
}

// ----------------------------------------------------------------------------------------------------- tiles
//
// The innermost loops, compiled once (gemm.cpp, gemm_few.cpp) for all the kernels of a target.
}  // namespace

// Elements k .. k + length - 1 of a row lie at row(m) + offset; the runs of a chunk follow each other in k.
struct Run {
  int64_t offset, length;
};

struct TileArgs {
  const float* rows[16];  // by rows: where each row begins
  const Run* runs;
  int run_count;
  const float* a;  // by columns (or packed): element (row i, step k) is a[k * a_step + i]
  int64_t a_step;
  int64_t count;   // steps of k
  const float* b;  // vector v of step k is at b + k * b_step + v * kLanes
  int64_t b_step;
  float* c;
  int64_t c_step;
  int64_t c_next;  // from one column to the next where columns are few and c_step is 1; looked at nowhere else
  int64_t cols;    // columns of c to write
  int64_t height;  // rows, where the function is for any number of them
  float beta;
};

// One chunk of one tile: c = beta c + sums. The index is the number of rows, up to kTileRows or kNarrowRows.
using TileFunction = void (*)(const TileArgs&);
extern const TileFunction gemm_by_rows[], gemm_by_columns[], gemm_narrow_by_rows[], gemm_narrow_by_columns[];
// Few columns, whose number is the index (t.cols is not looked at): by rows, up to kTurnedRows of them, where the pointers to rows
// that are not there must point to others; by columns, any number of rows.
extern const TileFunction gemm_few_by_rows[], gemm_few_by_columns[];
// For nine or ten columns by rows (a layer with ten outputs); null without AVX2.
struct TenTile {
  TileFunction tile;
  int64_t rows;
};
extern const TenTile gemm_ten_by_rows;

// What becomes of the finished elements of a product, in rows m0 to m1 - 1 and columns n0 to n1 - 1 of c: epilogue_of (below) makes
// one of a functor, so that the loops are compiled once for all of them. As it is here it does nothing.
struct Epilogue {
  void (*block)(const void* functor, int64_t m0, int64_t m1, int64_t n0, int64_t n1, float* c, int64_t ldc) = nullptr;
  const void* functor = nullptr;
  void operator()(int64_t m0, int64_t m1, int64_t n0, int64_t n1, float* c, int64_t ldc) const {
    if (block) block(functor, m0, m1, n0, n1, c, ldc);
  }
};

// One chunk of one or two rows: sums[r * sums_step + n] = sum over k of a[k * a_step + r] * b[k * b_step + n].
void gemm_row_sums(int rows, const float* a, int64_t a_step, int64_t depth, const float* b, int64_t b_step,
                   int64_t cols, float* sums, int64_t sums_step);

// The product of plain matrices whose rows lie a_step, b_step, c_step floats apart, compiled once:
// c[M,N] = epilogue(op(a) op(b) + beta c), op transposing as in matmul.
void gemm_strided(int64_t M, int64_t N, int64_t K, const float* a, int64_t a_step, int trans_a, const float* b,
                  int64_t b_step, int trans_b, float beta, float* c, int64_t c_step, const Epilogue& epilogue = {});

// A right operand that many products share, packed once: pack_panels writes op(b)[K,N] into panel_floats(K, N) floats.
int64_t panel_floats(int64_t K, int64_t N);
void pack_panels(int64_t K, int64_t N, const float* b, int64_t b_step, int trans_b, float* panels);
// c[M,N] = a[M,K] b + beta c.
void gemm_panels(int64_t M, int64_t N, int64_t K, const float* a, int64_t a_step, const float* panels, float beta,
                 float* c, int64_t c_step);

namespace {

// -------------------------------------------------------------------------------------------------- operands
//
// A left operand `A` has
//   static constexpr Access kAccess, one of
//     kRows     const float* row(i64 m): element (m, k) is row(m)[offset(k)], where offset is the same for all rows and
//               made of contiguous runs: int runs(i64 k0, i64 k1, Run* out) lists those of [k0, k1), at most kMaxRuns,
//               or returns 0 where packing is better (more runs, or runs of a few elements).
//     kColumns  const float* column(i64 m, i64 k): element (m + i, k + j) is column(m, k)[i + j * column_step()].
//     kPacked   neither: always packed.
//   void pack(i64 m, i64 rows, i64 k0, i64 k1, float* out): out[(k - k0) * kTileRows + i] = element (m + i, k) for
//     i < rows <= kTileRows; the other rows are never looked at. Must not write beside those (k1 - k0) * kTileRows
//     floats: a neighbour may be packing there.
// A right operand `B` has
//   static constexpr bool kDirect: element (k, n + j) is row(k, n)[j], and row(k + 1, n) = row(k, n) + row_step().
//   void pack(i64 k0, i64 k1, i64 n, i64 cols, float* out): out[(k - k0) * kTileCols + j] = element (k, n + j), zero
//     for cols <= j < kTileCols.
// pack_transposed and pack_copied (packing.h) are the two ways to write a `pack`. Several threads call a view at once.

enum class Access { kRows, kColumns, kPacked };

// Four neighbouring panels of a right operand whose rows are contiguous: rows are read 4 * kTileCols at a time, which
// asks less of the TLB than one panel after the other when rows are far apart.
inline void pack_four_panels(const float* source, i64 step, i64 count, float* out) {
  for (i64 k = 0; k < count; ++k) {
    for (int p = 0; p < 4; ++p) {
      memcpy(out + (p * count + k) * kTileCols, source + k * step + p * kTileCols, kTileCols * sizeof(float));
    }
  }
}

// A row-major matrix: element (i, j) is data[i * step + j].
struct RowsA {
  static constexpr Access kAccess = Access::kRows;
  const float* data;
  i64 step;
  const float* row(i64 m) const { return data + m * step; }
  int runs(i64 k0, i64 k1, Run* out) const {
    out[0] = {k0, k1 - k0};
    return 1;
  }
  void pack(i64 m, i64 rows, i64 k0, i64 k1, float* out) const {
    pack_transposed<kTileRows>(data + m * step + k0, step, rows, k1 - k0, out);
  }
};

// The transpose of a row-major matrix: element (m, k) is data[k * step + m].
struct ColumnsA {
  static constexpr Access kAccess = Access::kColumns;
  const float* data;
  i64 step;
  const float* column(i64 m, i64 k) const { return data + k * step + m; }
  i64 column_step() const { return step; }
  void pack(i64 m, i64 rows, i64 k0, i64 k1, float* out) const {
    pack_copied<kTileRows>(data + k0 * step + m, step, rows, k1 - k0, out);
  }
};

struct RowsB {
  static constexpr bool kDirect = true;
  const float* data;
  i64 step;
  const float* row(i64 k, i64 n) const { return data + k * step + n; }
  i64 row_step() const { return step; }
  void pack(i64 k0, i64 k1, i64 n, i64 cols, float* out) const {
    pack_copied<kTileCols>(data + k0 * step + n, step, cols, k1 - k0, out);
  }
};

struct ColumnsB {
  static constexpr bool kDirect = false;
  const float* data;
  i64 step;
  void pack(i64 k0, i64 k1, i64 n, i64 cols, float* out) const {
    pack_transposed<kTileCols>(data + n * step + k0, step, cols, k1 - k0, out);
  }
};

// Panels as pack_panels leaves them: kTileCols columns, all of K, one panel after the other. Tiles read them where they are.
struct PanelsB {
  static constexpr bool kDirect = true;
  const float* data;
  i64 depth;                                                                         // K
  const float* row(i64 k, i64 n) const { return data + n * depth + k * kTileCols; }  // n a multiple of kTileCols
  i64 row_step() const { return kTileCols; }
  void pack(i64, i64, i64, i64, float*) const {}
};
template <class B>
constexpr bool kIsPanels = false;
template <>
constexpr bool kIsPanels<PanelsB> = true;

// ------------------------------------------------------------------------------------------------- epilogues
//
// Made of a functor `vec operator()(vec sum, i64 m, i64 n, i64 lanes) const`: it gets the finished elements
// (m, n) .. (m, n + lanes - 1) while they are in L1 and returns what c receives. Where lanes < kLanes, arrays beside c
// must be reached by load_part and store_part. It runs once for each element, on whichever thread made it.

FASTDL_INLINE vec load_lanes(const float* p, i64 lanes) { return lanes == kLanes ? load(p) : load_part(p, lanes); }
FASTDL_INLINE void store_lanes(float* p, vec v, i64 lanes) {
  if (lanes == kLanes) {
    store(p, v);
  } else {
    store_part(p, v, lanes);
  }
}

// ---------------------------------------------------------------------------------------------------- driver

// A functor that takes long says so by a constant kInSquares: it then also has `vec4 square(vec4 sums, i64 m, i64 n) const`, for
// two vectors of columns from n on of the rows m and m + 1, side by side (chains.h).
template <class E>
constexpr auto in_squares(int) -> decltype(E::kInSquares) {
  return E::kInSquares;
}
template <class E>
constexpr bool in_squares(long) {
  return false;
}

template <class E>
inline void finish_block(i64 m0, i64 m1, i64 n0, i64 n1, float* c, i64 ldc, const E& functor) {
  i64 done = n0;
  if constexpr (in_squares<E>(0)) {
    if (m1 - m0 >= 2) done += (n1 - n0) / (2 * kLanes) * (2 * kLanes);
    for (i64 m = m0; m + 2 <= m1; m += 2) {
      for (i64 n = n0; n < done; n += 2 * kLanes) {
        float *p = c + m * ldc + n, *q = p + ldc;
        const vec4 y = functor.square({{load(p), load(p + kLanes)}, {load(q), load(q + kLanes)}}, m, n);
        store(p, y.a.a);
        store(p + kLanes, y.a.b);
        store(q, y.b.a);
        store(q + kLanes, y.b.b);
      }
    }
  }
  for (i64 m = m0; m < m1; ++m) {
    i64 n = (m1 - m0) % 2 == 1 && m == m1 - 1 ? n0 : done;
    for (; n + kLanes <= n1; n += kLanes) store(c + m * ldc + n, functor(load(c + m * ldc + n), m, n, kLanes));
    if (n < n1) store_part(c + m * ldc + n, functor(load_part(c + m * ldc + n, n1 - n), m, n, n1 - n), n1 - n);
  }
}
// The functor must outlive the product.
template <class E>
Epilogue epilogue_of(const E& functor) {
  return {[](const void* f, i64 m0, i64 m1, i64 n0, i64 n1, float* c, i64 ldc) {
            finish_block(m0, m1, n0, n1, c, ldc, *static_cast<const E*>(f));
          },
          &functor};
}

// One or two rows of c: b is read once, whole rows at a time, at the speed of memory; the sums of a chunk wait in L1.
template <class A, class B>
void gemm_rows(int rows, i64 n0, i64 n1, i64 K, const A& a, const B& b, float beta, float* c, i64 ldc,
               const Epilogue& epilogue) {
  float* a_packed = thread_scratch(0, size_t(kBlockRows * kChunk));
  float* sums = thread_scratch(1, size_t(kStripCols * kChunk));
  for (i64 j0 = n0; j0 < n1; j0 += kStripCols) {
    const i64 cols = smaller(j0 + kStripCols, n1) - j0;
    for (i64 k0 = 0; k0 < K; k0 += kChunk) {
      const i64 k1 = smaller(k0 + kChunk, K);
      const float* ak = nullptr;
      i64 a_step = 1;
      if constexpr (A::kAccess == Access::kRows) {
        Run runs[kMaxRuns];
        if (rows == 1 && a.runs(k0, k1, runs) == 1) ak = a.row(0) + runs[0].offset;
      }
      if (!ak) {
        a.pack(0, rows, k0, k1, a_packed);
        ak = a_packed;
        a_step = kTileRows;
      }
      gemm_row_sums(rows, ak, a_step, k1 - k0, b.row(k0, j0), b.row_step(), cols, sums, kStripCols);
      const float factor = k0 == 0 ? beta : 1.0f;
      for (int r = 0; r < rows; ++r) {
        float *cr = c + r * ldc + j0, *s = sums + r * kStripCols;
        if (factor == 0.0f) {
          memcpy(cr, s, size_t(cols) * sizeof(float));
        } else {
          for (i64 n = 0; n < cols; ++n) cr[n] = factor * cr[n] + s[n];
        }
      }
    }
    epilogue(0, rows, j0, j0 + cols, c, ldc);
  }
}

// Among how many threads a product is shared; below a million flops handing over costs more than it saves.
inline int sharers(double flops) { return flops < 1e6 ? 1 : num_threads(); }

// Flops of a task: small enough that threads end together, large enough to pay for handing it over and for fetching its
// rows of a. Up to kTasks of them a thread.
constexpr double kLeastTask = 3e5, kMostTask = 6e6;
constexpr int kTasks = 16;

// The size of equal parts, multiples of `unit` and at most `most` (which is one), that cover `total`.
inline i64 even_part(i64 total, i64 most, i64 unit) {
  const i64 parts = (total + most - 1) / most, part = (total + parts - 1) / parts;
  return (part + unit - 1) / unit * unit;
}

// How many of the columns of a panel that is not whole are best multiplied as few: none, all, or all but a vector. Counted in
// multiply-adds a step.
inline i64 columns_as_few(i64 edge, i64 M, bool packed, Access access) {
  const bool turned = !packed && access == Access::kRows;
  const i64 rows = packed ? kTileRows : M, vectors = (rows + kLanes - 1) / kLanes;
  // To pack the panel for other tiles costs about as much as to turn a vector of rows.
  i64 best = 0, least = (edge <= kLanes ? rows : rows * kTileVecs) + (turned ? kTurning : 0);
  for (i64 wide = 0; wide <= kLanes; wide += kLanes) {
    const i64 few = edge - wide, cost = (wide ? rows : 0) + vectors * (few + (turned ? kTurning : 0));
    if (few > 0 && few <= (turned ? kFewByRows : kFewByColumns) && cost < least) {
      best = few;
      least = cost;
    }
  }
  return best;
}

// Rows m0 to m1 - 1 of few columns, at t->c; a lies at `slices` if it is packed.
template <class A>
__attribute__((noinline)) void multiply_few(i64 few, i64 m0, i64 m1, i64 k0, const A& a, const float* slices,
                                            TileArgs* t) {
  const TileFunction* tile = gemm_few_by_columns;
  for (i64 m = m0; m < m1; m += t->height, t->c += t->height * t->c_step) {
    t->height = m1 - m;
    if (slices) {
      t->height = smaller<i64>(kTileRows, t->height);
      t->a = slices + (m - m0) * t->count;
      t->a_step = kTileRows;
    } else if constexpr (A::kAccess == Access::kRows) {
      t->height = smaller<i64>(kTurnedRows, t->height);
      for (i64 r = 0; r < kTurnedRows; ++r) t->rows[r] = a.row(r < t->height ? m + r : m);
      tile = gemm_few_by_rows;
    } else if constexpr (A::kAccess == Access::kColumns) {
      t->a = a.column(m, k0);
      t->a_step = a.column_step();
    }
    tile[few](*t);
  }
}

// Columns n0..n1 of c.
template <class A, class B>
void gemm_columns(i64 M, i64 n0, i64 n1, i64 K, const A& a, const B& b, float beta, float* c, i64 ldc,
                  const Epilogue& epilogue, int threads) {
  if constexpr (B::kDirect && !kIsPanels<B>) {
    if (M <= 2) return gemm_rows(int(M), n0, n1, K, a, b, beta, c, ldc, epilogue);
  }
  // The caller's buffers: helpers fill and read them too.
  float* const a_packed = thread_scratch(0, size_t(((threads > 1 ? kGroupRows : kBlockRows) + kTileRows) * kChunk));
  float* const b_packed = thread_scratch(1, size_t(kStripCols * kChunk));
  // Packing b costs about as much as multiplying it by one or two slices of a; in L1 it lies well enough as it is.
  const bool direct_b = kIsPanels<B> || (B::kDirect && (M <= 2 * kTileRows || (n1 - n0) * K <= kInL1));
  Run runs[kMaxRuns];
  for (i64 j0 = n0; j0 < n1; j0 += kStripCols) {
    const i64 strip = smaller(kStripCols, n1 - j0), panels = (strip + kTileCols - 1) / kTileCols;
    for (i64 k0 = 0; k0 < K; k0 += kChunk) {
      const i64 k1 = smaller(k0 + kChunk, K), depth = k1 - k0;
      const bool last = k1 == K;
      // Packing a pays when a slice is used for more than a few panels.
      const TileFunction *tiles = gemm_by_columns, *narrow = gemm_narrow_by_columns;
      TenTile ten = {nullptr, 0};
      bool pack_a = true;
      int run_count = 0;
      if constexpr (A::kAccess == Access::kRows) {
        run_count = a.runs(k0, k1, runs);
        if (run_count > 0 && strip <= 4 * kTileCols) {
          pack_a = false;
          tiles = gemm_by_rows;
          narrow = gemm_narrow_by_rows;
          if (strip == 9 || strip == 10) ten = gemm_ten_by_rows;
        }
      } else if constexpr (A::kAccess == Access::kColumns) {
        if (strip <= 2 * kTileCols) pack_a = false;
      }
      // The last panel's columns, if it is not whole: a vector of them and few, or either.
      const i64 edge = strip % kTileCols;
      const i64 few = ten.tile ? 0 : columns_as_few(edge, M, pack_a, A::kAccess), edge_wide = edge - few;
      // Whether the last panel is multiplied where it is: a tile of one vector reads no more than its columns, wider ones would.
      const bool direct_edge = B::kDirect && (edge_wide == 0 || (direct_b && edge_wide == kLanes));
      const i64 tile_rows = !pack_a && strip <= kLanes ? kNarrowRows : kTileRows;
      // Tiles of all kinds fill 48 rows, where slices do.
      const i64 unit = pack_a || 48 % kTileRows != 0 ? kTileRows : 48;
      const i64 group_rows = threads > 1 ? even_part(M, kGroupRows, unit) : kBlockRows;

      for (i64 i0 = 0; i0 < M; i0 += group_rows) {
        const i64 i1 = smaller(i0 + group_rows, M);
        // Pack: the panels of b once, for the first rows; then the slices of a.
        const i64 new_panels = i0 == 0 && !kIsPanels<B> ? panels : 0;
        const i64 new_slices = pack_a ? (i1 - i0 + kTileRows - 1) / kTileRows : 0;
        parallel_for(new_panels + new_slices, threads > 1 ? 4 : INT64_MAX, [&](i64 begin, i64 end) {
          for (i64 item = begin; item < end; ++item) {
            if (item < new_panels) {
              const i64 j = item * kTileCols, cols = smaller<i64>(kTileCols, strip - j);
              if constexpr (B::kDirect) {
                if (!direct_b && item + 4 <= smaller(new_panels, end) && j + 4 * kTileCols <= strip) {
                  pack_four_panels(b.row(k0, j0 + j), b.row_step(), depth, b_packed + j * depth);
                  item += 3;
                  continue;
                }
              }
              if (cols < kTileCols ? !direct_edge : !direct_b) b.pack(k0, k1, j0 + j, cols, b_packed + j * depth);
            } else {
              const i64 i = (item - new_panels) * kTileRows;
              a.pack(i0 + i, smaller<i64>(kTileRows, i1 - i0 - i), k0, k1, a_packed + i * depth);
            }
          }
        });

        // Multiply: tasks of up to kBlockRows rows and some panels, about as large as each other.
        const i64 block_rows = even_part(i1 - i0, kBlockRows, unit), blocks = (i1 - i0 + block_rows - 1) / block_rows;
        i64 task_panels = panels;
        if (threads > 1) {
          const double flops = 2.0 * double(i1 - i0) * double(strip) * double(depth);
          double tasks = kTasks * threads;
          if (tasks > flops / kLeastTask) tasks = flops / kLeastTask;
          if (tasks < flops / kMostTask) tasks = flops / kMostTask;
          task_panels = smaller(i64(double(panels * blocks - 1) / tasks) + 1, panels);
        }
        task_panels = even_part(panels, task_panels, 1);
        const i64 parts = (panels + task_panels - 1) / task_panels;
        parallel_for(blocks * parts, threads > 1 ? 1 : blocks * parts, [&](i64 begin, i64 end) {
          TileArgs t = {};
          t.runs = runs;
          t.run_count = run_count;
          t.count = depth;
          t.c_step = ldc;
          t.beta = k0 == 0 ? beta : 1.0f;
          for (i64 task = begin; task < end; ++task) {
            const i64 m0 = i0 + task / parts * block_rows, m1 = smaller(m0 + block_rows, i1);
            const i64 p0 = task % parts * task_panels, p1 = smaller(p0 + task_panels, panels);
            for (i64 p = p0; p < p1; ++p) {
              const i64 j = j0 + p * kTileCols;
              const i64 cols = smaller<i64>(kTileCols, j0 + strip - j);
              t.cols = cols < kTileCols ? edge_wide : kTileCols;
              t.b = b_packed + p * kTileCols * depth;
              t.b_step = kTileCols;
              if constexpr (B::kDirect) {
                if (kIsPanels<B> || (cols < kTileCols ? direct_edge : direct_b)) {
                  t.b = b.row(k0, j);
                  t.b_step = b.row_step();
                }
              }
              for (i64 i = m0, rows; i < m1 && t.cols > 0; i += rows) {
                const bool whole = ten.tile && m1 - i >= ten.rows;
                rows = whole ? ten.rows : smaller(tile_rows, m1 - i);
                t.c = c + i * ldc + j;
                if (pack_a) {
                  t.a = a_packed + (i - i0) * depth;
                  t.a_step = kTileRows;
                } else if constexpr (A::kAccess == Access::kRows) {
                  for (i64 r = 0; r < rows; ++r) t.rows[r] = a.row(i + r);
                } else if constexpr (A::kAccess == Access::kColumns) {
                  t.a = a.column(i, k0);
                  t.a_step = a.column_step();
                }
                (whole ? ten.tile : (t.cols <= kLanes ? narrow : tiles)[rows])(t);
                if (last) epilogue(i, i + rows, j, j + t.cols, c, ldc);
              }
              if (cols == kTileCols || few == 0) continue;
              t.b += edge_wide;
              t.c = c + m0 * ldc + j + edge_wide;
              multiply_few(few, m0, m1, k0, a, pack_a ? a_packed + (m0 - i0) * depth : nullptr, &t);
              if (last) epilogue(m0, m1, j + edge_wide, j + cols, c, ldc);
            }
          }
        });
      }
    }
  }
}

// c[M,N] = epilogue(a b + beta c). With beta == 0 c is not read. a, b and the epilogue's arrays must not overlap c.
template <class A, class B>
void gemm(i64 M, i64 N, i64 K, const A& a, const B& b, float beta, float* c, i64 ldc, const Epilogue& epilogue = {}) {
  if (M <= 0 || N <= 0) return;
  if (K <= 0) {
    for (i64 m = 0; m < M; ++m) {
      for (i64 n = 0; n < N; ++n) c[m * ldc + n] = beta == 0.0f ? 0.0f : beta * c[m * ldc + n];
    }
    epilogue(0, M, 0, N, c, ldc);
    return;
  }
  const double flops = 2.0 * double(M) * double(N) * double(K);
  const int threads = sharers(flops);
  if (M <= 2 * kTileRows && threads > 1) {
    // Few rows: every column of b is used once or twice, so each thread had better fetch its own. The columns of a task
    // fill cache lines and, at a stride of pages, still give the prefetchers runs to follow.
    constexpr i64 kUnit = kIsPanels<B> ? kTileCols * 16 : 256;
    const double share = flops / (6.0 * threads), task = share < kLeastTask ? kLeastTask : share > 3e7 ? 3e7 : share;
    const i64 columns = (i64(task) / (2 * M * K) / kUnit + 1) * kUnit;
    parallel_for(N, columns, [&](i64 n0, i64 n1) {
      for (i64 n = n0; n < n1; n += columns) {
        gemm_columns(M, n, smaller(n + columns, n1), K, a, b, beta, c, ldc, epilogue, 1);
      }
    });
    return;
  }
  gemm_columns(M, 0, N, K, a, b, beta, c, ldc, epilogue, threads);
}

}  // namespace
}  // namespace fastdl
