// Random numbers from Philox4x32-10 and what is drawn with them. A thread makes a block of four words:
//
//     thread     0          1          2                 offset = 2: the first two words are not wanted
//     word    _ _ 2 3    4 5 6 7    8 9 ...
//     element     0 1    2 3 4 5    6 7 ...
//
// Words, and the formulas that make numbers of them, are those of the CPU: the same bits. A StepState lies in host memory
// and goes into the launch by value; a recorded graph would read one in device memory here instead.
#include "loops.cuh"
#include "philox.h"

namespace fastdl {
namespace {

struct Stream {
  uint64_t seed, offset;
};

Stream stream_of(const StepState* step) { return {step->seed, step->offset}; }
i64 lead_of(const StepState* step) { return static_cast<i64>(step->offset & 3); }
unsigned draw_blocks(i64 n, const StepState* step) { return n == 0 ? 0 : element_blocks(n + lead_of(step)); }

// f(i, Width<1>, word, k) for every element; where `quads` (no lead, addresses aligned) f(i, Width<4>, words, 0) for four.
template <class F>
__device__ __forceinline__ void draw(i64 n, Stream s, int quads, const F& f) {
  const i64 lead = static_cast<i64>(s.offset & 3), blocks = (n + lead + 3) / 4;
  const uint64_t base = s.offset >> 2;
  const i64 stride = static_cast<i64>(gridDim.x) * blockDim.x;
  for (i64 b = static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x; b < blocks; b += stride) {
    const Words4 words = philox_block(s.seed, base + static_cast<uint64_t>(b));
    const i64 i = 4 * b - lead;
    f(i, words, quads != 0 && i + 4 <= n);
  }
}

// Calls body(k) for those of a block's four elements that lie in [0, n).
template <class F>
__device__ __forceinline__ void for_inside(i64 i, i64 n, const F& body) {
#pragma unroll
  for (int k = 0; k < 4; ++k)
    if (i + k >= 0 && i + k < n) body(k);
}
__device__ __forceinline__ Floats<4> load_inside(const float* p, i64 i, i64 n, bool whole) {
  if (whole) return load<4>(p + i);
  Floats<4> r = {};
  for_inside(i, n, [&](int k) { r.v[k] = p[i + k]; });
  return r;
}
__device__ __forceinline__ void put_inside(float* p, i64 i, i64 n, bool whole, const Floats<4>& r, float beta) {
  if (whole) {
    put(p + i, r, beta);
  } else {
    for_inside(i, n, [&](int k) { put(p + i + k, r.v[k], beta); });
  }
}

__global__ void words_kernel(i64 n, Stream s, int quads, uint32_t* y) {
  draw(n, s, quads, [=](i64 i, const Words4& b, bool whole) {
    if (whole) {
      *reinterpret_cast<uint4*>(y + i) = make_uint4(b.w[0], b.w[1], b.w[2], b.w[3]);
    } else {
      for_inside(i, n, [&](int k) { y[i + k] = b.w[k]; });
    }
  });
}

// low + width u.
__global__ void uniform_kernel(i64 n, float low, float width, Stream s, int quads, float* y) {
  draw(n, s, quads, [=](i64 i, const Words4& b, bool whole) {
    Floats<4> r;
#pragma unroll
    for (int k = 0; k < 4; ++k) r.v[k] = low + width * uniform_from_word(b.w[k]);
    put_inside(y, i, n, whole, r, 0.0f);
  });
}

__global__ void normal_kernel(i64 n, float mean, float std, Stream s, int quads, float* y) {
  draw(n, s, quads, [=](i64 i, const Words4& b, bool whole) {
    Floats<4> r;
#pragma unroll
    for (int k = 0; k < 4; k += 2) {
      const Pair<float> z = normal_pair(uniform_from_word(b.w[k]), uniform_from_word(b.w[k + 1]));
      r.v[k] = mean + std * z.first;
      r.v[k + 1] = mean + std * z.second;
    }
    put_inside(y, i, n, whole, r, 0.0f);
  });
}

__global__ void bernoulli_kernel(i64 n, const float* p, Stream s, int quads, float* y) {
  draw(n, s, quads, [=](i64 i, const Words4& b, bool whole) {
    Floats<4> r = load_inside(p, i, n, whole);
#pragma unroll
    for (int k = 0; k < 4; ++k)
      r.v[k] = r.v[k] == r.v[k] ? (uniform_from_word(b.w[k]) < r.v[k] ? 1.0f : 0.0f) : r.v[k];
    put_inside(y, i, n, whole, r, 0.0f);
  });
}

// Words below `below` (in 24 bits) drop their element; a dropped NaN is dropped.
__global__ void dropout_kernel(i64 n, const float* x, int32_t below, float scale, Stream s, int quads, float* y, float beta) {
  draw(n, s, quads, [=](i64 i, const Words4& b, bool whole) {
    Floats<4> r = load_inside(x, i, n, whole);
#pragma unroll
    for (int k = 0; k < 4; ++k) r.v[k] = static_cast<int32_t>(b.w[k] >> 8) >= below ? r.v[k] * scale : 0.0f;
    put_inside(y, i, n, whole, r, beta);
  });
}

void dropout(i64 n, const float* x, float p, const StepState* step, float* y, float beta, void* stream) {
  const int32_t below = static_cast<int32_t>(__builtin_ceilf(p * 0x1p24f));
  launch(dropout_kernel, draw_blocks(n, step), kThreads, 0, stream, n, x, below, 1.0f / (1.0f - p), stream_of(step),
         lead_of(step) == 0 && aligned(x, y), y, beta);
}

}  // namespace

void random_words(i64 n, const StepState* step, uint32_t* y, void* stream) {
  launch(words_kernel, draw_blocks(n, step), kThreads, 0, stream, n, stream_of(step), lead_of(step) == 0 && aligned(y), y);
}

void uniform(i64 n, float low, float high, const StepState* step, float* y, void* stream) {
  launch(uniform_kernel, draw_blocks(n, step), kThreads, 0, stream, n, low, high - low, stream_of(step),
         lead_of(step) == 0 && aligned(y), y);
}

void normal(i64 n, float mean, float std, const StepState* step, float* y, void* stream) {
  launch(normal_kernel, draw_blocks(n, step), kThreads, 0, stream, n, mean, std, stream_of(step),
         lead_of(step) == 0 && aligned(y), y);
}

void bernoulli(i64 n, const float* p, const StepState* step, float* y, void* stream) {
  launch(bernoulli_kernel, draw_blocks(n, step), kThreads, 0, stream, n, p, stream_of(step),
         lead_of(step) == 0 && aligned(p, y), y);
}

void dropout_forward(i64 n, const float* x, float p, const StepState* step, float* y, void* stream) {
  dropout(n, x, p, step, y, 0.0f, stream);
}

void dropout_backward(i64 n, const float* dy, float p, const StepState* step, float* dx, float beta, void* stream) {
  dropout(n, dy, p, step, dx, beta, stream);
}

}  // namespace fastdl
