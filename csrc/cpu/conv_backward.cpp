// Weight and bias gradient of the convolution: dw[taps C, F] = image[pixels, taps C]^T dy[pixels, F] (see conv.h).
#include "../kernels.h"
#include "column_sums.h"
#include "conv_planes.h"
#include "conv_winograd.h"

namespace fastdl {
namespace {

constexpr i64 kFewRows = kTileRows * 8;      // of dw: threads share the pixels instead
constexpr i64 kPackedRows = kTileRows * 16;  // 96 KiB of a chunk with AVX2
constexpr i64 kFarApart = 64;                // floats; beyond, a chunk's pixels do not fit in L1

// Rows m0 .. m1 of (r, s, c), columns n0 .. n1 of the group's filters, pixels from k0 to k1. Each chunk of pixels has a dw of
// its own, chunk_step floats after the one before, or all have one (0).
struct WeightTask {
  Grid grid;
  const float *image, *dy;
  i64 c0, channels, f0, F;  // F: filters of all groups
  i64 m0, m1, n0, n1, k0, k1;
  float beta;
  float* dw;
  i64 chunk_step;
};

// Where in the band the rows of a weight gradient lie, one after another.
struct TapRows {
  i64 r, s, c, S, channels, tap_y, tap_x;

  FASTDL_INLINE i64 next() {
    const i64 at = r * tap_y + s * tap_x + c;
    if (++c == channels) {
      c = 0;
      if (++s == S) {
        s = 0;
        ++r;
      }
    }
    return at;
  }
};

// Rows of a chunk as slices of kTileRows: step k of row i of slice j is out[(j * kChunk + k) * kTileRows + i]. A pixel's rows
// are copied together, most of them from the same few cache lines.
void pack_rows(TapRows& taps, i64 rows, const float* base, const ConvRun* runs, i64 run_count, i64 step, float* out) {
  i64 at[kPackedRows], joined = 0;  // whole slices whose rows follow each other, and all that is left
  for (i64 i = 0; i < rows; ++i) at[i] = taps.next();
  bool slice_joined[kPackedRows / kTileRows];
  for (i64 i = 0; i + kTileRows <= rows; i += kTileRows) {
    slice_joined[i / kTileRows] = at[i + kTileRows - 1] - at[i] == kTileRows - 1;
    joined += kTileRows;
  }
  for (const ConvRun *run = runs, *last = runs + run_count; run != last; ++run) {
    const float* from = base + run->offset;
    float* to = out + run->k * kTileRows;
    for (i64 k = run->length; k > 0; --k, from += step, to += kTileRows) {
      for (i64 i = 0; i < joined; i += kTileRows) {
        if (slice_joined[i / kTileRows]) {
          memcpy(to + i * kChunk, from + at[i], kTileRows * sizeof(float));
        } else {
          for (i64 j = 0; j < kTileRows; ++j) to[i * kChunk + j] = from[at[i + j]];
        }
      }
      for (i64 i = joined; i < rows; ++i) to[joined * kChunk + i - joined] = from[at[i]];
    }
  }
}

void weight_task(const WeightTask& w) {
  const Grid& grid = w.grid;
  const i64 K = grid.rows() * grid.Q, columns = w.n1 - w.n0;
  float* dw = w.dw;
  float* const panels = thread_scratch(1, static_cast<size_t>(kStripFilters * kChunk + kPanelSlack));
  Band band;
  ConvRun runs[kChunk + 2];
  ConvTile t = {};
  t.runs = runs;
  t.c_step = t.from_step = w.F;
  for (i64 k0 = w.k0; k0 < w.k1; k0 += kChunk, dw += w.chunk_step) {
    const i64 k1 = smaller(k0 + kChunk, K);
    const i64 g0 = k0 / grid.Q, g1 = (k1 - 1) / grid.Q + 1;
    const bool one_row = g1 - g0 == 1;
    const i64 q0 = one_row ? k0 - g0 * grid.Q : 0, q1 = one_row ? k1 - g0 * grid.Q : grid.Q;
    band.load(grid, w.image, w.c0, w.channels, g0, g1, q0, q1);
    t.step = grid.stride_x * band.pixel;
    t.run_count = 0;
    for (i64 g = g0; g < g1; ++g) {
      const i64 from = larger(k0 - g * grid.Q, q0), to = smaller(k1 - g * grid.Q, q1);
      runs[t.run_count++] = {band.start[g - g0] + (from - q0) * t.step, to - from, g * grid.Q + from - k0};
    }
    const i64 tap_x = grid.step_x * band.pixel, tap_y = grid.step_y * band.pitch;
    const TapRows first_taps = {
        w.m0 / (grid.S * w.channels), w.m0 / w.channels % grid.S, w.m0 % w.channels, grid.S, w.channels, tap_y, tap_x};
    t.beta = k0 == w.k0 || w.chunk_step ? w.beta : 1.0f;
    // Pixels far apart fall on the same few places of L1 and would be fetched anew for every panel: then rows are packed.
    if (t.step > kFarApart && columns > kTileCols && lanes_of(columns) % kTileCols == 0) {
      for (i64 n = w.n0; n < w.n1; n += kTileCols) {
        pack_copied<kTileCols>(w.dy + k0 * w.F + w.f0 + n, w.F, smaller<i64>(kTileCols, w.n1 - n), k1 - k0,
                               panels + (n - w.n0) * kChunk);
      }
      float* const slices = thread_scratch(0, static_cast<size_t>(kPackedRows * kChunk));
      const ConvRun whole = {0, k1 - k0, 0};
      TapRows taps = first_taps;
      for (i64 m = w.m0; m < w.m1; m += kPackedRows) {
        const i64 rows = smaller(kPackedRows, w.m1 - m);
        pack_rows(taps, rows, band.base, runs, t.run_count, t.step, slices);
        ConvTile p = t;
        p.runs = &whole;
        p.run_count = 1;
        p.step = kTileRows;
        p.b_step = kTileCols;
        for (i64 n = w.n0; n < w.n1; n += kTileCols) {
          p.cols = smaller<i64>(kTileCols, w.n1 - n);
          p.b = panels + (n - w.n0) * kChunk;
          for (i64 i = 0; i < rows; i += kTileRows) {
            const i64 height = smaller<i64>(kTileRows, rows - i);
            for (i64 j = 0; j < height; ++j) p.row[j] = slices + i * kChunk + j;
            p.c = dw + (m + i) * w.F + w.f0 + n;
            p.from = t.beta == 0.0f ? nullptr : p.c;
            conv_full_strided[height](p);
          }
        }
      }
      continue;
    }
    for (i64 n = w.n0; n < w.n1; n += kTileCols) {
      t.cols = smaller<i64>(kTileCols, w.n1 - n);
      const Panel panel = panel_of(t.cols);
      const float* source = w.dy + k0 * w.F + w.f0 + n;
      // Where dy is a panel already it is read as it lies; its rows may run over into the next row, not out of the array.
      if (columns <= panel.width && w.F <= panel.width && (K - k1 + 1) * w.F - w.f0 - n >= panel.width) {
        t.b = source;
        t.b_step = w.F;
      } else {
        float* out = panels + (n - w.n0) * kChunk;
        if (panel.thin) {
          pack_copied<kLanes>(source, w.F, t.cols, k1 - k0, out);
        } else {
          pack_copied<kTileCols>(source, w.F, t.cols, k1 - k0, out);
        }
        t.b = out;
        t.b_step = panel.width;
      }
      const ConvTileFunction* tile = t.step == 1 ? (panel.thin ? conv_thin_adjacent : conv_full_adjacent)
                                                 : (panel.thin ? conv_thin_strided : conv_full_strided);
      const i64 rows = w.m1 - w.m0, tiles = (rows + panel.rows - 1) / panel.rows;
      TapRows taps = first_taps;
      for (i64 i = 0, m = 0; i < tiles; ++i) {
        const i64 next = rows * (i + 1) / tiles;
        for (i64 j = 0; j < next - m; ++j) t.row[j] = band.base + taps.next();
        t.c = dw + (w.m0 + m) * w.F + w.f0 + n;
        t.from = t.beta == 0.0f ? nullptr : t.c;
        tile[next - m](t);
        m = next;
      }
    }
  }
}

// Depthwise: dw[tap, c] = sum over pixels of x dy, a channel in a lane, T taps side by side.
template <int T>
void depthwise_taps(const float* const* x, i64 x_step, const Run* runs, i64 run_count, const float* dy, i64 dy_step,
                    i64 lanes, float beta, float* dw, i64 dw_step) {
  vec sum[T] = {};
  for (i64 i = 0; i < run_count; ++i) {
    const float* from[T];
    for (int t = 0; t < T; ++t) from[t] = x[t] + runs[i].offset;
    const i64 end = runs[i].length * x_step;
    for (i64 k = 0; k < end; k += x_step, dy += dy_step) {
      const vec d = load(dy);
      for (int t = 0; t < T; ++t) sum[t] = fma(load(from[t] + k), d, sum[t]);
    }
  }
  for (int t = 0; t < T; ++t) {
    float* p = dw + t * dw_step;
    store_lanes(p, beta == 0.0f ? sum[t] : beta * load_lanes(p, lanes) + sum[t], lanes);
  }
}

constexpr int kTaps = 9;
using DepthwiseTaps = void (*)(const float* const*, i64, const Run*, i64, const float*, i64, i64, float, float*, i64);
constexpr DepthwiseTaps kDepthwiseTaps[] = {nullptr,           depthwise_taps<1>, depthwise_taps<2>, depthwise_taps<3>,
                                            depthwise_taps<4>, depthwise_taps<5>, depthwise_taps<6>, depthwise_taps<7>,
                                            depthwise_taps<8>, depthwise_taps<9>};

// Channels c0 .. c1 of C.
void depthwise_weight(const Grid& grid, const float* image, const float* dy, i64 c0, i64 c1, float beta, float* dw) {
  const i64 C = grid.C, K = grid.rows() * grid.Q, channels = c1 - c0, taps = grid.R * grid.S;
  // The last channels have no whole vector: dy is copied where reading one would leave the array.
  float* const copy = thread_scratch(1, static_cast<size_t>(kChunk * kLanes));
  Band band;
  Run runs[kChunk + 2];
  for (i64 k0 = 0; k0 < K; k0 += kChunk) {
    const i64 k1 = smaller(k0 + kChunk, K);
    const i64 g0 = k0 / grid.Q, g1 = (k1 - 1) / grid.Q + 1;
    const bool one_row = g1 - g0 == 1;
    const i64 q0 = one_row ? k0 - g0 * grid.Q : 0, q1 = one_row ? k1 - g0 * grid.Q : grid.Q;
    band.load(grid, image, c0, channels, g0, g1, q0, q1, channels % kLanes != 0);
    const i64 step = grid.stride_x * band.pixel;
    i64 run_count = 0;
    for (i64 g = g0; g < g1; ++g) {
      const i64 from = larger(k0 - g * grid.Q, q0), to = smaller(k1 - g * grid.Q, q1);
      runs[run_count++] = {band.start[g - g0] + (from - q0) * step, to - from};
    }
    for (i64 c = 0; c < channels; c += kLanes) {
      const i64 lanes = smaller<i64>(kLanes, channels - c);
      const float* d = dy + k0 * C + c0 + c;
      i64 d_step = C;
      if (lanes < kLanes) {
        for (i64 k = 0; k < k1 - k0; ++k) store(copy + k * kLanes, load_part(d + k * C, lanes));
        d = copy;
        d_step = kLanes;
      }
      for (i64 t = 0; t < taps;) {
        const float* from[kTaps];
        const i64 parts = (taps - t + kTaps - 1) / kTaps, count = (taps - t + parts - 1) / parts;
        for (i64 i = 0; i < count; ++i) {
          from[i] =
              band.base + (t + i) / grid.S * grid.step_y * band.pitch + (t + i) % grid.S * grid.step_x * band.pixel + c;
        }
        kDepthwiseTaps[count](from, step, runs, run_count, d, d_step, lanes, k0 == 0 ? beta : 1.0f, dw + t * C + c0 + c,
                              C);
        t += count;
      }
    }
  }
}

bool is_depthwise(i64 C, i64 F, i64 groups) { return groups == C && F == C && C > 1; }
bool by_planes(const Grid& grid, i64 F, i64 groups) { return groups == 1 && planes_pay(grid, grid.C, F); }
bool by_winograd(const Grid& grid, i64 F, i64 groups) { return groups == 1 && winograd_pays(grid, F); }

// dw = beta dw + the sums of `parts` parts, in their order.
void add_parts(const float* sums, i64 parts, i64 size, float beta, float* dw) {
  parallel_for(size, 256, [&](i64 begin, i64 end) {
    for (i64 part = 0; part < parts; ++part) {
      const float* const s = sums + part * size;
      const float factor = part == 0 ? beta : 1.0f;
      for (i64 i = begin; i < end; ++i) dw[i] = factor == 0.0f ? s[i] : factor * dw[i] + s[i];
    }
  });
}

}  // namespace

// A dw for each chunk of pixels, where threads share those.
i64 conv2d_backward_weight_workspace(i64 N, i64 Y, i64 X, i64 C, i64 R, i64 S, i64 F, i64 P, i64 Q, i64 stride_y,
                                     i64 stride_x, i64 pad_y, i64 pad_x, i64 dilation_y, i64 dilation_x, i64 groups) {
  const Grid grid = {N, Y, X, C, P, Q, R, S, stride_y, stride_x, dilation_y, dilation_x, -pad_y, -pad_x};
  if (by_winograd(grid, F, groups)) return winograd_sums(C, F);
  if (by_planes(grid, F, groups)) return planes_weight_groups(grid) * R * S * C * F;
  const i64 M = groups > 0 ? R * S * (C / groups) : 0, chunks = (N * P * Q + kChunk - 1) / kChunk;
  return M < kFewRows && !is_depthwise(C, F, groups) ? chunks * M * F : 0;
}

void conv2d_backward_weight(i64 N, i64 Y, i64 X, i64 C, i64 R, i64 S, i64 F, i64 P, i64 Q, const float* x,
                            const float* dy, i64 stride_y, i64 stride_x, i64 pad_y, i64 pad_x, i64 dilation_y,
                            i64 dilation_x, i64 groups, float* work, float* dw, float beta_dw, float* db, float beta_db,
                            void*) {
  const i64 K = N * P * Q;
  if (db) sum_columns(K, F, dy, beta_db, db);
  const i64 Cg = C / groups, Fg = F / groups, M = R * S * Cg;
  if (!dw || M == 0 || F == 0) return;
  if (K == 0) {
    for (i64 i = 0; i < M * F; ++i) dw[i] = beta_dw == 0.0f ? 0.0f : beta_dw * dw[i];
    return;
  }
  const Grid grid = {N, Y, X, C, P, Q, R, S, stride_y, stride_x, dilation_y, dilation_x, -pad_y, -pad_x};
  if (is_depthwise(C, F, groups)) {
    return parallel_for(C, 64, [&](i64 begin, i64 end) { depthwise_weight(grid, x, dy, begin, end, beta_dw, dw); });
  }
  if (by_winograd(grid, F, groups)) return winograd_weight(grid, x, dy, F, beta_dw, work, dw);
  if (by_planes(grid, F, groups)) {
    planes_weight(grid, x, dy, F, work);
    return add_parts(work, planes_weight_groups(grid), M * F, beta_dw, dw);
  }
  const i64 strips = (Fg + kStripFilters - 1) / kStripFilters;
  const int threads = 2.0 * double(K) * double(M) * double(F) > 2e6 ? num_threads() : 1;
  const auto task = [&](i64 g, i64 strip, i64 m0, i64 m1) {
    const i64 n0 = strip * kStripFilters;
    return WeightTask{grid, x, dy,      g * Cg, Cg, g * Fg, F, m0, m1, n0, smaller(n0 + kStripFilters, Fg),
                      0,    K, beta_dw, dw,     0};
  };
  if (threads > 1 && M < kFewRows) {
    // Too few rows to share: chunks of pixels have their sums apart, which are added in the order of the chunks.
    const i64 chunks = (K + kChunk - 1) / kChunk, size = M * F, grain = (chunks + 8 * threads - 1) / (8 * threads);
    parallel_for(chunks, grain, [&](i64 begin, i64 end) {
      for (i64 i = 0; i < groups * strips; ++i) {
        WeightTask t = task(i / strips, i % strips, 0, M);
        t.k0 = begin * kChunk;
        t.k1 = smaller(end * kChunk, K);
        t.beta = 0.0f;
        t.dw = work + begin * size;
        t.chunk_step = size;
        weight_task(t);
      }
    });
    return add_parts(work, chunks, size, beta_dw, dw);
  }
  // Each task copies its share of the image and of dy, so they should be few: as many as there are threads, or twice that.
  i64 parts = 1;
  if (threads > 1 && groups * strips < 2 * threads) {
    parts = threads * (M >= 4 * threads * kFewRows ? 2 : 1);
    parts = larger<i64>(1, smaller(parts, M / (kFewRows / 2)));
  }
  const i64 rows = (M + parts - 1) / parts, row_parts = (M + rows - 1) / rows;
  parallel_for(groups * strips * row_parts, 1, [&](i64 begin, i64 end) {
    for (i64 i = begin; i < end; ++i) {
      const i64 m0 = i % row_parts * rows;
      weight_task(task(i / (strips * row_parts), i / row_parts % strips, m0, smaller(m0 + rows, M)));
    }
  });
}

}  // namespace fastdl
