// Dense layers: y = act(x w + b) with bias and activation in the product's epilogue, and the three gradients.
// The product itself is gemm.h; docs/kernels/gemm.md tells how the shapes here were tuned.
#include "bias_activation.h"
#include "column_sums.h"

namespace fastdl {
void dense_forward(i64 N, i64 I, i64 O, const float* x, const float* w, const float* b, int act, float slope, float* y,
                   float* z, void*) {
  with_bias_activation(act, b, slope, z, O,
                       [=](const auto& epilogue) { gemm(N, O, I, RowsA{x, I}, RowsB{w, O}, 0.0f, y, O, epilogue); });
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
  if (dx) gemm(N, I, O, RowsA{dz, O}, ColumnsB{w, O}, beta_dx, dx, I, NoEpilogue{});
  if (dw) gemm(I, O, N, ColumnsA{x, I}, RowsB{dz, O}, beta_dw, dw, O, NoEpilogue{});
  if (db) sum_columns(N, O, dz, beta_db, db);
}

}  // namespace fastdl
