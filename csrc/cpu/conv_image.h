// Convolutions whose output is an image: a grid laid over an image (conv.h) times packed filters. Forward, data gradient and
// transposed convolution differ in how the filters are read and where the pixels go.
#pragma once
#include "bias_activation.h"
#include "conv.h"

namespace fastdl {
namespace {

// ----------------------------------------------------------------------------------------------- packed filters
// For each panel of columns all of K: (k, j) at [k * width + j].

FASTDL_INLINE i64 panel_floats(i64 K) { return K * kTileCols + kPanelSlack; }
FASTDL_INLINE i64 panels_of(i64 columns) { return (columns + kTileCols - 1) / kTileCols; }
FASTDL_INLINE i64 packed_floats(i64 K, i64 columns) { return panels_of(columns) * panel_floats(K); }

FASTDL_INLINE float* align(float* p) {
  return reinterpret_cast<float*>((reinterpret_cast<uintptr_t>(p) + 63) / 64 * 64);
}
constexpr i64 kAlignSlack = 16;

template <class Filters>
void pack_filters(const Filters& filters, i64 K, i64 columns, float* packed) {
  const i64 panels = panels_of(columns);
  parallel_for(panels, larger<i64>(1, 65536 / (K * kTileCols + 1)), [&](i64 begin, i64 end) {
    for (i64 i = begin; i < end; ++i) {
      const i64 n = i * kTileCols, cols = smaller<i64>(kTileCols, columns - n);
      float* out = packed + i * panel_floats(K);
      if (panel_of(cols).thin) {
        filters.template pack<kLanes>(n, cols, out);
      } else {
        filters.template pack<kTileCols>(n, cols, out);
      }
    }
  });
}

// -------------------------------------------------------------------------------------------------------- results

}  // namespace

// What happens to finished sums.
struct Finish {
  const float* bias;  // of the output's channels, or null
  int act;
  float slope, beta;
  float *out, *z;
};

// Output pixel (p, q) of the grid is pixel (first_y + p step_y, first_x + q step_x) of an image [N,Y,X,C], channels from c0.
struct Placement {
  i64 Y, X, C, c0, first_y, first_x, step_y, step_x;
  i64 merged_y, merged_x;  // > 0: columns hold that block of pixels, see FiltersMerged
  // > 0: columns hold so many pixels, tap_step apart from first_x + q step_x on, which are added to those of other q
  i64 taps = 0, tap_step = 0;
};

namespace {

// The bias of columns n .. n + columns of some output, and of the vector after them.
FASTDL_INLINE void gather_bias(const Placement& place, const Finish& f, i64 n, i64 columns, float* bias) {
  memset(bias, 0, static_cast<size_t>(round_up(columns, kLanes) + kLanes) * sizeof(float));
  if (!f.bias) return;
  for (i64 j = 0; j < columns; ++j) bias[j] = f.bias[place.merged_y || place.taps ? j % place.C : place.c0 + n + j];
}

// `count` finished sums go to out + at. `room` floats from there on are written later by the same block: a last vector
// may spill into them.
template <int kAct>
FASTDL_INLINE void finish_span(const Finish& f, const float* sums, const float* bias, i64 count, i64 room, i64 at) {
  float* out = f.out + at;
  i64 j = 0;
  if (!f.z && f.beta == 0.0f) {
    const i64 end = room >= round_up(count, kLanes) ? count : count - kLanes + 1;
    for (; j < end; j += kLanes) store(out + j, activate<kAct>(load(sums + j) + load(bias + j), f.slope));
    if (j < count) store_part(out + j, activate<kAct>(load(sums + j) + load(bias + j), f.slope), count - j);
    return;
  }
  for (; j < count; j += kLanes) {
    const i64 lanes = smaller<i64>(kLanes, count - j);
    const vec sum = load(sums + j) + load(bias + j);
    if (f.z) store_lanes(f.z + at + j, sum, lanes);
    const vec y = activate<kAct>(sum, f.slope);
    store_lanes(out + j, f.beta == 0.0f ? y : f.beta * load_lanes(out + j, lanes) + y, lanes);
  }
}

}  // namespace

// Finished sums of output rows g0 .. g1 (counted through all samples), columns q0 .. q1 of the grid and `columns` filters from n on:
// sums[pixel * width + column] goes where `place` says. bias has whole vectors and one more (gather_bias).
void finish_pixels(const Grid& grid, const Placement& place, const Finish& f, const float* sums, i64 width, i64 n,
                   i64 columns, const float* bias, i64 g0, i64 g1, i64 q0, i64 q1);

// The same where columns are runs of pixels that overlap (conv_data.cpp): all columns of output rows g0 .. g1.
void finish_runs(const Grid& grid, const Placement& place, const Finish& f, const float* sums, i64 width, i64 columns,
                 i64 g0, i64 g1);

// The whole of one grid: channels c0 .. c0 + channels of the image times packed filters.
void convolve(const Grid& grid, const float* image, i64 c0, i64 channels, const float* packed, i64 columns,
              const Placement& place, const Finish& f);

// The same for one filter a channel. w: taps in the grid's order, each with its channels rounded up to whole vectors; after it as
// much room for the bias.
void convolve_depthwise(const Grid& grid, const float* image, float* w, const Placement& place, const Finish& f);

// Tap (i, j) of the grid is row last_y - i * apart_y, column last_x - j * apart_x of w[R,S,1,C].
void pack_depthwise(const float* w, i64 S, i64 C, i64 taps_y, i64 taps_x, i64 last_y, i64 last_x, i64 apart_y,
                    i64 apart_x, float* out);

namespace {

FASTDL_INLINE bool is_depthwise(i64 C, i64 F, i64 groups, i64 R, i64 S) {
  return groups == C && F == C && C > 1 && R * S <= kChunk;
}
FASTDL_INLINE i64 depthwise_floats(i64 C, i64 R, i64 S) { return R * S * round_up(C, kLanes); }

}  // namespace
}  // namespace fastdl
