// A grid times packed filters, block by block (conv.h): the sums, and what becomes of them on the way to the output.
// docs/kernels/conv.md has the derivations and the measurements.
#include "conv_image.h"

#include "../kernels.h"
#include "conv_planes.h"

namespace fastdl {
namespace {

constexpr i64 kShortRun = 64, kShortestRun = 16;

// -------------------------------------------------------------------------------------------------------- blocks

// Pixels of a block: `rows` rows of `columns` pixels; start[m] is where tap (0, 0) of pixel m lies in the band.
struct Pixels {
  i64 rows, columns;
  i64 start[kBlockPixels];
};

// The tile that adds the last chunk may write the output itself: its stores then hide behind the next tile's sums.
struct Direct {
  float* out;  // of the block's first pixel, or null
  i64 step;
};

// Columns of some panels, for all pixels -> sums[pixel * width + column].
void block_sums(const Grid& grid, const Band& band, i64 channels, const Pixels& pixels, const float* packed,
                i64 columns, i64 width, float* sums, const Direct& direct, const Finish& finish, const float* bias) {
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
  ConvRun runs[kChunk];
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
      runs[t.run_count++] = {r * grid.step_y * band.pitch + s * grid.step_x * band.pixel + inside, length, k - k0};
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
        for (i64 j = 0; j < tiles; j += t.count) {
          const i64 rows = j < more ? least + 1 : least;  // alike, as a tile of few rows takes longer than its share
          t.count = 1;
          if (uniform) {
            t.row[0] = band.base + start[0];
            t.count = (j < more ? more : tiles) - j;
          } else {
            for (i64 r = 0; r < rows; ++r) t.row[r] = band.base + start[r];
          }
          // Vectors that hang over a pixel's end spill into the next pixel, which is written after; not so the last ones.
          const auto hangs = [&] { return out && (left - t.count * rows) * direct.step < panel.width; };
          while (t.count > 1 && hangs()) --t.count;
          if (hangs()) t.cols = smaller<i64>(panel.width, columns - n);
          tile[rows](t);
          const i64 done = t.count * rows;
          left -= done;
          start += done;
          t.c += done * t.c_step;
          if (t.from) t.from += done * width;
        }
      }
    }
  }
}

// Long runs repay taking the pixels of a block class by class: those of a class meet the same part of the filter, and taps that
// would meet the padding are left out. The image is then read where it lies.

constexpr i64 kClasses = 64, kClassRuns = kChunk / kShortestRun + 2;

// Taps from .. to - 1 of an axis meet the image.
struct Reach {
  i64 from, to;
  bool operator==(const Reach& o) const { return from == o.from && to == o.to; }
};
FASTDL_INLINE Reach reach_of(i64 first, i64 step, i64 taps, i64 size) {
  Reach a = {0, taps};
  while (a.from < taps && first + a.from * step < 0) ++a.from;
  while (a.to > a.from && first + (a.to - 1) * step >= size) --a.to;
  if (a.from == a.to) a = {0, 0};
  return a;
}

// How many different reaches an axis has.
i64 reaches(i64 count, i64 first, i64 stride, i64 step, i64 taps, i64 size) {
  i64 n = 1;
  Reach before = reach_of(first, step, taps, size);
  for (i64 i = 1; i < count; ++i) {
    const Reach now = reach_of(first + i * stride, step, taps, size);
    n += !(now == before);
    before = now;
  }
  return n;
}

struct Classes {
  struct Class {
    Reach y, x;
    i64 end;  // its pixels are order[previous end .. end)
  };
  i64 count = 0;
  Class at[kClasses];
  i64 order[kBlockPixels];  // pixels of the block
  i64 start[kBlockPixels];  // where in the image tap (0, 0) of order[i] lies

  void find(const Grid& grid, i64 g0, i64 g1, i64 q0, i64 q1) {
    i64 row_class[kBlockPixels], rows = 0;
    Reach row_reach[kClasses];
    for (i64 g = g0; g < g1; ++g) {
      const Reach y = reach_of(grid.first_y + g % grid.P * grid.stride_y, grid.step_y, grid.R, grid.H);
      i64 c = 0;
      while (c < rows && !(row_reach[c] == y)) ++c;
      if (c == rows) row_reach[rows++] = y;
      row_class[g - g0] = c;
    }
    count = 0;
    i64 n = 0;
    for (i64 c = 0; c < rows; ++c) {
      for (i64 q = q0, end; q < q1; q = end) {
        const Reach x = reach_of(grid.first_x + q * grid.stride_x, grid.step_x, grid.S, grid.W);
        end = q + 1;
        while (end < q1 && reach_of(grid.first_x + end * grid.stride_x, grid.step_x, grid.S, grid.W) == x) ++end;
        for (i64 g = g0; g < g1; ++g) {
          if (row_class[g - g0] != c) continue;
          const i64 y = g / grid.P * grid.H + grid.first_y + g % grid.P * grid.stride_y;
          for (i64 i = q; i < end; ++i) {
            order[n] = (g - g0) * (q1 - q0) + i - q0;
            start[n++] = (y * grid.W + grid.first_x + i * grid.stride_x) * grid.C;
          }
        }
        at[count++] = {row_reach[c], x, n};
      }
    }
  }
};

