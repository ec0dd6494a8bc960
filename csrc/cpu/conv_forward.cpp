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

// What happens to finished sums.
struct Finish {
  const float* bias;  // of the output's channels, or null
  int act;
  float slope, beta;
  float *out, *z;
};

// The tile that adds the last chunk may write the output itself: its stores then hide behind the next tile's sums.
struct Direct {
  float* out;  // of the block's first pixel, or null
  i64 step;
};

// Columns of some panels, for all pixels -> sums[pixel * width + column].
void block_sums(const Grid& grid, const Band& band, i64 channels, const Pixels& pixels, const float* packed, i64 columns,
                i64 width, float* sums, const Direct& direct, const Finish& finish, const float* bias) {
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
  t.from_step = width;
  t.beta = 1.0f;
  t.slope = finish.slope;
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
    const bool out = direct.out && k1 == K;
    t.act = out ? finish.act : kNone;
    t.c_step = out ? direct.step : width;
    for (i64 n = 0; n < columns; n += kTileCols) {
      const Panel panel = panel_of(smaller<i64>(kTileCols, columns - n));
      const ConvTileFunction* tile = uniform ? (panel.thin ? conv_thin_uniform : conv_full_uniform)
                                             : (panel.thin ? conv_thin_adjacent : conv_full_adjacent);
      t.cols = panel.width;
      t.b = packed + n / kTileCols * panel_floats(K) + k0 * panel.width;
      t.b_step = panel.width;
      const i64 tiles = (segment + panel.rows - 1) / panel.rows, least = segment / tiles, more = segment % tiles;
      const i64* start = pixels.start;
      t.bias = out ? bias + n : nullptr;
      t.c = (out ? direct.out : sums) + n;
      t.from = k0 == 0 ? nullptr : sums + n;
      i64 left = pixels.rows * pixels.columns;
      for (i64 i = 0; i < segments; ++i) {
        for (i64 j = 0; j < tiles; ++j) {
          const i64 rows = j < more ? least + 1 : least;  // alike, as a tile of few rows takes longer than its share
          for (i64 r = 0; r < (uniform ? 1 : rows); ++r) t.row[r] = band.base + start[r];
          // Vectors that hang over a pixel's end spill into the next pixel, which is written after; not so the last ones.
          if (out && (left - rows) * direct.step < panel.width) t.cols = smaller<i64>(panel.width, columns - n);
          tile[rows](t);
          left -= rows;
          start += rows;
          t.c += rows * t.c_step;
          if (t.from) t.from += rows * width;
        }
      }
    }
  }
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

// Pixels that follow each other in the output, V vectors each: out[m * columns + j]. Vectors spill into the next pixel,
// which is written after.
template <int kAct, int V>
void finish_adjacent(const float* sums, i64 width, i64 pixels, i64 columns, const float* bias, float slope, float* out) {
  vec b[V];
  for (int v = 0; v < V; ++v) b[v] = load(bias + v * kLanes);
  const i64 safe = pixels - (V * kLanes - 1) / columns;  // from here on they would spill over the end
  i64 m = 0;
  for (; m < safe; ++m, sums += width, out += columns) {
    for (int v = 0; v < V; ++v) store(out + v * kLanes, activate<kAct>(load(sums + v * kLanes) + b[v], slope));
  }
  for (; m < pixels; ++m, sums += width, out += columns) {
    for (i64 j = 0; j < columns; j += kLanes) {
      store_lanes(out + j, activate<kAct>(load(sums + j) + load(bias + j), slope), smaller<i64>(kLanes, columns - j));
    }
  }
}

// Output pixel (p, q) of the grid is pixel (first_y + p step_y, first_x + q step_x) of an image [N,Y,X,C], channels from c0.
struct Placement {
  i64 Y, X, C, c0, first_y, first_x, step_y, step_x;
  i64 merged_y, merged_x;  // > 0: columns hold that block of pixels, see FiltersMerged
};

// The bias of columns n .. n + columns of some output, and of the vector after them.
void gather_bias(const Placement& place, const Finish& f, i64 n, i64 columns, float* bias) {
  memset(bias, 0, static_cast<size_t>(round_up(columns, kLanes) + kLanes) * sizeof(float));
  if (!f.bias) return;
  for (i64 j = 0; j < columns; ++j) bias[j] = f.bias[place.merged_y ? j % place.C : place.c0 + n + j];
}

