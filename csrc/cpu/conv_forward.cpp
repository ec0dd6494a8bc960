// The convolution forward.
#include "../kernels.h"
#include "conv_winograd.h"

namespace fastdl {
namespace {

// w[R,S,C/groups,F] as it is: k = (r, s, c), columns are filters.
struct FiltersForward {
  const float* w;
  i64 F, K;
  template <int W>
  void pack(i64 n, i64 cols, float* out) const {
    pack_copied<W>(w + n, F, cols, K, out);
  }
};

}  // namespace

i64 conv2d_forward_workspace(i64 N, i64 Y, i64 X, i64 C, i64 R, i64 S, i64 F, i64 P, i64 Q, i64 stride_y, i64 stride_x,
                             i64 pad_y, i64 pad_x, i64 dilation_y, i64 dilation_x, i64 groups) {
  if (is_depthwise(C, F, groups, R, S)) return depthwise_floats(C, R + 1, S) + kAlignSlack;
  const Grid grid = {N, Y, X, C, P, Q, R, S, stride_y, stride_x, dilation_y, dilation_x, -pad_y, -pad_x};
  if (groups == 1 && winograd_pays(grid, F)) return winograd_floats(C, F) + kAlignSlack;
  return packed_floats(R * S * (C / groups), F / groups) + kAlignSlack;
}

void conv2d_forward(i64 N, i64 Y, i64 X, i64 C, i64 R, i64 S, i64 F, i64 P, i64 Q, const float* x, const float* w,
                    const float* b, i64 stride_y, i64 stride_x, i64 pad_y, i64 pad_x, i64 dilation_y, i64 dilation_x,
                    i64 groups, int act, float slope, float* work, float* y, float* z, void*) {
  if (F == 0) return;
  float* packed = align(work);
  const i64 Cg = C / groups, Fg = F / groups, K = R * S * Cg;
  const Grid grid = {N, Y, X, C, P, Q, R, S, stride_y, stride_x, dilation_y, dilation_x, -pad_y, -pad_x};
  const Finish finish = {b, act, slope, 0.0f, y, z};
  if (is_depthwise(C, F, groups, R, S)) {
    pack_depthwise(w, S, C, R, S, 0, 0, -1, -1, packed);
    return convolve_depthwise(grid, x, packed, Placement{P, Q, F, 0, 0, 0, 1, 1, 0, 0}, finish);
  }
  if (groups == 1 && winograd_pays(grid, F)) {
    winograd_transform(FiltersForward{w, F, K}, C, F, packed);
    return winograd_convolve(grid, x, packed, F, Placement{P, Q, F, 0, 0, 0, 1, 1, 0, 0}, finish);
  }
  for (i64 g = 0; g < groups; ++g) {
    pack_filters(FiltersForward{w + g * Fg, F, K}, K, Fg, packed);
    const Placement place = {P, Q, F, g * Fg, 0, 0, 1, 1, 0, 0};
    convolve(grid, x, g * Cg, Cg, packed, Fg, place, finish);
  }
}

}  // namespace fastdl
