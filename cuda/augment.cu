// Image augmentation: an affine map and a displacement field in one bilinear pass (a thread an output pixel), and the
// Gaussian blur that makes a smooth (elastic) field out of noise (a thread an element, columns first, then rows).
//
//   output pixel (p, q)                               source image                 a,b: pixels of row y0 at x0, x0 + 1
//   (sy, sx) = M (p, q, 1) + field[p, q]   --->   a----b   top    = a + fx (b - a)
//   y0 = floor(sy), fy = sy - y0                  |  . |   bottom = c + fx (d - c)
//   x0 = floor(sx), fx = sx - x0                  c----d   result = top + fy (bottom - top)
//
// Only plain multiplies and adds, no fma, in the order of the CPU's kernels: the same bits.
#include "loops.cuh"

namespace fastdl {
namespace {

constexpr int kMaxRadius = 255;  // of blur

__device__ __forceinline__ float floor_of(float v, int32_t* whole) {
  const int32_t toward_zero = static_cast<int32_t>(v);
  *whole = toward_zero - (static_cast<float>(toward_zero) > v ? 1 : 0);
  return static_cast<float>(*whole);
}

// Limits a coordinate to [-2, size + 1], so that it converts to an integer and, outside, stays outside by a full pixel.
// NaN becomes -2; the caller puts NaN back into the result.
__device__ __forceinline__ float limit(float v, i64 size) {
  const float high = static_cast<float>(size) + 1.0f;
  v = v > -2.0f ? v : -2.0f;
  return v < high ? v : high;
}

// a + f (b - a), where a pixel of weight zero has no say, not even if it is infinite or NaN.
__device__ __forceinline__ float mix(float a, float b, float f) { return f == 0.0f ? a : a + f * (b - a); }

__device__ __forceinline__ float pixel(const float* x, float) { return *x; }
__device__ __forceinline__ float pixel(const uint8_t* x, float scale) { return static_cast<float>(*x) * scale; }

template <class T>
__global__ void warp_kernel(i64 N, i64 Y, i64 X, i64 C, i64 P, i64 Q, const T* images, const float* matrix,
                            const float* field, float fill, float scale, float* y) {
  for_rows(N * P, Q, [=](i64 row, i64 q) {
    const i64 n = row / P;
    const float* m = matrix + n * 6;
    const T* x = images + n * Y * X * C;
    const float p = static_cast<float>(row % P), column = static_cast<float>(q);
    float sy = (m[0] * p + m[2]) + m[1] * column;
    float sx = (m[3] * p + m[5]) + m[4] * column;
    if (field != nullptr) {
      sy += field[2 * (row * Q + q)];
      sx += field[2 * (row * Q + q) + 1];
    }
    const bool unknown = sy != sy || sx != sx;
    sy = limit(sy, Y);
    sx = limit(sx, X);
    int32_t y0, x0;
    const float fy = sy - floor_of(sy, &y0);
    const float fx = sx - floor_of(sx, &x0);
    const bool top = y0 >= 0 && y0 < Y, bottom = y0 >= -1 && y0 < Y - 1;
    const bool left = x0 >= 0 && x0 < X, right = x0 >= -1 && x0 < X - 1;
    const i64 at = (static_cast<i64>(y0) * X + x0) * C;
    for (i64 c = 0; c < C; ++c) {
      const float corner0 = top && left ? pixel(x + (at + c), scale) : fill;
      const float corner1 = top && right ? pixel(x + (at + c + C), scale) : fill;
      const float corner2 = bottom && left ? pixel(x + (at + c + X * C), scale) : fill;
      const float corner3 = bottom && right ? pixel(x + (at + c + (X + 1) * C), scale) : fill;
      const float r = mix(mix(corner0, corner1, fx), mix(corner2, corner3, fx), fy);
      y[(row * Q + q) * C + c] = unknown ? __builtin_nanf("") : r;
    }
  });
}

// The index that one outside stands for: ... b a | a b c ... z | z y ..., for any distance.
__device__ __forceinline__ i64 reflect(i64 i, i64 size) {
  if (i >= 0 && i < size) return i;
  const i64 period = 2 * size;
  i %= period;
  if (i < 0) i += period;
  return i < size ? i : period - 1 - i;
}

struct BlurWeights {
  float w[kMaxRadius + 1];
};

// y = sum over k of weight[|k|] x[i + k], i the second of [outer, size, inner].
__global__ void blur_kernel(i64 outer, i64 size, i64 inner, const float* x, BlurWeights weight, int radius, float* y) {
  // By reference: a copy of the weights would live in local memory.
  for_rows(outer, size * inner, [&](i64 o, i64 column) {
    const i64 i = column / inner;
    const float* line = x + o * size * inner + column % inner;
    float sum = weight.w[0] * line[i * inner];
    for (int k = 1; k <= radius; ++k)
      sum += weight.w[k] * (line[reflect(i - k, size) * inner] + line[reflect(i + k, size) * inner]);
    y[o * size * inner + column] = sum;
  });
}

}  // namespace

void warp(i64 N, i64 Y, i64 X, i64 C, i64 P, i64 Q, const float* x, const float* matrix, const float* field, float fill,
          float* y, void* stream) {
  const RowGrid g(N * P, Q);
  launch(warp_kernel<float>, g.grid, g.block, 0, stream, N, Y, X, C, P, Q, x, matrix, field, fill, 1.0f, y);
}

void warp_u8(i64 N, i64 Y, i64 X, i64 C, i64 P, i64 Q, const uint8_t* x, const float* matrix, const float* field, float fill,
             float scale, float* y, void* stream) {
  const RowGrid g(N * P, Q);
  launch(warp_kernel<uint8_t>, g.grid, g.block, 0, stream, N, Y, X, C, P, Q, x, matrix, field, fill, scale, y);
}

i64 blur_workspace(i64 N, i64 Y, i64 X, i64 C) { return N * Y * X * C; }

void blur(i64 N, i64 Y, i64 X, i64 C, const float* x, float sigma, float* work, float* y, void* stream) {
  BlurWeights weight;
  const int radius = blur_weights(sigma, kMaxRadius, weight.w);
  const RowGrid columns(N, Y * X * C), rows(N * Y, X * C);
  launch(blur_kernel, columns.grid, columns.block, 0, stream, N, Y, X * C, x, weight, radius, work);
  launch(blur_kernel, rows.grid, rows.block, 0, stream, N * Y, X, C, work, weight, radius, y);
}

}  // namespace fastdl
