// Dense layers: y = act(x w + b) with bias and activation in the product's epilogue, and the three gradients. The tiling is
// gemm_kernel.cuh's:
//
//   forward   y[N,O]  = x[N,I]   w[I,O]      KMajor  x MNMajor
//   dx[N,I]           = dz[N,O]  w^T         KMajor  x KMajor
//   dw[I,O]           = x^T      dz[N,O]     MNMajor x MNMajor, N in parts where I x O does not fill a GPU
//   db[O]             = columns of dz
#include "gemm.cuh"

namespace fastdl {

void dense_forward(i64 N, i64 I, i64 O, const float* x, const float* w, const float* b, int act, float slope, float* y,
                   float* z, void* stream) {
  gemm(matrix(y, N, O, I, O), KMajor{x, I}, MNMajor{w, O}, BiasActivation{b, 0, act, slope, z}, stream);
}

// Scratch: dz, then what the sums need; dw and db take turns.
i64 dense_backward_workspace(i64 N, i64 I, i64 O, i64 act) {
  const i64 parts = split_workspace(I, O, N, 1), columns = column_sums_workspace(N, O);
  return (act == kNone ? 0 : (N * O + 3) / 4 * 4) + (parts > columns ? parts : columns);
}

void dense_backward(i64 N, i64 I, i64 O, const float* x, const float* w, const float* saved, const float* dy, int act,
                    float slope, float* work, float* dx, float beta_dx, float* dw, float beta_dw, float* db,
                    float beta_db, void* stream) {
  const float* dz = dy;
  if (act != kNone) {
    activation_backward(N * O, saved, dy, act, slope, work, 0.0f, stream);
    dz = work;
    work += (N * O + 3) / 4 * 4;
  }
  if (dx) gemm(matrix(dx, N, I, O, I, beta_dx), KMajor{dz, O}, KMajor{w, O}, BiasActivation{}, stream);
  if (dw) gemm_split(matrix(dw, I, O, N, O, beta_dw), MNMajor{x, I}, MNMajor{dz, O}, work, stream);
  if (db) column_sums(N, O, dz, beta_db, work, db, stream);
}

}  // namespace fastdl
