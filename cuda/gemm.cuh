// Products for every kernel that multiplies by matrices:
//
//   c[M,N] = epilogue(a[M,K] b[K,N] + beta c)
//
// gemm() takes a tile by the shape and starts one kernel, nothing else; gemm_kernel.cuh has the main loop and the order of
// sums, gemm_operands.cuh the operands:
//
//   a as it lies, [M,K]   KMajor{a, lda}          b as it lies, [K,N]   MNMajor{b, ldb}
//   a stored as [K,M]     MNMajor{a, lda}         b stored as [N,K]     KMajor{b, ldb}
//   computed places (images, interleaved gates)   Gather<...>{p, row axis, k axis, Y, X}
//
// An epilogue is a functor by value. It gets up to four neighbours of a row of c, finished, and what it leaves in v is stored
// in c; whatever else it writes is its own affair. It runs once for every element, in any order: a draw must be keyed on the
// element, not on the thread. With K > 256, c also holds the sums between chunks, so c is always a full float32 matrix.
//
//   // Hidden units of a Boltzmann machine: p = sigmoid(v w + b), h = u < p.
//   struct Draw {
//     static constexpr bool kTensorCores = true;  // false: always fp32, and no tensor-core kernels are compiled
//     const float* bias;
//     const StepState* step;
//     float* p;  // may be null
//     i64 N;
//     __device__ void operator()(float (&v)[4], const Place& at) const {
//       for (int i = 0; i < at.count; ++i) {
//         const float chance = sigmoid(v[i] + bias[at.n + i]);
//         if (p) p[at.at + i] = chance;
//         const uint32_t word = philox_word(step->seed, step->offset + static_cast<uint64_t>(at.m * N + at.n + i));
//         v[i] = select(uniform_from_word(word) < chance, 1.0f, 0.0f);
//       }
//     }
//   };
//   gemm(matrix(h, n, H, V, H), KMajor{v, V}, MNMajor{w, H}, Draw{b, step, p, H}, stream);
//
// Four gates of a cell in one epilogue: let column n of the product be gate n % 4 of unit n / 4. With w[I,4H],
//   Gather<false> b{w, Axis{1, 4, 0, {1, 0, H}, ...}, linear_axis(4 * H), 1, 1}    // d0 = unit, d2 = gate
// v then holds i, f, g, o of one unit (N = 4H is a multiple of 4). Plain products, BiasActivation{}, are compiled once.
#pragma once
#include "gemm_kernel.cuh"

#include <type_traits>

#include "formulas.h"

namespace fastdl {

// How products multiply, for the whole process. Devices without tensor cores for it stay at kHighest.
enum Precision { kHighest, kTF32, kBF16 };
void set_matmul_precision(int precision);
int matmul_precision();         // as set
int device_matmul_precision();  // what products on the current device do

// c[M,N] with rows of ldc, one product.
inline Product matrix(float* c, i64 M, i64 N, i64 K, i64 ldc, float beta = 0.0f) {
  return Product{M, N, K, 1, 0, 0, 0, beta, c, ldc, false, false, {}, 1, 1, 0};
}

// y = act(sum + bias), as dense layers and convolutions have it; z, if not null, receives the pre-activation. A plain product
// has BiasActivation{}.
struct BiasActivation {
  static constexpr bool kTensorCores = true;
  const float* bias = nullptr;
  i64 bias_step = 0;  // from one product of a batch to the next
  int act = kNone;
  float slope = 0.0f;
  float* z = nullptr;  // laid out as c

  __device__ void operator()(float (&v)[4], const Place& place) const {
    if (bias) {
#pragma unroll
      for (int i = 0; i < 4; ++i)
        if (i < place.count) v[i] += bias[place.batch * bias_step + place.n + i];
    }
    if (z) {
#pragma unroll
      for (int i = 0; i < 4; ++i)
        if (i < place.count) z[place.at + i] = v[i];
    }
    switch (act) {
      case kRelu: return each(v, [](float x) { return relu(x); });
      case kLeakyRelu: return each(v, [this](float x) { return leaky_relu(x, slope); });
      case kSigmoid: return each(v, [](float x) { return sigmoid(x); });
      case kTanh: return each(v, [](float x) { return fastdl::tanh(x); });
      case kGelu: return each(v, [](float x) { return gelu(x); });
      default: return;
    }
  }

