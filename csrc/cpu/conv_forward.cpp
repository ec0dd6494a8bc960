// Convolutions whose output is an image: forward, data gradient, transposed. All three are a grid laid over an image times
// packed filters (conv.h); they differ in how the filters are read and where the pixels go. docs/kernels/conv.md has the
// derivations and the measurements.
#include "../kernels.h"
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
constexpr i64 kShortRun = 64;

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

// w[R,S,C/groups,F] as it is: k = (r, s, c), columns are filters.
struct FiltersForward {
  const float* w;
  i64 F, K;
  template <int W>
  void pack(i64 n, i64 cols, float* out) const {
    pack_copied<W>(w + n, F, cols, K, out);
  }
};

// One axis of a class of input pixels that meet the same taps: pixels first, first + stride, ...; tap t of the class is
// filter row (or column) last - t * apart, and reads output row origin + i + t * step for the i-th pixel of the class.
struct AxisClass {
  i64 first, count, taps, last, apart, origin, step;
};

AxisClass axis_class(i64 residue, i64 size, i64 R, i64 stride, i64 pad, i64 dilation) {
  AxisClass a = {residue, residue < size ? (size - 1 - residue) / stride + 1 : 0, 0, 0, 1, 0, 1};
  i64 before = -1;
  for (i64 r = 0; r < R; ++r) {
    if ((residue + pad - r * dilation) % stride != 0) continue;
    ++a.taps;
    if (before >= 0) a.apart = r - before;
    before = a.last = r;
  }
  a.step = a.apart * dilation / stride;
  if (a.step == 0) a.step = 1;  // a single tap
  a.origin = (residue + pad - a.last * dilation) / stride;
  return a;
}

// The filters of a class, turned round: k = (r, s, f), columns are input channels.
struct FiltersTurned {
  const float* w;
  AxisClass y, x;
  i64 S, C, F, f0, Fg;  // C: channels of a group
  template <int W>
  void pack(i64 n, i64 cols, float* out) const {
    for (i64 i = 0; i < y.taps; ++i) {
      for (i64 j = 0; j < x.taps; ++j) {
        const i64 tap = (y.last - i * y.apart) * S + x.last - j * x.apart;
        pack_transposed<W>(w + (tap * C + n) * F + f0, F, cols, Fg, out);
        out += Fg * W;
      }
    }
  }
};

// With few channels a class is a thin product. Then all classes, and `wide` neighbours of each, are columns of one product
// over the union of their taps; taps that a column lacks are zeros. Column ((jy * block_x) + jx) * C + c is input pixel
// (i stride_y + jy - pad_y, i block_x + jx - pad_x), block_x = wide stride_x. Dilation 1, one group.
struct FiltersMerged {
  const float* w;
  i64 R, S, C, F, stride_y, stride_x, wide, taps_y, taps_x;
  template <int W>
  void pack(i64 n, i64 cols, float* out) const {
    const i64 block_x = wide * stride_x;
    for (i64 i = 0; i < taps_y; ++i) {
      for (i64 j = 0; j < taps_x; ++j, out += F * W) {
        for (i64 column = 0; column < W; ++column) {
          const i64 c = (n + column) % C, jx = (n + column) / C % block_x, jy = (n + column) / C / block_x;
          // Output row of tap i: origin + i with origin = -(taps_y - 1); it meets filter row jy - stride_y (origin + i).
          const i64 r = jy + stride_y * (taps_y - 1 - i), s = jx + stride_x * (taps_x - wide - j);
          const bool there = column < cols && r < R && s >= 0 && s < S;
          for (i64 f = 0; f < F; ++f) out[f * W + column] = there ? w[((r * S + s) * C + c) * F + f] : 0.0f;
        }
      }
    }
  }
};

// -------------------------------------------------------------------------------------------------------- blocks

// Pixels of a block: `rows` rows of `columns` pixels; start[m] is where tap (0, 0) of pixel m lies in the band.
struct Pixels {
  i64 rows, columns;
  i64 start[kBlockPixels];
};

