// Dense layers: y = act(x w + b) with bias and activation in the product's epilogue, and the three gradients.
// The product itself is gemm.h; docs/kernels/gemm.md tells how the shapes here were tuned.
#include "bias_activation.h"

namespace fastdl {
namespace {

// out[O] = sum over rows of dz + beta out, summed as gemm.h sums: chunks of kChunk rows.
void sum_rows(i64 N, i64 O, const float* dz, float beta, float* out) {
  const i64 grain = (32768 / (N + 1) / (4 * kLanes) + 1) * 4 * kLanes;
  parallel_for(O, grain, [=](i64 begin, i64 end) {
    if (N == 0) {
      for (i64 o = begin; o < end; ++o) out[o] = beta == 0.0f ? 0.0f : beta * out[o];
    }
    for (i64 n0 = 0; n0 < N; n0 += kChunk) {
      const i64 n1 = smaller(n0 + kChunk, N);
      const float factor = n0 == 0 ? beta : 1.0f;
      i64 o = begin;
      // Four vectors side by side hide the latency of the additions.
      for (; o + 4 * kLanes <= end; o += 4 * kLanes) {
        vec sum[4] = {};
        for (i64 n = n0; n < n1; ++n) {
          for (int v = 0; v < 4; ++v) sum[v] += load(dz + n * O + o + v * kLanes);
        }
        for (int v = 0; v < 4; ++v) {
          float* p = out + o + v * kLanes;
          store(p, factor == 0.0f ? sum[v] : factor * load(p) + sum[v]);
        }
      }
      for (; o < end; o += kLanes) {
        const i64 lanes = smaller<i64>(kLanes, end - o);
        vec sum = {};
        for (i64 n = n0; n < n1; ++n) sum += load_lanes(dz + n * O + o, lanes);
        store_lanes(out + o, factor == 0.0f ? sum : factor * load_lanes(out + o, lanes) + sum, lanes);
      }
    }
  });
}

}  // namespace

void dense_forward(i64 N, i64 I, i64 O, const float* x, const float* w, const float* b, int act, float slope, float* y,
                   float* z, void*) {
  with_bias_activation(act, b, slope, z, O, [=](const auto& epilogue) {
    gemm(N, O, I, RowsA{x, I}, RowsB{w, O}, 0.0f, y, O, epilogue);
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
  if (dx) gemm(N, I, O, RowsA{dz, O}, ColumnsB{w, O}, beta_dx, dx, I, NoEpilogue{});
  if (dw) gemm(I, O, N, ColumnsA{x, I}, RowsB{dz, O}, beta_dw, dw, O, NoEpilogue{});
  if (db) sum_rows(N, O, dz, beta_db, db);
}

}  // namespace fastdl
