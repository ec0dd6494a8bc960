// matmul: the matrix product of gemm.h for plain matrices. docs/kernels/gemm.md derives it.
#include "gemm.h"

#include "../kernels.h"

namespace fastdl {

void matmul(i64 B, i64 M, i64 N, i64 K, const float* a, const float* b, int trans_a, int trans_b, float beta, float* c,
            void*) {
  for (i64 i = 0; i < B; ++i) {
    const float *ai = a + i * M * K, *bi = b + i * K * N;
    float* ci = c + i * M * N;
    if (trans_a && trans_b) {
      gemm(M, N, K, ColumnsA{ai, M}, ColumnsB{bi, K}, beta, ci, N, NoEpilogue{});
    } else if (trans_a) {
      gemm(M, N, K, ColumnsA{ai, M}, RowsB{bi, N}, beta, ci, N, NoEpilogue{});
    } else if (trans_b) {
      gemm(M, N, K, RowsA{ai, K}, ColumnsB{bi, K}, beta, ci, N, NoEpilogue{});
    } else {
      gemm(M, N, K, RowsA{ai, K}, RowsB{bi, N}, beta, ci, N, NoEpilogue{});
    }
  }
}

}  // namespace fastdl
