// Operands of the products: how a tile of a matrix comes from global into shared memory.
//
// Both operands are seen alike. Operand A has element (i, k) for row i = m, operand B for column i = n: "I" below is M or N.
// A tile is BI x 16 elements. The fp32 loop wants it as [k][i] (a thread reads four neighbours i at once), the tensor cores
// take both: [i][k] by ldmatrix (a row is four neighbours k), [k][i] by loads of 4 bytes. Copies go by 16 bytes along memory
// where they can, and straight into shared memory (cp.async) unless they have to be transposed:
//
//                        fp32: [k][i], lines of BI + 4 floats     tensor cores
//   KMajor  (k along)    16 bytes to registers, 4 x 4 bytes on    [i][k], rows of 20 floats: 16 bytes
//   MNMajor (i along)    16 bytes                                 [k][i], lines of BI + 8 floats: 16 bytes
//   Gather  (either)     as the two above, by 16 bytes where channels are a multiple of four
//   not aligned          4 bytes, asynchronous                    4 bytes, asynchronous
//
// The paddings make these free of bank conflicts, but for the unaligned copies of MNMajor: a transposing warp stores 16 i by
// 2 quads of k, banks 16 q + i; ldmatrix's eight rows of 20 floats start at banks 0 20 8 28 16 4 24 12; and the tensor cores'
// loads of 4 bytes have banks 8 k + i.
//
// Edges cost the main loop next to nothing: rows beyond I repeat the last one or are zeros (what they give is never stored),
// and beyond K zeros are filled in by the copy itself, with one comparison for all copies of a thread that share their k.
#pragma once
#include "warp.cuh"

