// Optimisers: one fused pass over a flat vector of parameters and its state. Memory bounds them all.
#include "../formulas.h"
#include "../kernels.h"
#include "loops.h"

namespace fastdl {

void sgd(i64 n, const float* g, float momentum, int nesterov, float weight_decay, const StepState* step, float* w,
         float* v, void*) {
  const float lr = step->lr;
  if (v == nullptr) {
    for_elements(n, [=](i64 i, auto lanes) {
      vec wi = lanes.load(w + i), none = {};
      sgd_update(lanes.load(g + i), lr, 0.0f, false, weight_decay, wi, none);
      lanes.store(w + i, wi);
    });
    return;
  }
  for_elements(n, [=](i64 i, auto lanes) {
    vec wi = lanes.load(w + i), vi = lanes.load(v + i);
    sgd_update(lanes.load(g + i), lr, momentum, nesterov != 0, weight_decay, wi, vi);
    lanes.store(w + i, wi);
    lanes.store(v + i, vi);
  });
}

void adam(i64 n, const float* g, float beta1, float beta2, float eps, float weight_decay, int decoupled,
          const StepState* step, float* w, float* m, float* v, void*) {
  const AdamStep s = adam_step(beta1, beta2, eps, weight_decay, decoupled != 0, step->t, step->lr);
  for_elements(n, [=](i64 i, auto lanes) {
    vec wi = lanes.load(w + i), mi = lanes.load(m + i), vi = lanes.load(v + i);
    adam_update(lanes.load(g + i), s, wi, mi, vi);
    lanes.store(w + i, wi);
    lanes.store(m + i, mi);
    lanes.store(v + i, vi);
  });
}

void rmsprop(i64 n, const float* g, float rho, float eps, float weight_decay, const StepState* step, float* w, float* v,
             void*) {
  const float lr = step->lr;
  for_elements(n, [=](i64 i, auto lanes) {
    vec wi = lanes.load(w + i), vi = lanes.load(v + i);
    rmsprop_update(lanes.load(g + i), lr, rho, eps, weight_decay, wi, vi);
    lanes.store(w + i, wi);
    lanes.store(v + i, vi);
  });
}

void adagrad(i64 n, const float* g, float eps, float weight_decay, const StepState* step, float* w, float* v, void*) {
  const float lr = step->lr;
  for_elements(n, [=](i64 i, auto lanes) {
    vec wi = lanes.load(w + i), vi = lanes.load(v + i);
    adagrad_update(lanes.load(g + i), lr, eps, weight_decay, wi, vi);
    lanes.store(w + i, wi);
    lanes.store(v + i, vi);
  });
}

i64 clip_norm_workspace(i64) { return 0; }

void clip_norm(i64 n, float max_norm, float*, float* g, float* norm, void*) {
  float squares;
  sum_squares(n, g, nullptr, &squares, nullptr);
  norm[0] = __builtin_sqrtf(squares);
  if (!(norm[0] > max_norm) || norm[0] == __builtin_inff()) return;
  const float scale = max_norm / norm[0];
  for_elements(n, [=](i64 i, auto lanes) { lanes.store(g + i, lanes.load(g + i) * scale); });
}

}  // namespace fastdl