template <int kAct>
void finish_pixels(const Grid& grid, const Placement& place, const Finish& f, const float* sums, i64 width, i64 n,
                   i64 columns, const float* bias, i64 g0, i64 g1, i64 q0, i64 q1) {
  const bool dense = !place.merged_y && place.step_x == 1 && columns == place.C;
  if (dense && place.step_y == 1 && q0 == 0 && q1 == place.X && grid.P == place.Y && !f.z && f.beta == 0.0f) {
    float* out = f.out + g0 * place.X * place.C;
    const i64 pixels = (g1 - g0) * q1;
    switch ((columns + kLanes - 1) / kLanes) {
      case 1: return finish_adjacent<kAct, 1>(sums, width, pixels, columns, bias, f.slope, out);
      case 2: return finish_adjacent<kAct, 2>(sums, width, pixels, columns, bias, f.slope, out);
      case 3: return finish_adjacent<kAct, 3>(sums, width, pixels, columns, bias, f.slope, out);
      case 4: return finish_adjacent<kAct, 4>(sums, width, pixels, columns, bias, f.slope, out);
      default: break;
    }
  }
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
                    i64 columns, const float* bias, i64 g0, i64 g1, i64 q0, i64 q1) {
  switch (f.act) {
    case kRelu: return finish_pixels<kRelu>(grid, place, f, sums, width, n, columns, bias, g0, g1, q0, q1);
    case kLeakyRelu: return finish_pixels<kLeakyRelu>(grid, place, f, sums, width, n, columns, bias, g0, g1, q0, q1);
    case kSigmoid: return finish_pixels<kSigmoid>(grid, place, f, sums, width, n, columns, bias, g0, g1, q0, q1);
    case kTanh: return finish_pixels<kTanh>(grid, place, f, sums, width, n, columns, bias, g0, g1, q0, q1);
    case kGelu: return finish_pixels<kGelu>(grid, place, f, sums, width, n, columns, bias, g0, g1, q0, q1);
    default: return finish_pixels<kNone>(grid, place, f, sums, width, n, columns, bias, g0, g1, q0, q1);
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
  // Whole panels, or one panel whose overhang nobody else has written: see block_sums.
  const bool adjacent = !place.merged_y && place.step_y == 1 && place.step_x == 1 && grid.P == place.Y && grid.Q == place.X;
  const bool simple = !f.z && f.beta == 0.0f && (f.act == kNone || f.act == kRelu || f.act == kLeakyRelu);
  const bool fits = columns % kTileCols == 0 || (columns % kTileCols == kLanes && lanes_of(columns) == columns) ||
                    (columns == place.C && columns <= kTileCols);
  const bool can_direct = adjacent && simple && fits && K > 0;
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
      float bias[kStripFilters + 2 * kLanes];
      gather_bias(place, f, n, some, bias);
      Direct direct = {nullptr, place.C};
      if (can_direct) direct.out = f.out + (g0 * place.X + q0) * place.C + place.c0 + n;
      block_sums(grid, band, channels, pixels, packed + n / kTileCols * panel_floats(K), some, width, sums, direct, f, bias);
      if (!can_direct) finish_pixels(grid, place, f, sums, width, n, some, bias, g0, g1, q0, q1);
    }
  });
}

// ----------------------------------------------------------------------------------------------------- depthwise
// One filter for each channel: no product, but a channel's sum in a lane of its own, the order of the taps as above.

FASTDL_INLINE bool is_depthwise(i64 C, i64 F, i64 groups, i64 R, i64 S) {
  return groups == C && F == C && C > 1 && R * S <= kChunk;
}
FASTDL_INLINE i64 depthwise_floats(i64 C, i64 R, i64 S) { return R * S * round_up(C, kLanes); }

