// Rows picked out of a table by index, and their gradient. Copies, bound by memory.
#include "../kernels.h"
#include "loops.h"

namespace fastdl {

void embedding_forward(i64 n, i64, i64 D, const float* table, const int64_t* index, float* y, void*) {
  for_rows(n, D, [=](i64 i) { memcpy(y + i * D, table + index[i] * D, static_cast<size_t>(D) * sizeof(float)); });
}

i64 embedding_backward_workspace(i64, i64, i64) { return 0; }

// Several i may name one row, so threads split the columns: each adds in the order of i.
void embedding_backward(i64 n, i64 L, i64 D, const int64_t* index, const float* dy, float*, float* dtable, float beta,
                        void*) {
  if (beta == 0.0f) {
    for_rows(L, D, [=](i64 l) { memset(dtable + l * D, 0, static_cast<size_t>(D) * sizeof(float)); });
  } else if (beta != 1.0f) {
    for_elements(L * D, [=](i64 i, auto lanes) { lanes.store(dtable + i, beta * lanes.load(dtable + i)); });
  }
  parallel_for(D, n * D > kElementGrain ? 64 : D, [=](i64 begin, i64 end) {
    for (i64 i = 0; i < n; ++i) {
      float* row = dtable + index[i] * D;
      const float* from = dy + i * D;
      for_vectors(begin, end,
                  [=](i64 d, auto lanes) { lanes.store(row + d, lanes.load(row + d) + lanes.load(from + d)); });
    }
  });
}

void gather_u8(i64 n, i64, i64 D, const uint8_t* table, const int64_t* index, float scale, float* y, void*) {
  for_rows(n, D, [=](i64 i) {
    const uint8_t* from = table + index[i] * D;
    float* to = y + i * D;
    for (i64 d = 0; d < D; ++d) to[d] = scale * static_cast<float>(from[d]);  // the compiler makes vectors of it
  });
}

}  // namespace fastdl
