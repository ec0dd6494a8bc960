// Operands of the products: how a tile of a matrix comes from global into shared memory.
//
// Both operands are seen alike. Operand A has element (i, k) for row i = m, operand B for column i = n: "I" below is M or N.
// A tile is BI x 16 elements. The fp32 loop wants it as [k][i] (a thread reads four neighbours i at once), the tensor cores
// as [i][k] (a row of ldmatrix is four neighbours k); the operand says which axis runs along in memory, and the copies
// transpose on the way where the two differ:
//
//                        [k][i], rows of BI + 4 floats            [i][k], rows of 20 floats
//   KMajor  (k along)    4 bytes, a warp takes 8 k x 4 i          16 bytes (4 where not aligned)
//   MNMajor (i along)    16 bytes (4 times 4 if not aligned)      4 bytes, a warp takes 8 i x 4 k
//   Gather  (either)     4 bytes, as the two above                4 bytes, as the two above
//
// The paddings make all of these free of bank conflicts but the unaligned copies (four-way, on the way in only), reads
// included: with 8 k x 4 i the banks are 4 k + i; ldmatrix's eight rows of 20 floats start at banks 0 20 8 28 16 4 24 12.
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
  static constexpr bool kTable = false;
};

// Element (i, k) is p[k * ld + i]: b[K,N] as it lies, or a[K,M] (trans_a).
struct MNMajor {
  const float* p;
  i64 ld;
  bool wide = false;
  static constexpr bool kTable = false;
};

// An index written as three digits (d0, d1, d2), d1 < size1, d2 < size2, each of which moves an offset and a place (y, x)
// linearly: pixels of a batch, taps of a filter, gates of a cell. Places count modulo 2^32, so that "inside" is one comparison.
struct Axis {
  i64 size1, size2;
  i64 base, step[3];
  uint32_t y0, x0, y[3], x[3];
};
inline Axis linear_axis(i64 step) { return Axis{1, 1, 0, {step, 0, 0}, 0, 0, {}, {}}; }

struct AxisEntry {
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
  static constexpr bool kTable = true;
};

// ------------------------------------------------------------------------------------------------------ loaders

// Where a tile of BI x 16 lies in shared memory, and the Threads that fill it.
template <int BI_, int Threads_, bool Tensor>
struct TileFrame {
  static constexpr int BI = BI_, Threads = Threads_;
  static constexpr bool kTensor = Tensor;
  static constexpr int kRow = Tensor ? kTileK + 4 : BI + 4;
  static constexpr int kFloats = Tensor ? BI * kRow : kTileK * kRow;
  static constexpr int kCopies = BI * kTileK / Threads;  // of 4 bytes, a thread
  static_assert(BI * kTileK % Threads == 0 && Threads % (Tensor ? 128 : 64) == 0, "even shares");
  static __device__ __forceinline__ int place(int i, int k) { return Tensor ? i * kRow + k : k * kRow + i; }
};

struct NoTable {};
template <int BI>
struct GatherTable {
  AxisEntry row[BI], k[kChunk];
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

// block() comes once, chunk() turns the loader to elements k0 .. k0 + count of K, tile() copies elements k .. k + 16 of those.
// count may be zero or less: then every tile is zeros.
template <class Operand, class Frame>
struct Loader;

// Which (i, k) is copy j of thread t.
template <class Frame, bool KInner>
struct Walk {
  int i, k;
  static constexpr bool kAlongK = KInner;
  static constexpr int kWarps = Frame::Threads / 32;
  // By eights of the axis that memory runs along, by fours of the other; or lines of i.
  static constexpr bool kLines = !KInner && !Frame::kTensor;
  static constexpr int kStepI = kLines ? 0 : KInner ? kWarps / 2 * 4 : kWarps / 4 * 8;
  static constexpr int kStepK = kLines ? Frame::Threads / Frame::BI : 0;
  __device__ __forceinline__ explicit Walk(int t) {
    const int lane = t % 32, warp = t / 32;
    if (kLines) {
      i = t % Frame::BI;
      k = t / Frame::BI;
    } else if (KInner) {
      i = warp / 2 * 4 + lane / 8;
      k = warp % 2 * 8 + lane % 8;
    } else {
      i = warp / 4 * 8 + lane % 8;
      k = warp % 4 * 4 + lane / 8;
    }
  }
};

// chunk() works out all that the tiles of a chunk share: the loop's share of multiplications is at stake. What it works that
// out from is read anew each time: registers are, too.
template <class Frame>
struct Loader<KMajor, Frame> {
  static constexpr bool kQuads = Frame::kTensor;  // 16 bytes where `wide`
  const char* at;                                 // the thread's first element of the chunk
  int bytes, room, place, left;
  bool wide;