// Columns of some panels, for all pixels -> sums[pixel * width + column].
void block_sums(const Grid& grid, const Band& band, i64 channels, const Pixels& pixels, const float* packed, i64 columns,
                i64 width, float* sums) {
  const i64 K = grid.R * grid.S * channels;
  if (K == 0) {
    memset(sums, 0, static_cast<size_t>(pixels.rows * pixels.columns * width) * sizeof(float));
    return;
  }
  const bool joined = band.pixel == channels && grid.step_x == 1;  // taps of a filter row are one run
  const i64 run_floats = joined ? grid.S * channels : channels;
  // Short runs spend their time on a tile's pointers: tiles inside an output row need fewer.
  const bool uniform = run_floats < kShortRun && pixels.columns >= kThinRows;
  const i64 segments = uniform ? pixels.rows : 1, segment = uniform ? pixels.columns : pixels.rows * pixels.columns;
  Run runs[kChunk];
  ConvTile t = {};
  t.runs = runs;
  t.c_step = width;
  t.step = grid.stride_x * band.pixel;
  for (i64 k0 = 0; k0 < K; k0 += kChunk) {
    const i64 k1 = smaller(k0 + kChunk, K);
    t.run_count = 0;
    for (i64 k = k0; k < k1;) {
      const i64 run = k / run_floats, inside = k % run_floats;
      const i64 r = joined ? run : run / grid.S, s = joined ? 0 : run % grid.S;
      const i64 length = smaller(run_floats - inside, k1 - k);
      runs[t.run_count++] = {r * grid.step_y * band.pitch + s * grid.step_x * band.pixel + inside, length};
      k += length;
    }
    t.beta = k0 == 0 ? 0.0f : 1.0f;
    for (i64 n = 0; n < columns; n += kTileCols) {
      const Panel panel = panel_of(smaller<i64>(kTileCols, columns - n));
      const ConvTileFunction* tile = uniform ? (panel.thin ? conv_thin_uniform : conv_full_uniform)
                                             : (panel.thin ? conv_thin_adjacent : conv_full_adjacent);
      t.cols = panel.width;
      t.b = packed + n / kTileCols * panel_floats(K) + k0 * panel.width;
      t.b_step = panel.width;
      const i64 tiles = (segment + panel.rows - 1) / panel.rows, least = segment / tiles, more = segment % tiles;
      const i64* start = pixels.start;
      t.c = sums + n;
      for (i64 i = 0; i < segments; ++i) {
        for (i64 j = 0; j < tiles; ++j) {
          const i64 rows = j < more ? least + 1 : least;  // alike, as a tile of few rows takes longer than its share
          for (i64 r = 0; r < (uniform ? 1 : rows); ++r) t.row[r] = band.base + start[r];
          tile[rows](t);
          start += rows;
          t.c += rows * width;
        }
      }
    }
  }
}

// What happens to finished sums.
struct Finish {
  const float* bias;  // of the output's channels, or null
  int act;
  float slope, beta;
  float *out, *z;
};

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

// Output pixel (p, q) of the grid is pixel (first_y + p step_y, first_x + q step_x) of an image [N,Y,X,C], channels from c0.
struct Placement {
  i64 Y, X, C, c0, first_y, first_x, step_y, step_x;
  i64 merged_y, merged_x;  // > 0: columns hold that block of pixels, see FiltersMerged
};