 private:
  template <class F>
  static __device__ __forceinline__ void each(float (&v)[4], const F& f) {
#pragma unroll
    for (int i = 0; i < 4; ++i) v[i] = f(v[i]);
  }
};

// ------------------------------------------------------------------------------------------------- choice of tile

using LargeTile = CudaCores<2, 2, 2, 4, 1, 2>;         // 128 x 128, 128 threads
using MiddleTile = CudaCores<1, 2, 2, 2, 1, 4>;        //  64 x  64,  64 threads
using MiddleGroupsTile = CudaCores<1, 2, 2, 2, 2, 2>;  //  64 x  64, 2 x 64 threads: two chunks of K at once
using ColumnsTile = CudaCores<4, 1, 2, 1, 1, 3>;       // 256 x  16, 128 threads
using FewColumnsTile = CudaCores<2, 1, 1, 1, 1, 4, 1>; // 256 x   4,  64 threads
using SmallTile = CudaCores<1, 2, 1, 1, 4, 2>;         //  32 x  32, 4 x 64 threads: four chunks of K at once
using SmallGatherTile = CudaCores<1, 2, 1, 1, 2, 2>;
template <bool BF16>
using TensorTile = TensorCores<4, 2, 2, 8, BF16, 3, 1>;  // 256 x 128, 256 threads
template <bool BF16>
using SmallTensorTile = TensorCores<2, 2, 1, 4, BF16, 4, 3>;  //  64 x 64, 128 threads

// Streaming multiprocessors that tiles are chosen for. Results do not depend on it, so one number serves all devices; the
// emulator has few, so that small products come to every tile.
#if defined(__CUDACC__)
constexpr i64 kMultiprocessors = 132;
#else
constexpr i64 kMultiprocessors = 4;
#endif

// Shared memory that a block can have on every device that runs it: tensor-core kernels from sm_80 on (99 KiB on sm_86, 89 and
// 120), the others on sm_75, too.
template <class Tile, class A, class B>
constexpr bool fits_shared() {
  return sizeof(GemmShared<Tile, A, B>) <= (Tile::kTensor ? 99 : 64) * 1024;
}

inline i64 tiles_of(i64 M, i64 N, i64 m, i64 n) { return ((M + m - 1) / m) * ((N + n - 1) / n); }
inline i64 chunks_of(i64 K) { return K > kChunk ? (K + kChunk - 1) / kChunk : 1; }
// Whether blocks, `each` on a multiprocessor at a time, leave little of the GPU idle in their last round.
inline bool fills(i64 blocks, i64 each) {
  const i64 places = kMultiprocessors * each, rounds = (blocks + places - 1) / places;
  return blocks * 4 >= rounds * places * 3;
}

// Sets parts so that tiles of all parts fill a GPU; a part is some whole chunks of K. By the shape alone.
struct Split {
  i64 parts, chunks;  // chunks of a part; the last may have fewer
};
inline Split split_of(i64 M, i64 N, i64 K, i64 batch) {
  const bool large = M > 64 && N > 64;
  const i64 m = large ? 128 : M > 32 ? 64 : 32, n = large ? 128 : N > 32 ? 64 : 32;
  const i64 tiles = tiles_of(M, N, m, n) * batch, chunks = chunks_of(K);
  if (tiles == 0) return {1, chunks};
  i64 parts = 132 * (large ? 2 : 4) / tiles;
  parts = parts < 1 ? 1 : parts;
  parts = parts < chunks ? parts : chunks;
  const i64 each = (chunks + parts - 1) / parts;
  return {(chunks + each - 1) / each, each};
}
// Scratch of a split product: its parts' sums; none if it is not split.
inline i64 split_workspace(i64 M, i64 N, i64 K, i64 batch) {
  const i64 parts = split_of(M, N, K, batch).parts;
  return parts > 1 ? parts * M * N * batch : 0;
}

inline bool by_quads(const void* p, i64 a, i64 b, i64 c) {
  return reinterpret_cast<uintptr_t>(p) % 16 == 0 && a % 4 == 0 && b % 4 == 0 && c % 4 == 0;
}
inline void widen(KMajor& v, i64, i64 K, i64 step) { v.wide = by_quads(v.p, v.ld, K, step); }
inline void widen(MNMajor& v, i64 I, i64, i64 step) { v.wide = by_quads(v.p, v.ld, I, step); }
template <bool KInner>
void widen(Gather<KInner>& v, i64, i64, i64 step) {
  const Axis &inner = KInner ? v.k : v.row, &outer = KInner ? v.row : v.k;
  v.wide = inner.step[2] == 1 && inner.size2 % 4 == 0 && inner.y[2] == 0 && inner.x[2] == 0 &&
           by_quads(v.p, inner.base | outer.base, inner.step[0] | inner.step[1] | step, outer.step[0] | outer.step[1] | outer.step[2]);
}

template <class Tile, class A, class B, class Epilogue>
void start_product(Product p, A a, B b, const Epilogue& epilogue, void* stream) {
  static_assert(fits_shared<Tile, A, B>(), "some device cannot run this");
  widen(a, p.M, p.K, p.a_step);
  widen(b, p.N, p.K, p.b_step);
  const dim3 grid(static_cast<unsigned>(tiles_of(p.M, p.N, Tile::kM, Tile::kN)), static_cast<unsigned>(p.parts),
                  static_cast<unsigned>(p.batch < 65535 ? p.batch : 65535));
  launch(product<Tile, A, B, Epilogue>, grid, Tile::kGroups * Tile::kGroupThreads, sizeof(GemmShared<Tile, A, B>), stream,
         p, a, b, epilogue);
}

template <bool BF16, class A, class B, class Epilogue>
void start_tensor(const Product& p, const A& a, const B& b, const Epilogue& epilogue, void* stream) {
  const i64 blocks = p.batch * p.parts;
  if constexpr (fits_shared<TensorTile<BF16>, A, B>())
    if (p.M > 64 && p.N > 64 && fills(tiles_of(p.M, p.N, TensorTile<BF16>::kM, TensorTile<BF16>::kN) * blocks, 1))
      return start_product<TensorTile<BF16>>(p, a, b, epilogue, stream);
  start_product<SmallTensorTile<BF16>>(p, a, b, epilogue, stream);
}

// Operands with rows longer than their loaders can step by, and the same elements by 64-bit offsets.
inline i64 row_of(const KMajor& v) { return v.ld; }
inline i64 row_of(const MNMajor& v) { return v.ld; }
template <bool KInner>
i64 row_of(const Gather<KInner>&) {
  return 0;
}
inline Gather<true> gathered(const KMajor& v) { return {v.p, linear_axis(v.ld), linear_axis(1), 1, 1}; }
inline Gather<true> gathered(const MNMajor& v) { return {v.p, linear_axis(1), linear_axis(v.ld), 1, 1}; }
template <bool KInner>
Gather<true> gathered(const Gather<KInner>& v) {
  return {v.p, v.row, v.k, v.Y, v.X};
}

// c = epilogue(a b + beta c) on the caller's stream. `p` as matrix() makes it; a batch by its fields batch and *_step.
template <class A, class B, class Epilogue>
void gemm(Product p, const A& a, const B& b, const Epilogue& epilogue, void* stream) {
  if (p.M == 0 || p.N == 0 || p.batch == 0) return;
  if (const i64 row = row_of(a) > row_of(b) ? row_of(a) : row_of(b); row > kLongestRow) {
    if constexpr (std::is_same_v<Epilogue, BiasActivation>)
      gemm(p, gathered(a), gathered(b), epilogue, stream);
    else
      keep_refusal("rows of fewer than 2^29 floats", row);
    return;
  }
  if (p.parts == 1) p.part_chunks = chunks_of(p.K);
  p.wide = p.mapped ? by_quads(p.c, p.rows.step[0] | p.rows.step[1] | p.rows.step[2], p.rows.base, p.c_step)
                    : by_quads(p.c, p.ldc, p.part_step, p.c_step);
  if constexpr (Epilogue::kTensorCores) {
    const int precision = device_matmul_precision();
    if (precision == kTF32) return start_tensor<false>(p, a, b, epilogue, stream);
    if (precision == kBF16) return start_tensor<true>(p, a, b, epilogue, stream);
  }
  const i64 blocks = p.batch * p.parts;
  // Pixels by a few channels; elsewhere so few columns are rare.
  if constexpr (A::kTable && A::kAlongK)
    if (p.N <= 16 && tiles_of(p.M, p.N, 256, 16) * blocks >= kMultiprocessors / 2) {
      if constexpr (B::kTable)
        if (p.N <= 4) return start_product<FewColumnsTile>(p, a, b, epilogue, stream);
      return start_product<ColumnsTile>(p, a, b, epilogue, stream);
    }
  if (p.M > 64 && p.N > 64 && fills(tiles_of(p.M, p.N, LargeTile::kM, LargeTile::kN) * blocks, 2))
    return start_product<LargeTile>(p, a, b, epilogue, stream);
  const i64 middle = p.M > 32 && p.N > 32 ? tiles_of(p.M, p.N, 64, 64) * blocks : 0;
  if constexpr (!A::kTable && !B::kTable)
    if (middle >= kMultiprocessors / 2 && middle <= 3 * kMultiprocessors && p.part_chunks > 1)
      return start_product<MiddleGroupsTile>(p, a, b, epilogue, stream);
  if (middle >= kMultiprocessors)
    return start_product<MiddleTile>(p, a, b, epilogue, stream);
  if constexpr (A::kTable || B::kTable)
    start_product<SmallGatherTile>(p, a, b, epilogue, stream);
  else
    start_product<SmallTile>(p, a, b, epilogue, stream);
}

// The same with K in parts, where `work` has split_workspace() floats: every part is a product of its own, and a second
// kernel adds them in order. No epilogue; c dense (rows of ldc), products of a batch in one matrix (c_step along a row).
void add_parts(const Product& p, const float* work, void* stream);
template <class A, class B>
void gemm_split(const Product& p, const A& a, const B& b, float* work, void* stream) {
  const Split split = split_of(p.M, p.N, p.K, p.batch);
  if (split.parts == 1) return gemm(p, a, b, BiasActivation{}, stream);
  Product q = p;
  q.parts = split.parts, q.part_chunks = split.chunks, q.part_step = p.M * p.N * p.batch;
  q.c = work, q.beta = 0.0f;
  q.ldc = p.N * p.batch, q.c_step = p.N;
  gemm(q, a, b, BiasActivation{}, stream);
  add_parts(p, work, stream);
}

// ------------------------------------------------------------------------------------------------ compiled once

// Plain products and dense layers; gemm.cu instantiates them, and conv.cu those of two gathered operands.
extern template void gemm(Product, const KMajor&, const MNMajor&, const BiasActivation&, void*);
extern template void gemm(Product, const KMajor&, const KMajor&, const BiasActivation&, void*);
extern template void gemm(Product, const MNMajor&, const MNMajor&, const BiasActivation&, void*);
extern template void gemm(Product, const MNMajor&, const KMajor&, const BiasActivation&, void*);
extern template void gemm(Product, const Gather<true>&, const Gather<true>&, const BiasActivation&, void*);

// out[C] = sum over the n rows of x[n,C], + beta out, in chunks of 256 rows. work: column_sums_workspace floats.
void column_sums(i64 n, i64 C, const float* x, float beta, float* work, float* out, void* stream);
inline i64 column_sums_workspace(i64 n, i64 C) { return n > kChunk ? chunks_of(n) * C : 0; }

}  // namespace fastdl
