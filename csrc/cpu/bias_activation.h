// The epilogue of dense layers and convolutions: y = act(sum + bias), with the activation a constant of the template.
#pragma once
#include "../formulas.h"
#include "../kernels.h"
#include "gemm.h"

namespace fastdl {
namespace {

template <int kAct, class V>
FASTDL_INLINE V activate(V z, float slope) {
  if constexpr (kAct == kRelu) return relu(z);
  if constexpr (kAct == kLeakyRelu) return leaky_relu(z, all<V>(slope));
  if constexpr (kAct == kSigmoid) return sigmoid(z);
  if constexpr (kAct == kTanh) return fastdl::tanh(z);
  if constexpr (kAct == kGelu) return gelu(z);
  return z;
}

// z[m * z_step + n], if z is not null, receives what the activation was applied to. bias[n] may be null.
template <int kAct>
struct BiasActivation {
  const float* bias;
  float slope;
  float* z;
  i64 z_step;
  FASTDL_INLINE vec operator()(vec sum, i64 m, i64 n, i64 lanes) const {
    if (bias) sum += load_lanes(bias + n, lanes);
    if (z) store_lanes(z + m * z_step + n, sum, lanes);
    return activate<kAct>(sum, slope);
  }
  static constexpr bool kInSquares = kChains && (kAct == kSigmoid || kAct == kTanh);
  FASTDL_INLINE vec4 square(vec4 sums, i64 m, i64 n) const {
    if (bias) {
      const Two<vec> b = {load(bias + n), load(bias + n + kLanes)};
      sums += vec4{b, b};
    }
    if (z) {
      float* p = z + m * z_step + n;
      store(p, sums.a.a);
      store(p + kLanes, sums.a.b);
      store(p + z_step, sums.b.a);
      store(p + z_step + kLanes, sums.b.b);
    }
    return activate<kAct>(sums, slope);
  }
};

// f(epilogue) with the functor for `act`.
template <class F>
FASTDL_INLINE void with_bias_activation(int act, const float* bias, float slope, float* z, i64 z_step, const F& f) {
  switch (act) {
    case kRelu: return f(BiasActivation<kRelu>{bias, slope, z, z_step});
    case kLeakyRelu: return f(BiasActivation<kLeakyRelu>{bias, slope, z, z_step});
    case kSigmoid: return f(BiasActivation<kSigmoid>{bias, slope, z, z_step});
    case kTanh: return f(BiasActivation<kTanh>{bias, slope, z, z_step});
    case kGelu: return f(BiasActivation<kGelu>{bias, slope, z, z_step});
    default: return f(BiasActivation<kNone>{bias, slope, z, z_step});
  }
}

}  // namespace
}  // namespace fastdl