template <int kAct>
void finish_pixels(const Grid& grid, const Placement& place, const Finish& f, const float* sums, i64 width, i64 n,
                  i64 columns, i64 g0, i64 g1, i64 q0, i64 q1) {
  float bias[kStripFilters + kPanelSlack] = {};
  if (f.bias) {
    for (i64 j = 0; j < columns; ++j) bias[j] = f.bias[place.merged_y ? j % place.C : place.c0 + n + j];
  }
  const bool dense = !place.merged_y && place.step_x == 1 && columns == place.C;
  for (i64 g = g0; g < g1; ++g) {
    const i64 sample = g / grid.P, y = place.first_y + g % grid.P * place.step_y;
    for (i64 q = q0; q < q1; ++q, sums += width) {
      const i64 x = place.first_x + q * place.step_x;
      if (!place.merged_y) {
        const i64 at = ((sample * place.Y + y) * place.X + x) * place.C + place.c0 + n;
        finish_span<kAct>(f, sums, bias, columns, dense ? (q1 - q) * place.C : 0, at);
        continue;
      }
      const i64 x0 = larger<i64>(x, 0), x1 = smaller(x + place.merged_x, place.X);
      for (i64 j = 0; j < place.merged_y; ++j) {
        if (y + j < 0 || y + j >= place.Y || x0 >= x1) continue;
        const float* from = sums + (j * place.merged_x + x0 - x) * place.C;
        finish_span<kAct>(f, from, bias, (x1 - x0) * place.C, 0, ((sample * place.Y + y + j) * place.X + x0) * place.C);
      }
    }
  }
}

void finish_pixels(const Grid& grid, const Placement& place, const Finish& f, const float* sums, i64 width, i64 n,
                   i64 columns, i64 g0, i64 g1, i64 q0, i64 q1) {
  switch (f.act) {
    case kRelu: return finish_pixels<kRelu>(grid, place, f, sums, width, n, columns, g0, g1, q0, q1);
    case kLeakyRelu: return finish_pixels<kLeakyRelu>(grid, place, f, sums, width, n, columns, g0, g1, q0, q1);
    case kSigmoid: return finish_pixels<kSigmoid>(grid, place, f, sums, width, n, columns, g0, g1, q0, q1);
    case kTanh: return finish_pixels<kTanh>(grid, place, f, sums, width, n, columns, g0, g1, q0, q1);
    case kGelu: return finish_pixels<kGelu>(grid, place, f, sums, width, n, columns, g0, g1, q0, q1);
    default: return finish_pixels<kNone>(grid, place, f, sums, width, n, columns, g0, g1, q0, q1);
  }
}

// The whole of one grid: channels c0 .. c0 + channels of the image times packed filters.
void convolve(const Grid& grid, const float* image, i64 c0, i64 channels, const float* packed, i64 columns,
              const Placement& place, const Finish& f) {
  const i64 rows = grid.rows();
  if (rows <= 0 || grid.Q <= 0 || columns <= 0) return;
  const i64 K = grid.R * grid.S * channels;
  const i64 block_rows = larger<i64>(1, kBlockPixels / grid.Q), row_blocks = (rows + block_rows - 1) / block_rows;
  const i64 column_blocks = (grid.Q + kBlockPixels - 1) / kBlockPixels;
  const i64 strips = (columns + kStripFilters - 1) / kStripFilters;
  const double block_flops = 2.0 * double(kBlockPixels) * double(smaller(columns, kStripFilters)) * double(K + 1);
  const i64 grain = larger<i64>(1, i64(1e6 / block_flops));
  parallel_for(row_blocks * column_blocks * strips, grain, [&](i64 begin, i64 end) {
    Band band;
    Pixels pixels;
    i64 loaded = -1;
    for (i64 i = begin; i < end; ++i) {
      const i64 part = i / strips, n = i % strips * kStripFilters;
      const i64 g0 = part / column_blocks * block_rows, g1 = smaller(g0 + block_rows, rows);
      const i64 q0 = part % column_blocks * kBlockPixels, q1 = smaller(q0 + kBlockPixels, grid.Q);
      pixels.rows = g1 - g0;
      pixels.columns = q1 - q0;
      if (part != loaded && K > 0) {
        band.load(grid, image, c0, channels, g0, g1, q0, q1);
        i64 m = 0;
        for (i64 g = g0; g < g1; ++g) {
          for (i64 q = q0; q < q1; ++q) pixels.start[m++] = band.start[g - g0] + (q - q0) * grid.stride_x * band.pixel;
        }
        loaded = part;
      }
      const i64 some = smaller(columns - n, kStripFilters), width = lanes_of(some);
      float* sums = thread_scratch(0, static_cast<size_t>(kBlockPixels * width + kPanelSlack));
      block_sums(grid, band, channels, pixels, packed + n / kTileCols * panel_floats(K), some, width, sums);
      finish_pixels(grid, place, f, sums, width, n, some, g0, g1, q0, q1);
    }
  });
}

