// 3x3 convolutions with many channels by Winograd's F(2x2, 3x3): 16 products where the sum over taps has 36 (conv_winograd.cpp).
#pragma once
#include "conv_image.h"

namespace fastdl {

// Whether a grid times so many columns is done this way: by the shape of one sample alone.
bool winograd_pays(const Grid& grid, i64 columns);

// Floats that the transformed filters take, and the sums of a weight gradient.
i64 winograd_floats(i64 channels, i64 columns);
i64 winograd_sums(i64 channels, i64 columns);

// packed[(tap * channels + c) * kTileCols + j]: columns n .. n + kTileCols of the filters, as pack_filters has them
// -> their part of `transformed`.
void winograd_filters(const float* packed, i64 channels, i64 columns, i64 n, float* transformed);

// As convolve(), all channels of the image.
void winograd_convolve(const Grid& grid, const float* image, const float* transformed, i64 columns,
                       const Placement& place, const Finish& f);

// dw[3,3,C,columns] = beta dw + its gradient for dy on the grid's pixels. sums: winograd_sums() floats.
void winograd_weight(const Grid& grid, const float* image, const float* dy, i64 columns, float beta, float* sums,
                     float* dw);

namespace {

// All filters transformed, from a view that packs them (conv_image.h).
template <class Filters>
void winograd_transform(const Filters& filters, i64 channels, i64 columns, float* transformed) {
  parallel_for(panels_of(columns), larger<i64>(1, 16384 / (channels * kTileCols)), [&](i64 begin, i64 end) {
    float* const packed = thread_scratch(2, static_cast<size_t>(9 * channels * kTileCols + kPanelSlack));
    for (i64 i = begin; i < end; ++i) {
      const i64 n = i * kTileCols;
      filters.template pack<kTileCols>(n, smaller<i64>(kTileCols, columns - n), packed);
      winograd_filters(packed, channels, columns, n, transformed);
    }
  });
}

}  // namespace
}  // namespace fastdl
