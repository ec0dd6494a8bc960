// Optimisers: one fused pass over a flat vector of parameters and its state, 16 bytes at a time. Memory bounds them all.
//
// A StepState lies in host memory, and its numbers go into the launch by value. A recorded graph that is to read them afresh
// would keep a StepState in device memory and have these kernels take its address in place of lr and AdamStep; nothing else
// changes.
#include "loops.cuh"

namespace fastdl {
namespace {

// v may be null.
__global__ void sgd_kernel(i64 n, int quads, const float* g, float lr, float momentum, int nesterov, float weight_decay,
                           float* w, float* v) {
  for_elements(n, quads, [=](i64 i, auto width) {
    constexpr int W = decltype(width)::value;
    const Floats<W> gi = load<W>(g + i);
    Floats<W> wi = load<W>(w + i), vi = {};
    if (v != nullptr) vi = load<W>(v + i);
#pragma unroll
    for (int k = 0; k < W; ++k) sgd_update(gi.v[k], lr, momentum, nesterov != 0, weight_decay, wi.v[k], vi.v[k]);
    store(w + i, wi);
    if (v != nullptr) store(v + i, vi);
  });
}

__global__ void adam_kernel(i64 n, int quads, const float* g, AdamStep s, float* w, float* m, float* v) {
  for_elements(n, quads, [=](i64 i, auto width) {
    constexpr int W = decltype(width)::value;
    const Floats<W> gi = load<W>(g + i);
    Floats<W> wi = load<W>(w + i), mi = load<W>(m + i), vi = load<W>(v + i);
#pragma unroll
    for (int k = 0; k < W; ++k) adam_update(gi.v[k], s, wi.v[k], mi.v[k], vi.v[k]);
    store(w + i, wi);
    store(m + i, mi);
    store(v + i, vi);
  });
}

__global__ void rmsprop_kernel(i64 n, int quads, const float* g, float lr, float rho, float eps, float weight_decay, float* w,
                               float* v) {
  for_elements(n, quads, [=](i64 i, auto width) {
    constexpr int W = decltype(width)::value;
    const Floats<W> gi = load<W>(g + i);
    Floats<W> wi = load<W>(w + i), vi = load<W>(v + i);
#pragma unroll
    for (int k = 0; k < W; ++k) rmsprop_update(gi.v[k], lr, rho, eps, weight_decay, wi.v[k], vi.v[k]);
    store(w + i, wi);
    store(v + i, vi);
  });
}

__global__ void adagrad_kernel(i64 n, int quads, const float* g, float lr, float eps, float weight_decay, float* w, float* v) {
  for_elements(n, quads, [=](i64 i, auto width) {
    constexpr int W = decltype(width)::value;
    const Floats<W> gi = load<W>(g + i);
    Floats<W> wi = load<W>(w + i), vi = load<W>(v + i);
#pragma unroll
    for (int k = 0; k < W; ++k) adagrad_update(gi.v[k], lr, eps, weight_decay, wi.v[k], vi.v[k]);
    store(w + i, wi);
    store(v + i, vi);
  });
}

__global__ void clip_kernel(i64 n, int quads, float max_norm, const float* norm, float* g) {
  const float held = norm[0];
  if (!(held > max_norm) || held == __builtin_inff()) return;
  const float scale = max_norm / held;
  for_elements(n, quads, [=](i64 i, auto width) {
    constexpr int W = decltype(width)::value;
    store(g + i, each(load<W>(g + i), [=](float v) { return v * scale; }));
  });
}

}  // namespace

void sgd(i64 n, const float* g, float momentum, int nesterov, float weight_decay, const StepState* step, float* w, float* v,
         void* stream) {
  if (v == nullptr) momentum = 0.0f, nesterov = 0;
  launch(sgd_kernel, element_blocks(n), kThreads, 0, stream, n, aligned(g, w, v), g, step->lr, momentum, nesterov,
         weight_decay, w, v);
}

void adam(i64 n, const float* g, float beta1, float beta2, float eps, float weight_decay, int decoupled,
          const StepState* step, float* w, float* m, float* v, void* stream) {
  launch(adam_kernel, element_blocks(n), kThreads, 0, stream, n, aligned(g, w, m, v), g,
         adam_step(beta1, beta2, eps, weight_decay, decoupled, step->t, step->lr), w, m, v);
}

void rmsprop(i64 n, const float* g, float rho, float eps, float weight_decay, const StepState* step, float* w, float* v,
             void* stream) {
  launch(rmsprop_kernel, element_blocks(n), kThreads, 0, stream, n, aligned(g, w, v), g, step->lr, rho, eps, weight_decay, w,
         v);
}

void adagrad(i64 n, const float* g, float eps, float weight_decay, const StepState* step, float* w, float* v, void* stream) {
  launch(adagrad_kernel, element_blocks(n), kThreads, 0, stream, n, aligned(g, w, v), g, step->lr, eps, weight_decay, w, v);
}

i64 clip_norm_workspace(i64 n) { return sum_squares_workspace(n); }

void clip_norm(i64 n, float max_norm, float* work, float* g, float* norm, void* stream) {
  sum_of_squares(n, g, 1, work, norm, stream);
  launch(clip_kernel, element_blocks(n), kThreads, 0, stream, n, aligned(g), max_norm, norm, g);
}

}  // namespace fastdl