namespace fastdl {

constexpr int kTileK = 16;
constexpr int kChunk = 256;  // part of the definition of a sum (kernels.h): never tune it

// The loaders of the two plain operands step by 32-bit numbers of bytes. gemm() turns operands of longer rows into Gather.
constexpr i64 kLongestRow = (i64{1} << 29) - 1;

// Element (i, k) is p[i * ld + k]: a[M,K] as it lies, or b[N,K] (trans_b).
struct KMajor {
  const float* p;
  i64 ld;
  bool wide = false;  // set by gemm(): 16 bytes at a time
  static constexpr bool kTable = false, kAlongK = true;
};

// Element (i, k) is p[k * ld + i]: b[K,N] as it lies, or a[K,M] (trans_a).
struct MNMajor {
  const float* p;
  i64 ld;
  bool wide = false;
  static constexpr bool kTable = false, kAlongK = false;
};

// An index written as three digits (d0, d1, d2), d1 < size1, d2 < size2, each of which moves an offset and a place (y, x)
// linearly: pixels of a batch, taps of a filter, gates of a cell. Places count modulo 2^32, so that "inside" is one comparison.
struct Axis {
  i64 size1, size2;
  i64 base, step[3];
  uint32_t y0, x0, y[3], x[3];
};
inline Axis linear_axis(i64 step) { return Axis{1, 1, 0, {step, 0, 0}, 0, 0, {}, {}}; }

struct alignas(16) AxisEntry {
  i64 offset;
  uint32_t y, x;
};

__device__ __forceinline__ i64 quotient(i64 a, i64 b) {  // of a >= 0, b > 0; a 64-bit division is a hundred instructions
  return ((a | b) >> 32) == 0 ? static_cast<i64>(static_cast<uint32_t>(a) / static_cast<uint32_t>(b)) : a / b;
}
__device__ __forceinline__ AxisEntry entry_at(const Axis& axis, i64 index) {
  const i64 upper = quotient(index, axis.size2), d0 = quotient(upper, axis.size1);
  const i64 d2 = index - upper * axis.size2, d1 = upper - d0 * axis.size1;
  const uint32_t u0 = static_cast<uint32_t>(d0), u1 = static_cast<uint32_t>(d1), u2 = static_cast<uint32_t>(d2);
  return {axis.base + d0 * axis.step[0] + d1 * axis.step[1] + d2 * axis.step[2],
          axis.y0 + u0 * axis.y[0] + u1 * axis.y[1] + u2 * axis.y[2],
          axis.x0 + u0 * axis.x[0] + u1 * axis.x[1] + u2 * axis.x[2]};
}

// Element (i, k) is p[row(i).offset + k(k).offset] where the places add up to one inside Y x X, and 0 elsewhere: the
// implicit matrix of a convolution. The digits are worked out once, into tables in shared memory: rows once a block, k once a
// chunk; the loop adds and compares. KInner: memory runs along k, else along i.
template <bool KInner>
struct Gather {
  const float* p;
  Axis row, k;
  uint32_t Y, X;
  bool wide = false;
  static constexpr bool kTable = true, kAlongK = KInner;
};

// ------------------------------------------------------------------------------------------------------ loaders

// Where a tile of BI x 16 lies in shared memory, and the Threads that fill it: as [k][i], in lines of BI + Pad floats, or as
// [i][k], in rows of 20.
template <int BI_, int Threads_, bool Lines, int Pad>
struct TileFrame {
  static constexpr int BI = BI_, Threads = Threads_;
  static constexpr bool kLines = Lines;
  static constexpr int kRow = Lines ? BI + Pad : kTileK + 4;
  static constexpr int kFloats = Lines ? kTileK * kRow : BI * kRow;
  static constexpr int kCopies = BI * kTileK / Threads;  // of 4 bytes, a thread
  static constexpr int kQuads = kCopies / 4;
  static_assert(BI * kTileK % (4 * Threads) == 0 && Threads % 64 == 0, "even shares");
  static __device__ __forceinline__ int place(int i, int k) { return Lines ? k * kRow + i : i * kRow + k; }
};

struct NoTable {};
template <int BI>
struct GatherTable {
  AxisEntry row[BI], k[2][kChunk];  // of a chunk and the next
};
template <class Operand, int BI>
struct TableOf {
  using type = NoTable;
};
template <bool KInner, int BI>
struct TableOf<Gather<KInner>, BI> {
  using type = GatherTable<BI>;
};

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
constexpr bool kAsync = false;
#else
constexpr bool kAsync = true;
#endif

__device__ __forceinline__ int smaller(int a, int b) { return a < b ? a : b; }
// p + steps * bytes, one instruction.
__device__ __forceinline__ const float* advance(const char* p, int steps, int bytes) {
#if defined(__CUDA_ARCH__)
  uint64_t to;
  asm("mad.wide.s32 %0, %1, %2, %3;" : "=l"(to) : "r"(steps), "r"(bytes), "l"(p));
  return reinterpret_cast<const float*>(to);
#else
  return reinterpret_cast<const float*>(p + static_cast<i64>(steps) * bytes);
#endif
}

// block() comes once; chunk() turns the loader to elements k0 .. k0 + count of K, and next() readies tables for the 256 after
// those from k on. tile() copies elements k .. k + 16; what it could not copy asynchronously waits in registers until store().
// count may be zero or less: then every tile is zeros.
template <class Operand, class Frame>
struct Loader;

// Which (i, k) is copy j of thread t, 4 bytes a copy: by eights of the axis that memory runs along, by fours of the other; or
// lines of i.
template <class Frame, bool KInner>
struct Walk {
  int i, k;
  static constexpr int kWarps = Frame::Threads / 32;
  static constexpr int kStepI = KInner ? kWarps / 2 * 4 : 0;
  __device__ __forceinline__ explicit Walk(int t) {
    const int lane = t % 32, warp = t / 32;
    if (KInner) {
      i = warp / 2 * 4 + lane / 8;
      k = warp % 2 * 8 + lane % 8;
    } else {
      i = t % Frame::BI;
      k = t / Frame::BI;
    }
  }
};

// The same by quads: four of k, rows kStep apart; to [k][i] they go through registers, each warp 16 i by 2 quads, which meets
// every bank once.
template <class Frame>
struct QuadWalk {
  int i, k;
  static constexpr int kStep = Frame::Threads / 4;
  __device__ __forceinline__ explicit QuadWalk(int t) {
    const int lane = t % 32, warp = t / 32;
    if (Frame::kLines) {
      i = warp / 2 * 16 + lane / 2;
      k = (warp % 2 * 2 + lane % 2) * 4;
    } else {
      i = t / 4;
      k = t % 4 * 4;
    }
  }
};

__device__ __forceinline__ float4 load_quad(const float* from, bool inside) {
  return inside ? __ldg(reinterpret_cast<const float4*>(from)) : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
}
template <class Frame>
__device__ __forceinline__ void store_quad(float* to, const float4& v) {  // along k, to [k][i]
  to[0] = v.x, to[Frame::kRow] = v.y, to[2 * Frame::kRow] = v.z, to[3 * Frame::kRow] = v.w;
}

// chunk() works out all that the tiles of a chunk share: the loop's share of multiplications is at stake. What it works that
// out from is read anew each time: registers are, too.
template <class Frame>
struct Loader<KMajor, Frame> {
  const char* at;  // the thread's first element of the chunk
  int bytes, room, place, left;
  bool wide;
  float4 held[Frame::kLines ? Frame::kQuads : 1];

