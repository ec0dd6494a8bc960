// Winograd's minimal filtering F(2x2, 3x3): a tile of 2 x 2 outputs from 4 x 4 inputs d and a filter g,
//
//   y = At [ (G g Gt) * (Bt d B) ] A        Bt = 1  0 -1  0     G = 1    0    0       At = 1  1  1  0
//                                                0  1  1  0         1/2  1/2  1/2          0  1 -1 -1
//                                                0 -1  1  0         1/2 -1/2  1/2
//                                                0  1  0 -1         0    0    1
//
// With channels and filters the 16 element-wise products are 16 matrix products, one for each place e of a tile:
//
//   sums[e][tile, f] = sum over c of inputs[e][tile, c] filters[e][c, f]
//
// A block of tiles at a time, so that inputs and sums stay in L2. Tiles hang over the right and lower edge, and read zeros
// beyond the image. An output reads no pixel that is not its own, but sees each pixel in sums with others: an infinity in
// its field gives NaN. docs/kernels/conv.md has the measurements.
//
// Source: Lavin & Gray, "Fast algorithms for convolutional neural networks" (2016).
#include "conv_winograd.h"

#include "../kernels.h"
#include "unroll.h"

namespace fastdl {
namespace {

constexpr i64 kMost = 512;             // channels and columns
constexpr i64 kPlaces = 16;            // of a tile
constexpr i64 kWorkingFloats = 98304;  // inputs and sums of a block
constexpr i64 kGradientTiles = 144;    // sums of a weight gradient are added up over so many at a time
constexpr float kNothing[kMost] = {};  // a pixel beyond the image
// Between the places: a tile is written to all of them at once, and pages apart they would meet in one set of L1.
constexpr i64 kSkew = 16;

FASTDL_INLINE i64 tiles_of(i64 pixels) { return (pixels + 1) / 2; }
FASTDL_INLINE i64 block_tiles(i64 channels, i64 columns) {
  return larger<i64>(24, kWorkingFloats / (kPlaces * (channels + columns)) / kTileRows * kTileRows);
}

// Every transform is one formula for lines, applied to the columns of a square and then to the rows of the result: at(i, j) are
// its kFrom x kFrom vectors, put(i, j, v) receives the kTo x kTo new ones.
template <int kFrom, int kTo, class Line, class At, class Put>
FASTDL_INLINE void both_ways(const Line& line, const At& at, const Put& put) {
  vec t[kFrom][kTo];  // of columns
  unrolled<kFrom>([&](auto j) FASTDL_INLINED {
    vec column[kFrom];
    unrolled<kFrom>([&](auto i) FASTDL_INLINED { column[i] = at(i, j); });
    line(column, t[j]);
  });
  unrolled<kTo>([&](auto i) FASTDL_INLINED {
    vec row[kFrom], result[kTo];
    unrolled<kFrom>([&](auto j) FASTDL_INLINED { row[j] = t[j][i]; });
    line(row, result);
    unrolled<kTo>([&](auto j) FASTDL_INLINED { put(i, j, result[j]); });
  });
}

// Bt d, At m, A dy, G g and Gt u of the formulas above.
FASTDL_INLINE void input_line(const vec (&d)[4], vec (&t)[4]) {
  t[0] = d[0] - d[2];
  t[1] = d[1] + d[2];
  t[2] = d[2] - d[1];
  t[3] = d[1] - d[3];
}
FASTDL_INLINE void sum_line(const vec (&m)[4], vec (&y)[2]) {
  y[0] = m[0] + m[1] + m[2];
  y[1] = m[1] - m[2] - m[3];
}
FASTDL_INLINE void gradient_line(const vec (&dy)[2], vec (&t)[4]) {
  t[0] = dy[0];
  t[1] = dy[0] + dy[1];
  t[2] = dy[0] - dy[1];
  t[3] = -dy[1];
}
FASTDL_INLINE void filter_line(const vec (&g)[3], vec (&u)[4]) {
  const vec outer = 0.5f * (g[0] + g[2]), inner = 0.5f * g[1];
  u[0] = g[0];
  u[1] = outer + inner;
  u[2] = outer - inner;
  u[3] = g[2];
}
FASTDL_INLINE void weight_line(const vec (&u)[4], vec (&g)[3]) {
  const vec both = 0.5f * (u[1] + u[2]);
  g[0] = u[0] + both;
  g[1] = 0.5f * (u[1] - u[2]);
  g[2] = both + u[3];
}

// Channels of a tile's 16 pixels -> out[e * step + c].
void transform_inputs(const float* const* pixel, i64 channels, i64 step, float* out) {
  for (i64 c = 0; c < channels; c += kLanes) {
    both_ways<4, 4>(
        input_line, [&](auto i, auto j) FASTDL_INLINED { return load(pixel[i * 4 + j] + c); },
        [&](auto i, auto j, vec v) FASTDL_INLINED { store(out + (i * 4 + j) * step + c, v); });
  }
}

// Pixels (top + i, left + j) of a sample of H x W x C, i < rows and j < columns; beyond it zeros.
template <int kRows, int kColumns>
FASTDL_INLINE void find_pixels(const float* sample, i64 H, i64 W, i64 C, i64 top, i64 left, const float** pixel) {
  for (i64 i = 0; i < kRows; ++i) {
    for (i64 j = 0; j < kColumns; ++j) {
      const i64 y = top + i, x = left + j;
      const bool there = y >= 0 && y < H && x >= 0 && x < W;
      pixel[i * kColumns + j] = there ? sample + (y * W + x) * C : kNothing;
    }
  }
}

// sums[e * step + n] of a tile -> out[(pixel row * 2 + pixel column) * width + n].
void transform_sums(const float* sums, i64 step, i64 columns, float* out, i64 width) {
  for (i64 n = 0; n < columns; n += kLanes) {
    both_ways<4, 2>(
        sum_line, [&](auto i, auto j) FASTDL_INLINED { return load(sums + (i * 4 + j) * step + n); },
        [&](auto i, auto j, vec v) FASTDL_INLINED { store(out + (i * 2 + j) * width + n, v); });
  }
}

// A dy At of a tile's 4 pixels -> out[e * step + n].
void transform_gradients(const float* const* pixel, i64 columns, i64 step, float* out) {
  for (i64 n = 0; n < columns; n += kLanes) {
    both_ways<2, 4>(
        gradient_line, [&](auto i, auto j) FASTDL_INLINED { return load(pixel[i * 2 + j] + n); },
        [&](auto i, auto j, vec v) FASTDL_INLINED { store(out + (i * 4 + j) * step + n, v); });
  }
}

// sums[e * step + i] -> dw[tap * size + i] = beta dw + Gt sums G, tap < 9.
void transform_weights(const float* sums, i64 step, i64 begin, i64 end, float beta, float* dw, i64 size) {
  for (i64 k = begin; k < end; k += kLanes) {
    both_ways<4, 3>(
        weight_line, [&](auto i, auto j) FASTDL_INLINED { return load(sums + (i * 4 + j) * step + k); },
        [&](auto r, auto s, vec v) FASTDL_INLINED {
          float* const to = dw + (r * 3 + s) * size + k;
          store(to, beta == 0.0f ? v : beta * load(to) + v);
        });
  }
}

}  // namespace

bool winograd_pays(const Grid& grid, i64 columns) {
  const bool plain =
      grid.R == 3 && grid.S == 3 && grid.stride_y == 1 && grid.stride_x == 1 && grid.step_y == 1 && grid.step_x == 1;
  const i64 tiles = tiles_of(grid.P) * tiles_of(grid.Q);
  const i64 filters = grid.C * columns;  // transformed once a call, worth their while with enough tiles
  return plain && grid.C % 16 == 0 && columns % 16 == 0 && filters >= 512 && grid.C <= kMost && columns <= kMost &&
         tiles >= larger<i64>(4, filters / 8192) && 24 * tiles < 9 * grid.P * grid.Q;
}

i64 winograd_floats(i64 channels, i64 columns) { return kPlaces * (panel_floats(channels, columns) + kSkew); }
i64 winograd_sums(i64 channels, i64 columns) { return kPlaces * (channels * columns + kSkew); }

void winograd_filters(const float* packed, i64 channels, i64 columns, i64 n, float* transformed) {
  const i64 step = panel_floats(channels, columns) + kSkew, tap = channels * kTileCols;
  float* const out = transformed + n * channels;
  for (i64 k = 0; k < tap; k += kLanes) {
    both_ways<3, 4>(
        filter_line, [&](auto r, auto s) FASTDL_INLINED { return load(packed + (r * 3 + s) * tap + k); },
        [&](auto i, auto j, vec v) FASTDL_INLINED { store(out + (i * 4 + j) * step + k, v); });
  }
}

void winograd_convolve(const Grid& grid, const float* image, const float* transformed, i64 columns,
                       const Placement& place, const Finish& f) {
  const i64 down = tiles_of(grid.P), across = tiles_of(grid.Q), tiles = grid.N * down * across, C = grid.C;
  if (tiles == 0) return;
  const i64 block = even_part(tiles, block_tiles(C, columns), kTileRows),
            filter_step = panel_floats(C, columns) + kSkew;
  const i64 input_step = block * C + kSkew, sum_step = block * columns + kSkew;
  parallel_for(tiles, block, [&](i64 begin, i64 end) {
    float* const inputs = thread_scratch(2, static_cast<size_t>(kPlaces * (input_step + sum_step)));
    float* const sums = inputs + kPlaces * input_step;
    for (i64 t0 = begin; t0 < end; t0 += block) {
      const i64 t1 = smaller(t0 + block, end), count = t1 - t0;
      for (i64 t = t0; t < t1; ++t) {
        const float* pixel[kPlaces];
        find_pixels<4, 4>(image + t / (across * down) * grid.H * grid.W * C, grid.H, grid.W, C,
                          grid.first_y + t / across % down * 2, grid.first_x + t % across * 2, pixel);
        transform_inputs(pixel, C, input_step, inputs + (t - t0) * C);
      }
      for (i64 e = 0; e < kPlaces; ++e) {
        gemm_panels(count, columns, C, inputs + e * input_step, C, transformed + e * filter_step, 0.0f,
                    sums + e * sum_step, columns);
      }
      for (i64 n = 0; n < columns; n += kStripFilters) {
        const i64 some = smaller(columns - n, kStripFilters);
        float bias[kStripFilters + 2 * kLanes], out[4 * kStripFilters];
        gather_bias(place, f, n, some, bias);
        for (i64 t = t0; t < t1; ++t) {
          const i64 p = t / across % down * 2, q = t % across * 2, g = t / (across * down) * grid.P + p;
          transform_sums(sums + (t - t0) * columns + n, sum_step, some, out, some);
          const i64 q1 = smaller(q + 2, grid.Q);
          finish_pixels(grid, place, f, out, some, n, some, bias, g, g + 1, q, q1);
          if (p + 1 < grid.P) finish_pixels(grid, place, f, out + 2 * some, some, n, some, bias, g + 1, g + 2, q, q1);
        }
      }
    }
  });
}

// The gradient by the filters of the same formula: dw = Gt [sum over tiles of (Bt d B) * (A dy At)] G.
void winograd_weight(const Grid& grid, const float* image, const float* dy, i64 columns, float beta, float* sums,
                     float* dw) {
  const i64 down = tiles_of(grid.P), across = tiles_of(grid.Q), tiles = grid.N * down * across, C = grid.C;
  const i64 input_step = kGradientTiles * C + kSkew, gradient_step = kGradientTiles * columns + kSkew;
  const i64 size = C * columns, sum_step = size + kSkew;
  float* const inputs = thread_scratch(2, static_cast<size_t>(kPlaces * (input_step + gradient_step)));
  float* const gradients = inputs + kPlaces * input_step;
  for (i64 t0 = 0; t0 < tiles; t0 += kGradientTiles) {
    const i64 count = smaller(tiles - t0, kGradientTiles);
    parallel_for(count, 8, [&](i64 begin, i64 end) {
      for (i64 i = begin; i < end; ++i) {
        const i64 n = (t0 + i) / (across * down), p = (t0 + i) / across % down * 2, q = (t0 + i) % across * 2;
        const float* pixel[kPlaces];
        find_pixels<4, 4>(image + n * grid.H * grid.W * C, grid.H, grid.W, C, grid.first_y + p, grid.first_x + q,
                          pixel);
        transform_inputs(pixel, C, input_step, inputs + i * C);
        find_pixels<2, 2>(dy + n * grid.P * grid.Q * columns, grid.P, grid.Q, columns, p, q, pixel);
        transform_gradients(pixel, columns, gradient_step, gradients + i * columns);
      }
    });
    parallel_for(kPlaces, 1, [&](i64 begin, i64 end) {
      for (i64 e = begin; e < end; ++e) {
        gemm_strided(C, columns, count, inputs + e * input_step, C, 1, gradients + e * gradient_step, columns, 0,
                     t0 == 0 ? 0.0f : 1.0f, sums + e * sum_step, columns);
      }
    });
  }
  parallel_for(size, 4096, [&](i64 begin, i64 end) { transform_weights(sums, sum_step, begin, end, beta, dw, size); });
}

}  // namespace fastdl