// ------------------------------------------------------------------------------------- data gradient, transposed

// How the merged product would look, and whether it is the cheaper way.
struct Merge {
  bool better;
  i64 wide, columns, taps_y, taps_x, first_y, first_x, P, Q;
};

// Floor of a / b for b > 0.
FASTDL_INLINE i64 floor_of(i64 a, i64 b) { return a >= 0 ? a / b : -((-a + b - 1) / b); }

Merge merge_of(i64 Y, i64 X, i64 C, i64 R, i64 S, i64 stride_y, i64 stride_x, i64 pad_y, i64 pad_x, i64 dilation_y,
               i64 dilation_x, i64 groups) {
  Merge best = {};
  if (groups != 1 || dilation_y != 1 || dilation_x != 1 || C * stride_y * stride_x > kStripFilters || R * S == 0) return best;
  double least = double(Y) * double(X) * double(R * S) / double(stride_y * stride_x) * double(lanes_of(C));
  for (i64 wide = 1; wide <= 16; wide *= 2) {
    Merge m = {};
    m.wide = wide;
    m.columns = C * stride_y * stride_x * wide;
    if (m.columns > kStripFilters) break;
    m.taps_y = (R - 1) / stride_y + 1;
    m.taps_x = (S - 1) / stride_x + wide;
    m.first_y = floor_of(pad_y, stride_y);
    m.first_x = floor_of(pad_x, stride_x * wide);
    m.P = floor_of(Y - 1 + pad_y, stride_y) - m.first_y + 1;
    m.Q = floor_of(X - 1 + pad_x, stride_x * wide) - m.first_x + 1;
    const double cost = double(m.P) * double(m.Q) * double(m.taps_y * m.taps_x) * double(lanes_of(m.columns));
    if (cost < 0.8 * least) {
      least = cost / 0.8;
      best = m;
      best.better = true;
    }
  }
  return best;
}

i64 backward_workspace(i64 Y, i64 X, i64 C, i64 R, i64 S, i64 F, i64 stride_y, i64 stride_x, i64 pad_y, i64 pad_x,
                       i64 dilation_y, i64 dilation_x, i64 groups) {
  const Merge merge = merge_of(Y, X, C, R, S, stride_y, stride_x, pad_y, pad_x, dilation_y, dilation_x, groups);
  if (merge.better) return packed_floats(merge.taps_y * merge.taps_x * F, merge.columns) + kAlignSlack;
  return packed_floats(R * S * (F / groups), C / groups) + kAlignSlack;
}