  __device__ __forceinline__ void block(const KMajor&, i64, i64, int, NoTable&) {}
  __device__ __forceinline__ void chunk(const KMajor& v, i64 batch, i64 i0, i64 I, i64 k0, i64 count, int t) {
    bytes = static_cast<int>(v.ld * 4), wide = v.wide;
    const Walk<Frame, true> w(t);
    const QuadWalk<Frame> quads(t);
    const int i = wide ? quads.i : w.i, k = wide ? quads.k : w.k;
    place = Frame::place(i, k);
    room = static_cast<int>(I - i0 < Frame::BI ? I - i0 : Frame::BI) - 1 - i;  // may be negative: rows to go back
    left = static_cast<int>(count) - k;
    at = reinterpret_cast<const char*>(v.p + batch + (i0 + i) * v.ld + k0 + k);
  }
  __device__ __forceinline__ void next(const KMajor&, i64, int) {}
  __device__ __forceinline__ void tile(float* to, int k) {
    const char* from = at + k * 4;
    to += place;
    const bool inside = k < left;
    if (wide) {
      constexpr int kStep = QuadWalk<Frame>::kStep;
#pragma unroll
      for (int j = 0; j < Frame::kQuads; ++j)
        if constexpr (Frame::kLines)
          held[j] = load_quad(advance(from, j * kStep, bytes), inside && j * kStep <= room);
        else
          copy_async16(to + Frame::place(j * kStep, 0), advance(from, j * kStep, bytes), inside && j * kStep <= room);
    } else {
      constexpr int kStep = Walk<Frame, true>::kStepI;
#pragma unroll 4
      for (int j = 0; j < Frame::kCopies; ++j)
        copy_async4(to + Frame::place(j * kStep, 0), advance(from, j * kStep, bytes), inside && j * kStep <= room);
    }
  }
  __device__ __forceinline__ void store(float* to) const {
    if constexpr (Frame::kLines)
      if (wide)
#pragma unroll
        for (int j = 0; j < Frame::kQuads; ++j)
          store_quad<Frame>(to + place + Frame::place(j * QuadWalk<Frame>::kStep, 0), held[j]);
  }
};

template <class Frame>
struct Loader<MNMajor, Frame> {
  static constexpr int kLines = Frame::Threads / (Frame::BI / 4);  // of a tile, filled at once by quads
  const char* at;
  int bytes, room, place, left;
  bool wide;

  __device__ __forceinline__ void block(const MNMajor&, i64, i64, int, NoTable&) {}
  __device__ __forceinline__ void chunk(const MNMajor& v, i64 batch, i64 i0, i64 I, i64 k0, i64 count, int t) {
    bytes = static_cast<int>(v.ld * 4), wide = v.wide;
    const int i = t % (Frame::BI / 4) * 4, k = t / (Frame::BI / 4);
    place = Frame::place(i, k);
    room = static_cast<int>(I - i0 < Frame::BI ? I - i0 : Frame::BI) - 1 - i;
    left = static_cast<int>(count) - k;
    at = reinterpret_cast<const char*>(v.p + batch + i0 + i + (k0 + k) * v.ld);
  }
  __device__ __forceinline__ void next(const MNMajor&, i64, int) {}
  __device__ __forceinline__ void store(float*) const {}
  __device__ __forceinline__ void tile(float* to, int k) const {
    to += place;
    const float *from[kTileK / kLines];
#pragma unroll
    for (int j = 0; j < kTileK / kLines; ++j) from[j] = advance(at, k + j * kLines, bytes);
    if (wide) {
#pragma unroll
      for (int j = 0; j < kTileK / kLines; ++j)
        copy_async16(to + Frame::place(0, j * kLines), from[j], 0 <= room && k + j * kLines < left);
    } else {
#pragma unroll 1
      for (int e = 0; e < 4; ++e)
#pragma unroll
        for (int j = 0; j < kTileK / kLines; ++j)
          copy_async4(to + Frame::place(e, j * kLines), from[j] + e, e <= room && k + j * kLines < left);
    }
  }
};

template <bool KInner, class Frame>
struct Loader<Gather<KInner>, Frame> {
  static_assert(KInner || Frame::kLines, "as memory runs");
  static constexpr int kLines = Frame::Threads / (Frame::BI / 4);
  const float* p;
  GatherTable<Frame::BI>* table;
  uint32_t Y, X;
  int left, t;
  bool wide;
  float4 held[KInner && Frame::kLines ? Frame::kQuads : 1];

