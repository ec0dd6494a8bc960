// Dense layers: y = act(x w + b) with bias and activation in the product's epilogue, and the three gradients.
// The product itself is gemm.h; docs/kernels/gemm.md tells how the shapes here were tuned.
#include "bias_activation.h"
#include "column_sums.h"

namespace fastdl {
void dense_forward(i64 N, i64 I, i64 O, const float* x, const float* w, const float* b, int act, float slope, float* y,
                   float* z, void*) {
  with_bias_activation(act, b, slope, z, O, [=](const auto& functor) {
    gemm_strided(N, O, I, x, I, 0, w, O, 0, 0.0f, y, O, epilogue_of(functor));
  });
}

i64 dense_backward_workspace(i64 N, i64, i64 O, i64 act) { return act == kNone ? 0 : N * O; }

void dense_backward(i64 N, i64 I, i64 O, const float* x, const float* w, const float* saved, const float* dy, int act,
                    float slope, float* work, float* dx, float beta_dx, float* dw, float beta_dw, float* db,
                    float beta_db, void* stream) {
  const float* dz = dy;
  if (act != kNone) {
    activation_backward(N * O, saved, dy, act, slope, work, 0.0f, stream);
    dz = work;
  }
  if (dx) gemm_strided(N, I, O, dz, O, 0, w, O, 1, beta_dx, dx, I);
  if (dw) gemm_strided(I, O, N, x, I, 1, dz, O, 0, beta_dw, dw, O);
  if (db) sum_columns(N, O, dz, beta_db, db);
}

}  // namespace fastdl
