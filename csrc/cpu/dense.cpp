// Dense layers: y = act(x w + b) with bias and activation in the product's epilogue, and the three gradients.
// The product itself is gemm.h; docs/kernels/gemm.md tells how the shapes here were tuned.
#include "../kernels.h"
#include "gemm.h"

namespace fastdl {
namespace {

template <int kAct>
FASTDL_INLINE vec activate(vec z, float slope) {
  if constexpr (kAct == kRelu) return select(z < 0.0f, vec{}, z);  // this way round NaN passes
  if constexpr (kAct == kLeakyRelu) return select(z < 0.0f, z * splat(slope), z);
  return z;
}

// d act / d z from what the forward pass saved: y, or z for gelu.
template <int kAct>
FASTDL_INLINE vec activation_slope(vec saved, float slope) {
  if constexpr (kAct == kRelu) return select(saved > 0.0f, splat(1.0f), vec{});
  if constexpr (kAct == kLeakyRelu) return select(saved > 0.0f, splat(1.0f), splat(slope));
  return splat(1.0f);
}

template <int kAct>
struct BiasActivation {
  const float* bias;
  float slope;
  float* z;
  i64 columns;
  FASTDL_INLINE vec operator()(vec sum, i64 m, i64 n, i64 lanes) const {
    if (bias) sum += load_lanes(bias + n, lanes);
    if (z) store_lanes(z + m * columns + n, sum, lanes);
    return activate<kAct>(sum, slope);
  }
};

template <int kAct>
void forward(i64 N, i64 I, i64 O, const float* x, const float* w, const float* b, float slope, float* y, float* z) {
  gemm(N, O, I, RowsA{x, I}, RowsB{w, O}, 0.0f, y, O, BiasActivation<kAct>{b, slope, z, O});
}

constexpr i64 kElementGrain = 16384;

template <int kAct>
void gradient_before_activation(i64 n, const float* saved, const float* dy, float slope, float* dz) {
  parallel_for(n, kElementGrain, [=](i64 begin, i64 end) {
    i64 i = begin;
    for (; i + kLanes <= end; i += kLanes) store(dz + i, load(dy + i) * activation_slope<kAct>(load(saved + i), slope));
    if (i < end) {
      const i64 lanes = end - i;
      store_part(dz + i, load_part(dy + i, lanes) * activation_slope<kAct>(load_part(saved + i, lanes), slope), lanes);
    }
  });
}

// out[O] = sum over rows of dz + beta out, summed as gemm.h sums: chunks of kChunk rows.
void sum_rows(i64 N, i64 O, const float* dz, float beta, float* out) {
  parallel_for(O, 16 * kLanes, [=](i64 begin, i64 end) {
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
  switch (act) {
    case kRelu: return forward<kRelu>(N, I, O, x, w, b, slope, y, z);
    case kLeakyRelu: return forward<kLeakyRelu>(N, I, O, x, w, b, slope, y, z);
    default: return forward<kNone>(N, I, O, x, w, b, slope, y, z);
  }
}

i64 dense_backward_workspace(i64 N, i64, i64 O, i64 act) { return act == kNone ? 0 : N * O; }

void dense_backward(i64 N, i64 I, i64 O, const float* x, const float* w, const float* saved, const float* dy, int act,
                    float slope, float* work, float* dx, float beta_dx, float* dw, float beta_dw, float* db,
                    float beta_db, void*) {
  const float* dz = act == kNone ? dy : work;
  switch (act) {
    case kRelu: gradient_before_activation<kRelu>(N * O, saved, dy, slope, work); break;
    case kLeakyRelu: gradient_before_activation<kLeakyRelu>(N * O, saved, dy, slope, work); break;
    default: break;
  }
  if (dx) gemm(N, I, O, RowsA{dz, O}, ColumnsB{w, O}, beta_dx, dx, I, NoEpilogue{});
  if (dw) gemm(I, O, N, ColumnsA{x, I}, RowsB{dz, O}, beta_dw, dw, O, NoEpilogue{});
  if (db) sum_rows(N, O, dz, beta_db, db);
}

}  // namespace fastdl