  __device__ __forceinline__ void block(const Gather<KInner>& v, i64 i0, i64 I, int thread,
                                        GatherTable<Frame::BI>& shared) {
    table = &shared, Y = v.Y, X = v.X, t = thread, wide = v.wide;
    for (int i = t; i < Frame::BI; i += Frame::Threads)
      table->row[i] = entry_at(v.row, i0 + i < I ? i0 + i : (I - 1) / 4 * 4);  // beyond the edge: any that is there
  }
  __device__ __forceinline__ void fill(const Gather<KInner>& v, i64 k0, int from) {
    const int end = smaller(left, from + kChunk);
    for (int k = from + t; k < end; k += Frame::Threads) k_entry(k) = entry_at(v.k, k0 + k);
  }
  __device__ __forceinline__ void chunk(const Gather<KInner>& v, i64 batch, i64, i64, i64 k0, i64 count, int) {
    p = v.p + batch;
    left = static_cast<int>(count);
    fill(v, k0, 0);
  }
  __device__ __forceinline__ void next(const Gather<KInner>& v, i64 k0, int k) { fill(v, k0, k + kChunk); }
  __device__ __forceinline__ AxisEntry& k_entry(int k) const { return (&table->k[0][0])[k & (2 * kChunk - 1)]; }
  __device__ __forceinline__ AxisEntry k_entry_or_none(int k) const {
    AxisEntry e = {0, 0, 0};
    if (k < left) e = k_entry(k);
    return e;
  }
  __device__ __forceinline__ bool meet(const AxisEntry& row, const AxisEntry& k) const {
    return row.y + k.y < Y && row.x + k.x < X;
  }
  __device__ __forceinline__ void tile(float* to, int k) {
    int thread = t;
    keep_inside(thread);
    if (wide && KInner) {
      const QuadWalk<Frame> w(thread);
      const bool inside = k + w.k < left;
      const AxisEntry e = k_entry_or_none(k + w.k);
#pragma unroll
      for (int j = 0; j < Frame::kQuads; ++j) {
        const int i = w.i + j * w.kStep;
        const AxisEntry row = table->row[i];
        const float* from = p + (row.offset + e.offset);
        if constexpr (Frame::kLines)
          held[j] = load_quad(from, inside && meet(row, e));
        else
          copy_async16(to + Frame::place(i, w.k), from, inside && meet(row, e));
      }
    } else if (wide) {
      const int i = thread % (Frame::BI / 4) * 4, line = thread / (Frame::BI / 4);
      const AxisEntry row = table->row[i];
#pragma unroll
      for (int j = 0; j < kTileK / kLines; ++j) {
        const int kk = line + j * kLines;
        const AxisEntry e = k_entry_or_none(k + kk);
        copy_async16(to + Frame::place(i, kk), p + (row.offset + e.offset), k + kk < left && meet(row, e));
      }
    } else {
      const Walk<Frame, KInner> w(thread);
      if (KInner) {
        const bool inside = k + w.k < left;
        const AxisEntry e = k_entry_or_none(k + w.k);
#pragma unroll 4
        for (int j = 0; j < Frame::kCopies; ++j) {
          const int i = w.i + j * w.kStepI;
          const AxisEntry row = table->row[i];
          copy_async4(to + Frame::place(i, w.k), p + (row.offset + e.offset), inside && meet(row, e));
        }
      } else {
#pragma unroll 4
        for (int j = 0; j < Frame::kCopies; ++j) {
          const int i = w.i + j * Frame::Threads % Frame::BI, kk = w.k + j * Frame::Threads / Frame::BI;
          const AxisEntry row = table->row[i], e = k_entry_or_none(k + kk);
          copy_async4(to + Frame::place(i, kk), p + (row.offset + e.offset), k + kk < left && meet(row, e));
        }
      }
    }
  }
  __device__ __forceinline__ void store(float* to) const {
    if constexpr (KInner && Frame::kLines)
      if (wide) {
        int thread = t;
        keep_inside(thread);
        const QuadWalk<Frame> w(thread);
#pragma unroll
        for (int j = 0; j < Frame::kQuads; ++j) store_quad<Frame>(to + Frame::place(w.i + j * w.kStep, w.k), held[j]);
      }
  }
};

}  // namespace fastdl