void backward(i64 N, i64 Y, i64 X, i64 C, i64 R, i64 S, i64 F, i64 P, i64 Q, const float* dy, const float* w,
              i64 stride_y, i64 stride_x, i64 pad_y, i64 pad_x, i64 dilation_y, i64 dilation_x, i64 groups, float* work,
              const Finish& f) {
  if (C == 0) return;
  float* packed = align(work);
  const Merge merge = merge_of(Y, X, C, R, S, stride_y, stride_x, pad_y, pad_x, dilation_y, dilation_x, groups);
  if (merge.better) {
    const FiltersMerged filters = {w, R, S, C, F, stride_y, stride_x, merge.wide, merge.taps_y, merge.taps_x};
    pack_filters(filters, merge.taps_y * merge.taps_x * F, merge.columns, packed);
    const Grid grid = {N, P, Q, F, merge.P, merge.Q, merge.taps_y, merge.taps_x, 1, merge.wide, 1, 1,
                       merge.first_y - (merge.taps_y - 1),
                       merge.first_x * merge.wide - (merge.taps_x - merge.wide)};
    const i64 block_x = stride_x * merge.wide;
    const Placement place = {Y, X, C, 0, merge.first_y * stride_y - pad_y, merge.first_x * block_x - pad_x,
                             stride_y, block_x, stride_y, block_x};
    convolve(grid, dy, 0, F, packed, merge.columns, place, f);
    return;
  }
  const i64 Cg = C / groups, Fg = F / groups;
  for (i64 i = 0; i < stride_y; ++i) {
    const AxisClass y = axis_class(i, Y, R, stride_y, pad_y, dilation_y);
    for (i64 j = 0; j < stride_x; ++j) {
      const AxisClass x = axis_class(j, X, S, stride_x, pad_x, dilation_x);
      if (y.count == 0 || x.count == 0) continue;
      const Grid grid = {N, P, Q, F, y.count, x.count, y.taps, x.taps, 1, 1, y.step, x.step, y.origin, x.origin};
      const Placement place = {Y, X, C, 0, y.first, x.first, stride_y, stride_x, 0, 0};
      for (i64 g = 0; g < groups; ++g) {
        const FiltersTurned filters = {w, y, x, S, Cg, F, g * Fg, Fg};
        pack_filters(filters, y.taps * x.taps * Fg, Cg, packed);
        Placement here = place;
        here.c0 = g * Cg;
        convolve(grid, dy, g * Fg, Fg, packed, Cg, here, f);
      }
    }
  }
}

}  // namespace

i64 conv2d_forward_workspace(i64, i64, i64, i64 C, i64 R, i64 S, i64 F, i64, i64, i64, i64, i64, i64, i64, i64,
                             i64 groups) {
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
  for (i64 g = 0; g < groups; ++g) {
    pack_filters(FiltersForward{w + g * Fg, F, K}, K, Fg, packed);
    const Placement place = {P, Q, F, g * Fg, 0, 0, 1, 1, 0, 0};
    convolve(grid, x, g * Cg, Cg, packed, Fg, place, finish);
  }
}

i64 conv2d_backward_data_workspace(i64, i64 Y, i64 X, i64 C, i64 R, i64 S, i64 F, i64, i64, i64 stride_y, i64 stride_x,
                                   i64 pad_y, i64 pad_x, i64 dilation_y, i64 dilation_x, i64 groups) {
  return backward_workspace(Y, X, C, R, S, F, stride_y, stride_x, pad_y, pad_x, dilation_y, dilation_x, groups);
}

void conv2d_backward_data(i64 N, i64 Y, i64 X, i64 C, i64 R, i64 S, i64 F, i64 P, i64 Q, const float* dy, const float* w,
                          i64 stride_y, i64 stride_x, i64 pad_y, i64 pad_x, i64 dilation_y, i64 dilation_x, i64 groups,
                          float* work, float* dx, float beta, void*) {
  backward(N, Y, X, C, R, S, F, P, Q, dy, w, stride_y, stride_x, pad_y, pad_x, dilation_y, dilation_x, groups, work,
           Finish{nullptr, kNone, 0.0f, beta, dx, nullptr});
}

i64 conv_transpose2d_forward_workspace(i64, i64 Y, i64 X, i64 C, i64 R, i64 S, i64 F, i64, i64, i64 stride_y,
                                       i64 stride_x, i64 pad_y, i64 pad_x, i64 dilation_y, i64 dilation_x, i64 groups) {
  return backward_workspace(Y, X, C, R, S, F, stride_y, stride_x, pad_y, pad_x, dilation_y, dilation_x, groups);
}

void conv_transpose2d_forward(i64 N, i64 Y, i64 X, i64 C, i64 R, i64 S, i64 F, i64 P, i64 Q, const float* x,
                              const float* w, const float* b, i64 stride_y, i64 stride_x, i64 pad_y, i64 pad_x,
                              i64 dilation_y, i64 dilation_x, i64 groups, int act, float slope, float* work, float* y,
                              float* z, void*) {
  backward(N, Y, X, C, R, S, F, P, Q, x, w, stride_y, stride_x, pad_y, pad_x, dilation_y, dilation_x, groups, work,
           Finish{b, act, slope, 0.0f, y, z});
}

}  // namespace fastdl
