// Rows picked out of a table by index, and their gradient. Copies, bound by memory.
//
// Several i may name one row of the table, and their gradients are to be added in the order of i, without atomics: the warp
// of the first i that names a row adds all of them, finding the others 32 at a time. All other warps see a smaller i of the
// same row and leave, mostly soon: they look backwards. So the work grows with (rows named) n / 32, not with n^2.
#include "loops.cuh"

namespace fastdl {
namespace {

constexpr int kColumnsOfLane = 4;
constexpr int kStrip = 32 * kColumnsOfLane;  // columns that a warp adds

template <int W>
__global__ void gather_kernel(i64 n, i64 groups, const float* table, const int64_t* index, float* y) {
  for_rows(n, groups, [=](i64 i, i64 group) {
    store(y + (i * groups + group) * W, load<W>(table + (index[i] * groups + group) * W));
  });
}

__global__ void gather_u8_kernel(i64 n, i64 D, const uint8_t* table, const int64_t* index, float scale, float* y) {
  for_rows(n, D, [=](i64 i, i64 d) { y[i * D + d] = scale * static_cast<float>(table[index[i] * D + d]); });
}

__global__ void scale_kernel(i64 n, int quads, float beta, float* y) {
  for_elements(n, quads, [=](i64 i, auto width) {
    constexpr int W = decltype(width)::value;
    Floats<W> r = {};
    if (beta != 0.0f) r = each(load<W>(y + i), [=](float v) { return beta * v; });
    store(y + i, r);
  });
}

// Warps along x take an i each, blocks along y strips of columns. dtable holds what is to be added to.
__global__ void scatter_kernel(i64 n, i64 D, const int64_t* index, const float* dy, float* dtable) {
  const Team<32> team;
  for (i64 i = team.row; i < n; i += team.stride) {
    const int64_t row = index[i];
    bool first = true;
    for (i64 end = i; first && end > 0; end -= 32) {
      const i64 j = end - 1 - team.lane;
      first = __ballot_sync(kFullWarp, j >= 0 && index[j >= 0 ? j : 0] == row) == 0;
    }
    if (!first) continue;
    float* to = dtable + row * D;
    for (i64 d0 = static_cast<i64>(blockIdx.y) * kStrip + team.lane; d0 - team.lane < D; d0 += gridDim.y * kStrip) {
      float s[kColumnsOfLane];
#pragma unroll
      for (int k = 0; k < kColumnsOfLane; ++k) s[k] = d0 + 32 * k < D ? to[d0 + 32 * k] : 0.0f;
      for (i64 begin = i; begin < n; begin += 32) {
        const i64 j = begin + team.lane;
        unsigned named = __ballot_sync(kFullWarp, j < n && index[j < n ? j : i] == row);
        while (named != 0) {
          const float* from = dy + (begin + __ffs(static_cast<int>(named)) - 1) * D;
#pragma unroll
          for (int k = 0; k < kColumnsOfLane; ++k)
            if (d0 + 32 * k < D) s[k] = s[k] + from[d0 + 32 * k];
          named &= named - 1;
        }
      }
#pragma unroll
      for (int k = 0; k < kColumnsOfLane; ++k)
        if (d0 + 32 * k < D) to[d0 + 32 * k] = s[k];
    }
  }
}

}  // namespace

void embedding_forward(i64 n, i64, i64 D, const float* table, const int64_t* index, float* y, void* stream) {
  const bool quads = D % 4 == 0 && aligned(table, y);
  const i64 groups = quads ? D / 4 : D;
  const RowGrid g(n, groups);
  launch(quads ? gather_kernel<4> : gather_kernel<1>, g.grid, g.block, 0, stream, n, groups, table, index, y);
}

void embedding_backward(i64 n, i64 L, i64 D, const int64_t* index, const float* dy, float* dtable, float beta, void* stream) {
  if (beta != 1.0f) launch(scale_kernel, element_blocks(L * D), kThreads, 0, stream, L * D, aligned(dtable), beta, dtable);
  const dim3 grid(blocks_for(n, kThreads / 32), blocks_for(D, kStrip, 65535));
  launch(scatter_kernel, grid, kThreads, 0, stream, n, D, index, dy, dtable);
}

void gather_u8(i64 n, i64, i64 D, const uint8_t* table, const int64_t* index, float scale, float* y, void* stream) {
  const RowGrid g(n, D);
  launch(gather_u8_kernel, g.grid, g.block, 0, stream, n, D, table, index, scale, y);
}

}  // namespace fastdl