// Sums of R output pixels, V vectors of channels from c on; pixel r reads from at + r * apart.
template <int kAct, int R, int V>
FASTDL_INLINE void depthwise_tile(const Grid& grid, const Band& band, const float* at, i64 apart, const float* w, i64 padded,
                                  i64 c, const Finish& f, const float* bias, i64 out, i64 out_step, i64 channels) {
  vec sum[R][V] = {};
  for (i64 r = 0; r < grid.R; ++r) {
    for (i64 s = 0; s < grid.S; ++s, w += padded) {
      const float* x = at + r * grid.step_y * band.pitch + s * grid.step_x * band.pixel + c;
      for (int v = 0; v < V; ++v) {
        const vec wv = load(w + c + v * kLanes);
        for (int i = 0; i < R; ++i) sum[i][v] = fma(load(x + i * apart + v * kLanes), wv, sum[i][v]);
      }
    }
  }
  if (!f.z && f.beta == 0.0f && c + V * kLanes <= channels) {
    for (int i = 0; i < R; ++i) {
      for (int v = 0; v < V; ++v) {
        store(f.out + out + i * out_step + c + v * kLanes, activate<kAct>(sum[i][v] + load(bias + c + v * kLanes), f.slope));
      }
    }
    return;
  }
  for (int i = 0; i < R; ++i) {
    float sums[V * kLanes];
    for (int v = 0; v < V; ++v) store(sums + v * kLanes, sum[i][v]);
    finish_span<kAct>(f, sums, bias + c, smaller<i64>(V * kLanes, channels - c), 0, out + i * out_step + c);
  }
}

template <int kAct, int R>
FASTDL_INLINE void depthwise_pixels(const Grid& grid, const Band& band, const float* at, i64 apart, const float* w,
                                    const Finish& f, const float* bias, i64 out, i64 out_step) {
  const i64 C = grid.C, padded = round_up(C, kLanes);
  i64 c = 0;
  for (; c + kLanes < padded; c += 2 * kLanes) {
    depthwise_tile<kAct, R, 2>(grid, band, at, apart, w, padded, c, f, bias, out, out_step, C);
  }
  if (c < padded) depthwise_tile<kAct, R, 1>(grid, band, at, apart, w, padded, c, f, bias, out, out_step, C);
}

// Rows g0 .. g1; bias has whole vectors.
template <int kAct>
void depthwise_rows(const Grid& grid, const float* image, const float* w, const Placement& place, const Finish& f,
                    const float* bias, i64 g0, i64 g1) {
  Band band;
  band.load(grid, image, 0, grid.C, g0, g1, 0, grid.Q, grid.C % kLanes != 0);
  const i64 apart = grid.stride_x * grid.C, out_step = place.step_x * place.C;
  for (i64 g = g0; g < g1; ++g) {
    const i64 y = g / grid.P * place.Y + place.first_y + g % grid.P * place.step_y;
    i64 out = (y * place.X + place.first_x) * place.C;
    const float* at = band.base + band.start[g - g0];
    i64 q = 0;
    for (; q + 4 <= grid.Q; q += 4, at += 4 * apart, out += 4 * out_step) {
      depthwise_pixels<kAct, 4>(grid, band, at, apart, w, f, bias, out, out_step);
    }
    for (; q < grid.Q; ++q, at += apart, out += out_step) {
      depthwise_pixels<kAct, 1>(grid, band, at, apart, w, f, bias, out, out_step);
    }
  }
}

// w: taps in the grid's order, each with its channels rounded up to whole vectors; after it as much room for the bias.
void convolve_depthwise(const Grid& grid, const float* image, float* w, const Placement& place, const Finish& f) {
  const i64 rows = grid.rows();
  if (rows <= 0 || grid.Q <= 0) return;
  float* bias = w + grid.R * grid.S * round_up(grid.C, kLanes);
  for (i64 c = 0; c < round_up(grid.C, kLanes); ++c) bias[c] = f.bias && c < grid.C ? f.bias[c] : 0.0f;
  const i64 grain = smaller(kBlockPixels, larger<i64>(1, 32768 / (grid.Q * grid.C)));
  parallel_for(rows, grain, [&](i64 g0, i64 g1) {
    for (i64 g = g0; g < g1; g += grain) {
      const i64 end = smaller(g + grain, g1);
      switch (f.act) {
        case kRelu: depthwise_rows<kRelu>(grid, image, w, place, f, bias, g, end); break;
        case kLeakyRelu: depthwise_rows<kLeakyRelu>(grid, image, w, place, f, bias, g, end); break;
        case kSigmoid: depthwise_rows<kSigmoid>(grid, image, w, place, f, bias, g, end); break;
        case kTanh: depthwise_rows<kTanh>(grid, image, w, place, f, bias, g, end); break;
        case kGelu: depthwise_rows<kGelu>(grid, image, w, place, f, bias, g, end); break;
        default: depthwise_rows<kNone>(grid, image, w, place, f, bias, g, end); break;
      }
    }
  });
}

