// What the convolution kernels share. A convolution is the product of gemm.h with an image as one operand, and no column
// matrix is ever made: element (pixel m, tap k) of the image lies at start(m) + offset(k), so a tile reads it through
// one pointer for each of its rows and a list of runs for k.
//
//   forward          c[pixels, F] = image[pixels, taps C] filters[taps C, F]     rows of a tile: pixels, k along taps
//   weight gradient  c[taps C, F] = image[pixels, taps C]^T dy[pixels, F]        rows of a tile: taps,   k along pixels
//
//        one chunk of k (256)                      a block: up to 256 pixels of the output grid, whole rows of it
//      +---------------------+  +-----------+      where they fit. Its part of the image is copied once, with the
//   6  | pixel m             |  | 16 filters|      zeros of the padding, into a band in scratch slot 2 (or read where
//      |  run r=0 | run r=1..|  |           |      it lies if no tap leaves the image), its sums stay in slot 0 till
//      |  S C adjacent floats|  |  packed   |      all chunks are added, then bias, activation and beta are applied
//      +---------------------+  +-----------+      on the way to the output.
//
// Sums run in the order of gemm.h: along (r, s, c), or along pixels, in chunks of 256.
#pragma once
#include "gemm.h"

namespace fastdl {
namespace {

constexpr int kThinRows = 8;  // rows of a tile one vector wide: as many sums as hide the latency of fma
constexpr i64 kBlockPixels = 256;
constexpr i64 kStripFilters = 128 / kTileCols * kTileCols;
constexpr i64 kPanelSlack = 16;  // packing writes up to a vector past the end

template <class T>
FASTDL_INLINE constexpr T larger(T a, T b) {
  return a > b ? a : b;
}
FASTDL_INLINE constexpr i64 round_up(i64 n, i64 to) { return (n + to - 1) / to * to; }

}  // namespace

// The grid of output pixels laid over an image: pixel (p, q) under tap (r, s) reads image pixel
// (first_y + p stride_y + r step_y, first_x + q stride_x + s step_x); outside the image lie zeros.
struct Grid {
  i64 N, H, W, C;  // the image
  i64 P, Q, R, S;
  i64 stride_y, stride_x, step_y, step_x, first_y, first_x;

  FASTDL_INLINE i64 rows() const { return N * P; }
  FASTDL_INLINE bool inside() const {
    return first_y >= 0 && first_x >= 0 && first_y + (P - 1) * stride_y + (R - 1) * step_y < H &&
           first_x + (Q - 1) * stride_x + (S - 1) * step_x < W;
  }
};

namespace {

// Channels c0 .. c0 + channels of the image pixels that some output pixels read.
struct Band {
  const float* base = nullptr;
  i64 pixel = 0, pitch = 0;     // floats from one image pixel, one image row, to the next
  i64 start[kBlockPixels + 2];  // of tap (0, 0) of the first pixel of each output row

  // Output rows g0 .. g1 (counted through all samples), columns q0 .. q1. A band that may be read a vector past its end
  // is always copied.
  void load(const Grid& grid, const float* image, i64 c0, i64 channels, i64 g0, i64 g1, i64 q0, i64 q1,
            bool past_end = false) {
    const i64 left = grid.first_x + q0 * grid.stride_x;
    if (grid.inside() && channels == grid.C && !past_end) {
      base = image;
      pixel = grid.C;
      pitch = grid.W * grid.C;
      for (i64 g = g0; g < g1; ++g) {
        const i64 y = g / grid.P * grid.H + grid.first_y + g % grid.P * grid.stride_y;
        start[g - g0] = (y * grid.W + left) * grid.C;
      }
      return;
    }
    const i64 width = (q1 - q0 - 1) * grid.stride_x + (grid.S - 1) * grid.step_x + 1;
    const i64 reach = (grid.R - 1) * grid.step_y + 1;
    const i64 parts = smaller(g1 - g0, (g1 - g0) / grid.P + 2);
    pixel = channels;
    pitch = width * channels;
    const i64 most_rows = (g1 - g0) * grid.stride_y + parts * reach;
    float* const scratch = thread_scratch(2, static_cast<size_t>(most_rows * pitch + kPanelSlack));
    float* out = scratch;
    for (i64 g = g0; g < g1;) {
      const i64 n = g / grid.P, p0 = g % grid.P, p1 = smaller(grid.P, p0 + g1 - g);
      for (i64 p = p0; p < p1; ++p) start[g++ - g0] = out - scratch + (p - p0) * grid.stride_y * pitch;
      const i64 height = (p1 - 1 - p0) * grid.stride_y + reach;
      for (i64 h = 0; h < height; ++h, out += pitch) {
        const i64 y = p0 * grid.stride_y + grid.first_y + h;
        if (y < 0 || y >= grid.H) {
          memset(out, 0, static_cast<size_t>(pitch) * sizeof(float));
        } else {
          copy_row(image + (n * grid.H + y) * grid.W * grid.C + c0, grid.W, grid.C, left, width, channels, out);
        }
      }
    }
    base = scratch;
  }

