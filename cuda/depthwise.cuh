// Convolution with a group for each channel, F / C filters each: no product, but sums over a window (depthwise.cu).
#pragma once
#include "gemm.cuh"

namespace fastdl {

struct Depthwise {
  i64 N;
  int Y, X, C, R, S, F, P, Q, stride_y, stride_x, pad_y, pad_x, dilation_y, dilation_x;
  template <class Sizes>
  explicit Depthwise(const Sizes& s)
      : N(s.N), Y(to_int(s.Y)), X(to_int(s.X)), C(to_int(s.C)), R(to_int(s.R)), S(to_int(s.S)), F(to_int(s.F)), P(to_int(s.P)),
        Q(to_int(s.Q)), stride_y(to_int(s.stride_y)), stride_x(to_int(s.stride_x)), pad_y(to_int(s.pad_y)),
        pad_x(to_int(s.pad_x)), dilation_y(to_int(s.dilation_y)), dilation_x(to_int(s.dilation_x)) {}
  static int to_int(i64 n) { return static_cast<int>(n); }
};

// One channel alone is a product with F columns; longer sums than a chunk are for products, too, and so is what a 32-bit
// division does not count.
template <class Sizes>
bool is_depthwise(const Sizes& s) {
  const i64 high = s.N * (s.Y > s.P ? s.Y : s.P), wide = (s.X > s.Q ? s.X : s.Q) * s.F;
  return s.groups == s.C && s.C > 1 && s.R * s.S <= kChunk && high < INT32_MAX && wide < INT32_MAX / 4;
}

void depthwise_forward(const Depthwise& s, const float* x, const float* w, const BiasActivation& epilogue, float* y,
                       void* stream);
// dx = epilogue(sum + beta dx).
void depthwise_data(const Depthwise& s, const float* dy, const float* w, const BiasActivation& epilogue, float* dx, float beta,
                    void* stream);
void depthwise_weight(const Depthwise& s, const float* x, const float* dy, float* work, float* dw, float beta, void* stream);
inline i64 depthwise_weight_workspace(i64 R, i64 S, i64 F, i64 pixels) {
  return pixels > kChunk ? chunks_of(pixels) * R * S * F : 0;
}

}  // namespace fastdl
