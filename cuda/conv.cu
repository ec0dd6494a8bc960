// Convolution as implicit products: the matrix of image patches is never stored, the loader of gemm_operands.cuh computes
// where its elements are. The tiling is gemm_kernel.cuh's; K is what the third index stands for:
//
//                     rows (M)            columns (N)      K                    a                    b
//   forward           pixels n,p,q        filters f        taps r,s,c           image, gathered      w as it lies
//   data gradient     pixels n,u,v of     channels c       taps r,s,f of        dy, gathered         w, gathered
//                     one phase                            that phase
//   weight gradient   taps r,s,c          filters f        pixels n,p,q         image, gathered      dy as it lies
//
// Data gradient: y + pad = p stride + r dilation has solutions p for few of the taps r, and for which depends on y modulo
// stride alone. So pixels are taken phase by phase (stride_y x stride_x of them); inside a phase taps are equidistant, and so
// are the p they meet: with y = phase + u stride, r = r0 + j tap_step and p = p0 + u - j place_step. No tap is multiplied in
// vain.
//
//   stride 2, 5 taps        dy     o   o   o   o          phase 0: taps 0 2 4
//                           dx   . ' . ' . ' . ' .        phase 1: taps 1 3
//
// Groups are the batch of the product: neighbours in channels and filters. A group for each channel is no product: depthwise.cu. 1 x 1 filters without stride and padding are plain
// products.
#include "depthwise.cuh"

namespace fastdl {

template void gemm(Product, const Gather<true>&, const Gather<true>&, const BiasActivation&, void*);

namespace {

struct Sizes {
  i64 N, Y, X, C, R, S, F, P, Q, stride_y, stride_x, pad_y, pad_x, dilation_y, dilation_x, groups;