  __device__ __forceinline__ void block(const KMajor&, i64, i64, int, NoTable&) {}
  __device__ __forceinline__ void chunk(const KMajor& v, i64 batch, i64 i0, i64 I, i64 k0, i64 count, int t) {
    bytes = static_cast<int>(v.ld * 4), wide = kQuads && v.wide;
    const Walk<Frame, true> w(t);
    const int i = wide ? t / 4 : w.i, k = wide ? t % 4 * 4 : w.k;
    place = Frame::place(i, k);
    room = static_cast<int>(I - i0 < Frame::BI ? I - i0 : Frame::BI) - 1 - i;  // may be negative: rows to go back
    left = static_cast<int>(count) - k;
    at = reinterpret_cast<const char*>(v.p + batch + (i0 + i) * v.ld + k0 + k);
  }
  __device__ __forceinline__ void tile(float* to, int k) const {
    const char* from = at + k * 4;
    to += place;
    const bool inside = k < left;
    if (kQuads && wide) {
      constexpr int kStep = Frame::Threads / 4;
#pragma unroll
      for (int j = 0; j < Frame::kCopies / 4; ++j)
        copy_async16(to + Frame::place(j * kStep, 0), advance(from, j * kStep, bytes), inside && j * kStep <= room);
    } else {
      constexpr int kStep = Walk<Frame, true>::kStepI;
#pragma unroll
      for (int j = 0; j < Frame::kCopies; ++j)
        copy_async4(to + Frame::place(j * kStep, 0), advance(from, j * kStep, bytes), inside && j * kStep <= room);
    }
  }
};

template <class Frame>
struct Loader<MNMajor, Frame> {
  static constexpr bool kQuads = !Frame::kTensor;  // of i, at once where `wide`
  static constexpr int kLines = Frame::Threads / (Frame::BI / 4);  // of a tile, filled at once by quads
  const char* at;
  int bytes, room, place, left;
  bool wide;

  __device__ __forceinline__ void block(const MNMajor&, i64, i64, int, NoTable&) {}
  __device__ __forceinline__ void chunk(const MNMajor& v, i64 batch, i64 i0, i64 I, i64 k0, i64 count, int t) {
    bytes = static_cast<int>(v.ld * 4), wide = kQuads && v.wide;
    const Walk<Frame, false> w(t);
    const int i = kQuads ? t % (Frame::BI / 4) * 4 : w.i, k = kQuads ? t / (Frame::BI / 4) : w.k;
    place = Frame::place(i, k);
    room = static_cast<int>(I - i0 < Frame::BI ? I - i0 : Frame::BI) - 1 - i;
    left = static_cast<int>(count) - k;
    at = reinterpret_cast<const char*>(v.p + batch + i0 + i + (k0 + k) * v.ld);
  }
  __device__ __forceinline__ void tile(float* to, int k) const {
    to += place;
    if (kQuads) {
      const float *from[kTileK / kLines];
#pragma unroll
      for (int j = 0; j < kTileK / kLines; ++j) from[j] = advance(at, k + j * kLines, bytes);
      if (wide) {
#pragma unroll
        for (int j = 0; j < kTileK / kLines; ++j)
          copy_async16(to + Frame::place(0, j * kLines), from[j], 0 <= room && k + j * kLines < left);
      } else {
#pragma unroll(kAsync ? 4 : 1)
        for (int e = 0; e < 4; ++e)
#pragma unroll
          for (int j = 0; j < kTileK / kLines; ++j)
            copy_async4(to + Frame::place(e, j * kLines), from[j] + e, e <= room && k + j * kLines < left);
      }
    } else {
      const float* from = advance(at, k, bytes);
      constexpr int kStep = Walk<Frame, false>::kStepI;
#pragma unroll
      for (int j = 0; j < Frame::kCopies; ++j)
        copy_async4(to + Frame::place(j * kStep, 0), from + j * kStep, j * kStep <= room && k < left);
    }
  }
};

template <bool KInner, class Frame>
struct Loader<Gather<KInner>, Frame> {
  const float* p;
  GatherTable<Frame::BI>* table;
  uint32_t Y, X;
  int left, t;

  __device__ __forceinline__ void block(const Gather<KInner>& v, i64 i0, i64 I, int thread,
                                        GatherTable<Frame::BI>& shared) {
    table = &shared, Y = v.Y, X = v.X, t = thread;
    for (int i = t; i < Frame::BI; i += Frame::Threads) table->row[i] = entry_at(v.row, i0 + i < I ? i0 + i : I - 1);
  }
  __device__ __forceinline__ void chunk(const Gather<KInner>& v, i64 batch, i64, i64, i64 k0, i64 count, int) {
    p = v.p + batch;
    left = static_cast<int>(count);
    for (int k = t; k < left; k += Frame::Threads) table->k[k] = entry_at(v.k, k0 + k);
  }
  __device__ __forceinline__ void copy(float* to, const AxisEntry& row, const AxisEntry& k, bool inside) const {
    copy_async4(to, p + (row.offset + k.offset), inside && row.y + k.y < Y && row.x + k.x < X);
  }
  __device__ __forceinline__ void tile(float* to, int k) const {
    int thread = t;
    keep_inside(thread);
    const Walk<Frame, KInner> w(thread);
    // One of the two indices stays the same for all copies of a thread.
    if (w.kStepK == 0) {
      const bool inside = k + w.k < left;
      AxisEntry e = {0, 0, 0};
      if (inside) e = table->k[k + w.k];
#pragma unroll
      for (int j = 0; j < Frame::kCopies; ++j) {
        const int i = w.i + j * w.kStepI;
        copy(to + Frame::place(i, w.k), table->row[i], e, inside);
      }
    } else {
      const AxisEntry e = table->row[w.i];
#pragma unroll
      for (int j = 0; j < Frame::kCopies; ++j) {
        const int kk = w.k + j * w.kStepK;
        const bool inside = k + kk < left;
        AxisEntry ek = {0, 0, 0};
        if (inside) ek = table->k[k + kk];
        copy(to + Frame::place(w.i, kk), e, ek, inside);
      }
    }
  }
};

}  // namespace fastdl