 private:
  static void copy_row(const float* row, i64 W, i64 C, i64 left, i64 width, i64 channels, float* out) {
    const i64 x0 = smaller(larger<i64>(left, 0), W), x1 = larger(x0, smaller(left + width, W));
    const i64 before = smaller(x0 - left, width);
    memset(out, 0, static_cast<size_t>(larger<i64>(before, 0) * channels) * sizeof(float));
    if (left >= W) {
      memset(out, 0, static_cast<size_t>(width * channels) * sizeof(float));
      return;
    }
    float* at = out + before * channels;
    if (channels == C) {
      memcpy(at, row + x0 * C, static_cast<size_t>((x1 - x0) * C) * sizeof(float));
    } else {
      for (i64 x = x0; x < x1; ++x) {
        for (i64 c = 0; c < channels; ++c) at[(x - x0) * channels + c] = row[x * C + c];
      }
    }
    const i64 done = before + x1 - x0;
    memset(out + done * channels, 0, static_cast<size_t>((width - done) * channels) * sizeof(float));
  }
};

// ------------------------------------------------------------------------------------------------------- tiles

}  // namespace

// Steps k .. k + length - 1 of a chunk lie at row(r) + offset. Steps that no run holds are zeros of the padding.
struct ConvRun {
  i64 offset, length, k;
};

// A tile whose element (row r, step k of a run) is
//   adjacent   row[r][run.offset + k]
//   scattered  the same, and row r of c is place[r] * c_step from c (and so for from)
//   strided    row[r][run.offset + k * step]
//   uniform    row[0][run.offset + k + r * step]: fewer pointers, for short runs; `count` tiles that follow each other
struct ConvTile {
  const float* row[16];
  i64 place[16];
  i64 step;
  const ConvRun* runs;
  i64 run_count;
  i64 count;
  const float* b;  // vector v of step k is at b + k * b_step + v * kLanes
  i64 b_step;
  // c = act(beta from + sums + bias). from and bias may be null; act is kNone, kRelu or kLeakyRelu.
  const float* from;
  i64 from_step;
  const float* bias;
  float* c;
  i64 c_step, cols;
  float beta, slope;
  int act;
};

using ConvTileFunction = void (*)(const ConvTile&);

// By number of rows (conv_tiles.cpp).
extern const ConvTileFunction conv_full_adjacent[], conv_full_scattered[], conv_full_strided[], conv_full_uniform[],
    conv_thin_adjacent[], conv_thin_scattered[], conv_thin_strided[], conv_thin_uniform[];

namespace {

// Panels of few columns are one vector wide, and their tiles taller.
struct Panel {
  bool thin;
  int width, rows;
};
FASTDL_INLINE Panel panel_of(i64 cols) {
  return cols <= kLanes ? Panel{true, kLanes, kThinRows} : Panel{false, kTileCols, kTileRows};
}

// Columns that the panels of so many columns compute.
FASTDL_INLINE i64 lanes_of(i64 columns) {
  const i64 rest = columns % kTileCols;
  return columns - rest + (rest == 0 ? 0 : rest <= kLanes ? kLanes : kTileCols);
}

}  // namespace
}  // namespace fastdl