  i64 group_channels() const { return C / groups; }
  i64 group_filters() const { return F / groups; }
  i64 pixels() const { return N * P * Q; }
  i64 taps() const { return R * S * group_channels(); }
  bool plain() const {
    return R == 1 && S == 1 && stride_y == 1 && stride_x == 1 && pad_y == 0 && pad_x == 0 && groups == 1;
  }
  // Whether places, which count modulo 2^32, tell inside from outside; else the call has failed.
  bool countable() const {
    const i64 high = Y + 2 * pad_y, wide = X + 2 * pad_x, side = high > wide ? high : wide;
    if (side > INT32_MAX) keep_refusal("images of fewer than 2^31 pixels a side, with their padding", side);
    return side <= INT32_MAX;
  }
};

uint32_t place(i64 x) { return static_cast<uint32_t>(x); }

// Pixels n,p,q of the output, in the image; taps r,s,c.
Axis pixel_axis(const Sizes& s) {
  return {s.P, s.Q, -(s.pad_y * s.X + s.pad_x) * s.C,
          {s.Y * s.X * s.C, s.stride_y * s.X * s.C, s.stride_x * s.C},
          place(-s.pad_y), place(-s.pad_x), {0, place(s.stride_y), 0}, {0, 0, place(s.stride_x)}};
}
Axis tap_axis(const Sizes& s) {
  return {s.S, s.group_channels(), 0, {s.dilation_y * s.X * s.C, s.dilation_x * s.C, 1},
          0, 0, {place(s.dilation_y), 0, 0}, {0, place(s.dilation_x), 0}};
}

// One phase of one dimension of the data gradient: see above.
struct Phase {
  i64 count;  // pixels u
  i64 first_tap, taps, tap_step, first_place, place_step;
};
Phase phase_of(i64 phase, i64 Y, i64 R, i64 stride, i64 pad, i64 dilation) {
  i64 a = stride, b = dilation;
  while (b) {
    const i64 rest = a % b;
    a = b, b = rest;
  }
  Phase f = {phase < Y ? (Y - phase + stride - 1) / stride : 0, 0, 0, stride / a, 0, dilation / a};
  for (i64 r = 0; r < R && r < f.tap_step; ++r) {
    const i64 numerator = phase + pad - r * dilation;
    if (numerator % stride) continue;
    f.first_tap = r, f.taps = (R - 1 - r) / f.tap_step + 1, f.first_place = numerator / stride;
    break;
  }
  return f;
}

void data_phase(const Sizes& s, i64 y0, i64 x0, const Phase& fy, const Phase& fx, const float* dy, const float* w, float* dx,
                float beta, const BiasActivation& epilogue, void* stream) {
  const i64 Cg = s.group_channels(), Fg = s.group_filters();
  const i64 taps = fy.taps && fx.taps ? fy.taps * fx.taps : 0;
  Product p = matrix(dx, s.N * fy.count * fx.count, Cg, taps * Fg, s.C, beta);
  p.batch = s.groups, p.a_step = Fg, p.b_step = Fg, p.c_step = Cg;
  p.mapped = s.stride_y > 1 || s.stride_x > 1;
  p.rows = {fy.count, fx.count, (y0 * s.X + x0) * s.C,
            {s.Y * s.X * s.C, s.stride_y * s.X * s.C, s.stride_x * s.C}, 0, 0, {}, {}};
  const Gather<true> a = {
      dy,
      {fy.count, fx.count, (fy.first_place * s.Q + fx.first_place) * s.F, {s.P * s.Q * s.F, s.Q * s.F, s.F},
       place(fy.first_place), place(fx.first_place), {0, 1, 0}, {0, 0, 1}},
      {fx.taps ? fx.taps : 1, Fg, 0, {-fy.place_step * s.Q * s.F, -fx.place_step * s.F, 1},
       0, 0, {place(-fy.place_step), 0, 0}, {0, place(-fx.place_step), 0}},
      place(s.P), place(s.Q)};
  const Gather<true> b = {
      w,
      linear_axis(s.F),
      {fx.taps ? fx.taps : 1, Fg, (fy.first_tap * s.S + fx.first_tap) * Cg * s.F,
       {fy.tap_step * s.S * Cg * s.F, fx.tap_step * Cg * s.F, 1}, 0, 0, {}, {}},
      1, 1};
  gemm(p, a, b, epilogue, stream);
}

void data_gradient(const Sizes& s, const float* dy, const float* w, float* dx, float beta, const BiasActivation& epilogue,
                   void* stream) {
  if (!s.countable() || s.N == 0 || s.C == 0) return;
  if (is_depthwise(s)) return depthwise_data(Depthwise(s), dy, w, epilogue, dx, beta, stream);
  if (s.plain())
    return gemm(matrix(dx, s.pixels(), s.C, s.F, s.C, beta), KMajor{dy, s.F}, KMajor{w, s.F}, epilogue, stream);
  for (i64 y = 0; y < s.stride_y && y < s.Y; ++y) {
    const Phase fy = phase_of(y, s.Y, s.R, s.stride_y, s.pad_y, s.dilation_y);
    for (i64 x = 0; x < s.stride_x && x < s.X; ++x) {
      const Phase fx = phase_of(x, s.X, s.S, s.stride_x, s.pad_x, s.dilation_x);
      data_phase(s, y, x, fy, fx, dy, w, dx, beta, epilogue, stream);
    }
  }
}

}  // namespace

i64 conv2d_forward_workspace(i64, i64, i64, i64, i64, i64, i64, i64, i64, i64, i64, i64, i64, i64, i64, i64) { return 0; }
i64 conv2d_backward_data_workspace(i64, i64, i64, i64, i64, i64, i64, i64, i64, i64, i64, i64, i64, i64, i64, i64) {
  return 0;
}
i64 conv_transpose2d_forward_workspace(i64, i64, i64, i64, i64, i64, i64, i64, i64, i64, i64, i64, i64, i64, i64, i64) {
  return 0;
}

void conv2d_forward(i64 N, i64 Y, i64 X, i64 C, i64 R, i64 S, i64 F, i64 P, i64 Q, const float* x, const float* w,
                    const float* b, i64 stride_y, i64 stride_x, i64 pad_y, i64 pad_x, i64 dilation_y, i64 dilation_x,
                    i64 groups, int act, float slope, float*, float* y, float* z, void* stream) {
  const Sizes s = {N, Y, X, C, R, S, F, P, Q, stride_y, stride_x, pad_y, pad_x, dilation_y, dilation_x, groups};
  const BiasActivation epilogue{b, s.group_filters(), act, slope, z};
  if (!s.countable()) return;
  if (is_depthwise(s)) return depthwise_forward(Depthwise(s), x, w, epilogue, y, stream);
  if (s.plain()) return gemm(matrix(y, s.pixels(), F, C, F), KMajor{x, C}, MNMajor{w, F}, epilogue, stream);
  Product p = matrix(y, s.pixels(), s.group_filters(), s.taps(), F);
  p.batch = groups, p.a_step = s.group_channels(), p.b_step = p.c_step = s.group_filters();
  gemm(p, Gather<true>{x, pixel_axis(s), tap_axis(s), place(Y), place(X)}, MNMajor{w, F}, epilogue, stream);
}

void conv2d_backward_data(i64 N, i64 Y, i64 X, i64 C, i64 R, i64 S, i64 F, i64 P, i64 Q, const float* dy, const float* w,
                          i64 stride_y, i64 stride_x, i64 pad_y, i64 pad_x, i64 dilation_y, i64 dilation_x, i64 groups,
                          float*, float* dx, float beta, void* stream) {
  data_gradient({N, Y, X, C, R, S, F, P, Q, stride_y, stride_x, pad_y, pad_x, dilation_y, dilation_x, groups}, dy, w, dx,
                beta, BiasActivation{}, stream);
}

void conv_transpose2d_forward(i64 N, i64 Y, i64 X, i64 C, i64 R, i64 S, i64 F, i64 P, i64 Q, const float* x,
                              const float* w, const float* b, i64 stride_y, i64 stride_x, i64 pad_y, i64 pad_x,
                              i64 dilation_y, i64 dilation_x, i64 groups, int act, float slope, float*, float* y,
                              float* z, void* stream) {
  data_gradient({N, Y, X, C, R, S, F, P, Q, stride_y, stride_x, pad_y, pad_x, dilation_y, dilation_x, groups}, x, w, y,
                0.0f, BiasActivation{b, C / groups, act, slope, z}, stream);
}

// dw and db take turns.
i64 conv2d_backward_weight_workspace(i64 N, i64 Y, i64 X, i64 C, i64 R, i64 S, i64 F, i64 P, i64 Q, i64, i64, i64, i64, i64,
                                     i64, i64 groups) {
  const Sizes s = {N, Y, X, C, R, S, F, P, Q, 1, 1, 0, 0, 1, 1, groups};
  const i64 parts = is_depthwise(s) ? depthwise_weight_workspace(R, S, F, N * P * Q)
                                    : split_workspace(R * S * (C / groups), F / groups, N * P * Q, groups);
  const i64 columns = column_sums_workspace(N * P * Q, F);
  return parts > columns ? parts : columns;
}

void conv2d_backward_weight(i64 N, i64 Y, i64 X, i64 C, i64 R, i64 S, i64 F, i64 P, i64 Q, const float* x,
                            const float* dy, i64 stride_y, i64 stride_x, i64 pad_y, i64 pad_x, i64 dilation_y,
                            i64 dilation_x, i64 groups, float* work, float* dw, float beta_dw, float* db, float beta_db,
                            void* stream) {
  const Sizes s = {N, Y, X, C, R, S, F, P, Q, stride_y, stride_x, pad_y, pad_x, dilation_y, dilation_x, groups};
  if (!s.countable()) return;
  if (dw && is_depthwise(s)) {
    depthwise_weight(Depthwise(s), x, dy, work, dw, beta_dw, stream);
  } else if (dw) {
    Product p = matrix(dw, s.taps(), s.group_filters(), s.pixels(), F, beta_dw);
    p.batch = groups, p.a_step = s.group_channels(), p.b_step = p.c_step = s.group_filters();
    if (s.plain())
      gemm_split(p, MNMajor{x, C}, MNMajor{dy, F}, work, stream);
    else
      gemm_split(p, Gather<false>{x, tap_axis(s), pixel_axis(s), place(Y), place(X)}, MNMajor{dy, F}, work, stream);
  }
  if (db) column_sums(s.pixels(), F, dy, beta_db, work, db, stream);
}

}  // namespace fastdl
