// Convolution with few filters, lanes along pixels (conv_planes.cpp).
#pragma once
#include "conv_image.h"

namespace fastdl {

// Whether it is the faster way.
bool planes_pay(const Grid& grid, i64 channels, i64 columns);

// As convolve(). `direct`: output pixels are whole and adjacent, and nothing follows but a bias and perhaps a rectifier.
void convolve_planes(const Grid& grid, const float* image, i64 c0, i64 channels, const float* packed, i64 columns,
                     const Placement& place, const Finish& f, bool direct);

// The weight gradient of one group of channels: sums[i] receives that of the i-th group of output rows, [R,S,C,F]; how many there are
// depends on the sizes alone. Zeros are multiplied between the rows: an infinity in the image may give NaN for taps that do not meet it.
i64 planes_weight_groups(const Grid& grid);
void planes_weight(const Grid& grid, const float* image, const float* dy, i64 F, float* sums);

}  // namespace fastdl