// As block_sums, for an image read where it lies: `image` begins at the first of `channels`.
void class_sums(const Grid& grid, const Classes& classes, const float* image, i64 channels, const float* packed,
                i64 columns, i64 width, float* sums, const Direct& direct, const Finish& finish, const float* bias) {
  const i64 K = grid.R * grid.S * channels, pixel = grid.C, pitch = grid.W * grid.C;
  const bool joined = pixel == channels && grid.step_x == 1;
  ConvRun runs[kClasses][kClassRuns];
  i64 run_count[kClasses];
  const bool in_order = classes.count == 1;  // then pixels follow each other
  ConvTile t = {};
  t.from_step = width;
  t.beta = 1.0f;
  t.slope = finish.slope;
  for (i64 k0 = 0; k0 < K; k0 += kChunk) {
    const i64 k1 = smaller(k0 + kChunk, K);
    for (i64 i = 0; i < classes.count; ++i) {
      const Classes::Class& c = classes.at[i];
      // In runs of a whole filter row, or of one tap's channels; offsets begin at the first tap that the class meets.
      const i64 steps = joined ? 1 : grid.S, unit = K / (grid.R * steps);
      const i64 first = c.y.from * grid.step_y * pitch + c.x.from * grid.step_x * pixel;
      i64 n = 0;
      for (i64 r = larger(c.y.from, k0 / (unit * steps)); r < c.y.to && r * unit * steps < k1; ++r) {
        for (i64 s = joined ? 0 : c.x.from; s < (joined ? 1 : c.x.to); ++s) {
          const i64 begin = (r * steps + s) * unit;
          const i64 from = larger(k0, begin + (joined ? c.x.from * channels : 0));
          const i64 to = smaller(k1, begin + (joined ? c.x.to * channels : unit));
          if (from >= to) continue;
          runs[i][n++] = {r * grid.step_y * pitch + s * grid.step_x * pixel + from - begin - first, to - from,
                          from - k0};
        }
      }
      run_count[i] = n;
    }
    const bool out = direct.out && k1 == K;
    t.act = out ? finish.act : kNone;
    t.c_step = out ? direct.step : width;
    for (i64 n = 0; n < columns; n += kTileCols) {
      const Panel panel = panel_of(smaller<i64>(kTileCols, columns - n));
      const ConvTileFunction* tile = in_order ? (panel.thin ? conv_thin_adjacent : conv_full_adjacent)
                                              : (panel.thin ? conv_thin_scattered : conv_full_scattered);
      t.cols = out ? smaller<i64>(panel.width, columns - n) : panel.width;
      t.b = packed + n / kTileCols * panel_floats(K) + k0 * panel.width;
      t.b_step = panel.width;
      t.bias = out ? bias + n : nullptr;
      t.c = (out ? direct.out : sums) + n;
      t.from = k0 == 0 ? nullptr : sums + n;
      for (i64 i = 0, m = 0; i < classes.count; ++i) {
        const Classes::Class& c = classes.at[i];
        const float* const base = image + (c.y.from * grid.step_y * pitch + c.x.from * grid.step_x * pixel);
        t.runs = runs[i];
        t.run_count = run_count[i];
        const i64 count = c.end - m, tiles = (count + panel.rows - 1) / panel.rows, least = count / tiles;
        for (i64 j = 0, more = count % tiles; j < tiles; ++j) {
          const i64 rows = j < more ? least + 1 : least;
          for (i64 r = 0; r < rows; ++r) t.row[r] = base + classes.start[m + r];
          if (!in_order) memcpy(t.place, classes.order + m, static_cast<size_t>(rows) * sizeof(i64));
          tile[rows](t);
          m += rows;
          if (in_order) {
            t.c += rows * t.c_step;
            if (t.from) t.from += rows * width;
          }
        }
      }
    }
  }
}