// Tap (i, j) of the grid is row last_y - i * apart_y, column last_x - j * apart_x of w[R,S,1,C].
void pack_depthwise(const float* w, i64 S, i64 C, i64 taps_y, i64 taps_x, i64 last_y, i64 last_x, i64 apart_y, i64 apart_x,
                    float* out) {
  for (i64 i = 0; i < taps_y; ++i) {
    for (i64 j = 0; j < taps_x; ++j, out += round_up(C, kLanes)) {
      const float* from = w + ((last_y - i * apart_y) * S + last_x - j * apart_x) * C;
      for (i64 c = 0; c < round_up(C, kLanes); ++c) out[c] = c < C ? from[c] : 0.0f;
    }
  }
}

// ------------------------------------------------------------------------------------- data gradient, transposed

// How the merged product would look, and whether it is the cheaper way.
struct Merge {
  bool better;
  i64 wide, columns, taps_y, taps_x, first_y, first_x, P, Q;
};

// Thin tiles load more for each product.
FASTDL_INLINE double lanes_cost(i64 columns) {
  const i64 rest = columns % kTileCols;
  const double thin = 1.25 * double(kLanes);
  return double(columns - rest) + (rest == 0 ? 0.0 : rest <= kLanes ? thin : double(kTileCols));
}
// Floor of a / b for b > 0.
FASTDL_INLINE i64 floor_of(i64 a, i64 b) { return a >= 0 ? a / b : -((-a + b - 1) / b); }

Merge merge_of(i64 Y, i64 X, i64 C, i64 R, i64 S, i64 stride_y, i64 stride_x, i64 pad_y, i64 pad_x, i64 dilation_y,
               i64 dilation_x, i64 groups) {
  Merge best = {};
  if (groups != 1 || dilation_y != 1 || dilation_x != 1 || C * stride_y * stride_x > kStripFilters || R * S == 0) return best;
  double least = double(Y) * double(X) * double(R * S) / double(stride_y * stride_x) * lanes_cost(C);
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
    const double cost = double(m.P) * double(m.Q) * double(m.taps_y * m.taps_x) * lanes_cost(m.columns);
    if (cost < 0.9 * least) {
      least = cost / 0.9;
      best = m;
      best.better = true;
    }
  }
  return best;
}

i64 backward_workspace(i64 Y, i64 X, i64 C, i64 R, i64 S, i64 F, i64 stride_y, i64 stride_x, i64 pad_y, i64 pad_x,
                       i64 dilation_y, i64 dilation_x, i64 groups) {
  if (is_depthwise(C, F, groups, R, S)) return depthwise_floats(C, R + 1, S) + kAlignSlack;
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
  const bool depthwise = is_depthwise(C, F, groups, R, S);
  for (i64 i = 0; i < stride_y; ++i) {
    const AxisClass y = axis_class(i, Y, R, stride_y, pad_y, dilation_y);
    for (i64 j = 0; j < stride_x; ++j) {
      const AxisClass x = axis_class(j, X, S, stride_x, pad_x, dilation_x);
      if (y.count == 0 || x.count == 0) continue;
      const Grid grid = {N, P, Q, F, y.count, x.count, y.taps, x.taps, 1, 1, y.step, x.step, y.origin, x.origin};
      const Placement place = {Y, X, C, 0, y.first, x.first, stride_y, stride_x, 0, 0};
      if (depthwise) {
        pack_depthwise(w, S, C, y.taps, x.taps, y.last, x.last, y.apart, x.apart, packed);
        convolve_depthwise(grid, dy, packed, place, f);
        continue;
      }
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
  if (is_depthwise(C, F, groups, R, S)) return depthwise_floats(C, R + 1, S) + kAlignSlack;
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