// Pixels that follow each other in the output, V vectors each: out[m * columns + j]. Vectors spill into the next pixel,
// which is written after.
template <int kAct, int V>
void finish_adjacent(const float* sums, i64 width, i64 pixels, i64 columns, const float* bias, float slope,
                     float* out) {
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

template <int kAct>
void finish_as(const Grid& grid, const Placement& place, const Finish& f, const float* sums, i64 width, i64 n,
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

}  // namespace

void finish_pixels(const Grid& grid, const Placement& place, const Finish& f, const float* sums, i64 width, i64 n,
                   i64 columns, const float* bias, i64 g0, i64 g1, i64 q0, i64 q1) {
  if (place.taps) return finish_runs(grid, place, f, sums, width, columns, g0, g1);
  switch (f.act) {
    case kRelu: return finish_as<kRelu>(grid, place, f, sums, width, n, columns, bias, g0, g1, q0, q1);
    case kLeakyRelu: return finish_as<kLeakyRelu>(grid, place, f, sums, width, n, columns, bias, g0, g1, q0, q1);
    case kSigmoid: return finish_as<kSigmoid>(grid, place, f, sums, width, n, columns, bias, g0, g1, q0, q1);
    case kTanh: return finish_as<kTanh>(grid, place, f, sums, width, n, columns, bias, g0, g1, q0, q1);
    case kGelu: return finish_as<kGelu>(grid, place, f, sums, width, n, columns, bias, g0, g1, q0, q1);
    default: return finish_as<kNone>(grid, place, f, sums, width, n, columns, bias, g0, g1, q0, q1);
  }
}

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
  const bool adjacent = !place.merged_y && !place.taps && place.step_y == 1 && place.step_x == 1 && grid.P == place.Y &&
                        grid.Q == place.X;
  const bool simple = !f.z && f.beta == 0.0f && (f.act == kNone || f.act == kRelu || f.act == kLeakyRelu);
  const bool fits = columns % kTileCols == 0 || (columns % kTileCols == kLanes && lanes_of(columns) == columns) ||
                    (columns == place.C && columns <= kTileCols);
  // Rows of dx are finished from sums of taps in scratch that planes use as well.
  if (!place.taps && planes_pay(grid, channels, columns)) {
    return convolve_planes(grid, image, c0, channels, packed, columns, place, f,
                           adjacent && simple && columns == place.C);
  }
  const bool can_direct = adjacent && simple && fits && K > 0;
  const i64 run_floats = channels == grid.C && grid.step_x == 1 ? grid.S * channels : channels;
  const bool in_place = K > 0 && run_floats >= (place.taps ? kShortestRun : kShortRun) &&
                        reaches(grid.P, grid.first_y, grid.stride_y, grid.step_y, grid.R, grid.H) *
                                reaches(grid.Q, grid.first_x, grid.stride_x, grid.step_x, grid.S, grid.W) <=
                            kClasses;
  parallel_for(row_blocks * column_blocks * strips, grain, [&](i64 begin, i64 end) {
    Band band;
    Pixels pixels;
    Classes classes;
    i64 loaded = -1;
    for (i64 i = begin; i < end; ++i) {
      const i64 part = i / strips, n = i % strips * kStripFilters;
      const i64 g0 = part / column_blocks * block_rows, g1 = smaller(g0 + block_rows, rows);
      const i64 q0 = part % column_blocks * kBlockPixels, q1 = smaller(q0 + kBlockPixels, grid.Q);
      pixels.rows = g1 - g0;
      pixels.columns = q1 - q0;
      if (part != loaded && in_place) {
        classes.find(grid, g0, g1, q0, q1);
        loaded = part;
      } else if (part != loaded && K > 0) {
        band.load(grid, image, c0, channels, g0, g1, q0, q1);
        i64 m = 0;
        for (i64 g = g0; g < g1; ++g) {
          const i64 step = grid.stride_x * band.pixel;
          for (i64 q = q0, at = band.start[g - g0]; q < q1; ++q, at += step) pixels.start[m++] = at;
        }
        loaded = part;
      }
      const i64 some = smaller(columns - n, kStripFilters), width = lanes_of(some);
      float* sums = thread_scratch(0, static_cast<size_t>(kBlockPixels * width + kPanelSlack));
      float bias[kStripFilters + 2 * kLanes];
      gather_bias(place, f, n, some, bias);
      Direct direct = {nullptr, place.C};
      if (can_direct) direct.out = f.out + (g0 * place.X + q0) * place.C + place.c0 + n;
      const float* panels = packed + n / kTileCols * panel_floats(K);
      if (in_place) {
        class_sums(grid, classes, image + c0, channels, panels, some, width, sums, direct, f, bias);
      } else {
        block_sums(grid, band, channels, pixels, panels, some, width, sums, direct, f, bias);
      }
      if (!can_direct) finish_pixels(grid, place, f, sums, width, n, some, bias, g0, g1, q0, q1);
    }
  });
}

}  // namespace fastdl
