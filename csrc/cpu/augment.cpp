// Image augmentation: an affine map and a displacement field in one bilinear pass, and the Gaussian blur that makes a
// smooth (elastic) field out of noise.
//
//   output pixel (p, q)                               source image                 a,b: pixels of row y0 at x0, x0 + 1
//   (sy, sx) = M (p, q, 1) + field[p, q]   --->   a----b   top    = a + fx (b - a)
//   y0 = floor(sy), fy = sy - y0                  |  . |   bottom = c + fx (d - c)
//   x0 = floor(sx), fx = sx - x0                  c----d   result = top + fy (bottom - top)
//
// kLanes neighbouring output pixels go together: coordinates, weights and interpolation are vectors; the four pixels of
// each are fetched one by one (no gather instruction: on the AVX2 machines that have one it is no faster than loads).
//
// Only plain multiplies and adds, no fma: augmented images have the same bits on every target.
#include "../formulas.h"
#include "../kernels.h"
#include "parallel.h"
#include "simd.h"

namespace fastdl {
namespace {

constexpr int kMaxRadius = 255;  // of blur; its weights then fit on the stack

// Work for one task of a parallel loop, in floats; a function of shapes alone.
FASTDL_INLINE i64 images_per_task(i64 floats_per_image) {
  const i64 n = 16384 / (floats_per_image > 0 ? floats_per_image : 1);
  return n > 1 ? n : 1;
}

FASTDL_INLINE vec floor_of(vec v, ivec* whole) {
  const ivec toward_zero = __builtin_convertvector(v, ivec);
  const vec t = __builtin_convertvector(toward_zero, vec);
  *whole = toward_zero + (t > v);  // a true comparison is -1
  return __builtin_convertvector(*whole, vec);
}

// Limits a coordinate to [-2, size + 1], so that it converts to an integer and, outside, stays outside by a full pixel.
// NaN becomes -2; the caller puts NaN back into the result.
FASTDL_INLINE vec limit(vec v, i64 size) {
  const vec low = splat(-2.0f), high = splat(static_cast<float>(size) + 1.0f);
  v = select(v > low, v, low);
  return select(v < high, v, high);
}

// a + f (b - a), where a pixel of weight zero has no say, not even if it is infinite or NaN.
FASTDL_INLINE vec mix(vec a, vec b, vec f) { return select(f == vec{}, a, a + f * (b - a)); }

FASTDL_INLINE bool any(ivec mask) {
  int32_t m = 0;
  for (int l = 0; l < kLanes; ++l) m |= mask[l];
  return m != 0;
}

FASTDL_INLINE float pixel(const float* x, float) { return *x; }
FASTDL_INLINE float pixel(const uint8_t* x, float scale) { return static_cast<float>(*x) * scale; }

// One output row: `m` the image's matrix, `field` its row of displacements or null, `x` the image.
template <class T>
FASTDL_INLINE void warp_row(i64 Y, i64 X, i64 C, i64 Q, float p, const T* x, const float* m, const float* field,
                            float fill, float scale, float* y) {
  const vec row_y = splat(m[0] * p + m[2]), row_x = splat(m[3] * p + m[5]);
  vec lane = {};
  for (int l = 0; l < kLanes; ++l) lane[l] = static_cast<float>(l);

  for (i64 q = 0; q < Q; q += kLanes) {
    const int count = static_cast<int>(Q - q < kLanes ? Q - q : kLanes);
    const vec column = splat(static_cast<float>(q)) + lane;
    vec sy = row_y + splat(m[1]) * column;
    vec sx = row_x + splat(m[4]) * column;
    if (field != nullptr) {
      vec dy = {}, dx = {};
      for (int l = 0; l < count; ++l) {
        dy[l] = field[2 * (q + l)];
        dx[l] = field[2 * (q + l) + 1];
      }
      sy += dy;
      sx += dx;
    }
    const ivec nan = (sy != sy) | (sx != sx);
    sy = limit(sy, Y);
    sx = limit(sx, X);
    ivec y0, x0;
    const vec fy = sy - floor_of(sy, &y0);
    const vec fx = sx - floor_of(sx, &x0);

    const int32_t last_y = static_cast<int32_t>(Y - 1), last_x = static_cast<int32_t>(X - 1);
    const ivec all_four = (y0 >= 0) & (y0 < last_y) & (x0 >= 0) & (x0 < last_x);
    i64 at[kLanes];
    bool inside = true;
    for (int l = 0; l < count; ++l) {
      at[l] = (static_cast<i64>(y0[l]) * X + x0[l]) * C;
      inside = inside && all_four[l];
    }
    const bool unknown = any(nan);

    for (i64 c = 0; c < C; ++c) {
      float corner[4][kLanes];
      if (inside) {
        for (int l = 0; l < count; ++l) {
          const T* from = x + at[l] + c;
          corner[0][l] = pixel(from, scale);
          corner[1][l] = pixel(from + C, scale);
          corner[2][l] = pixel(from + X * C, scale);
          corner[3][l] = pixel(from + (X + 1) * C, scale);
        }
      } else {
        for (int l = 0; l < count; ++l) {
          const bool top = y0[l] >= 0 && y0[l] <= last_y, bottom = y0[l] >= -1 && y0[l] < last_y;
          const bool left = x0[l] >= 0 && x0[l] <= last_x, right = x0[l] >= -1 && x0[l] < last_x;
          corner[0][l] = top && left ? pixel(x + (at[l] + c), scale) : fill;
          corner[1][l] = top && right ? pixel(x + (at[l] + c + C), scale) : fill;
          corner[2][l] = bottom && left ? pixel(x + (at[l] + c + X * C), scale) : fill;
          corner[3][l] = bottom && right ? pixel(x + (at[l] + c + (X + 1) * C), scale) : fill;
        }
      }
      // A last chunk leaves lanes unset; they are computed but not stored.
      for (int l = count; l < kLanes; ++l) corner[0][l] = corner[1][l] = corner[2][l] = corner[3][l] = 0.0f;
      vec r = mix(mix(load(corner[0]), load(corner[1]), fx), mix(load(corner[2]), load(corner[3]), fx), fy);
      if (unknown) r = select(nan, splat(__builtin_nanf("")), r);
      float* to = y + q * C + c;
      if (C == 1 && count == kLanes) {
        store(to, r);
      } else {
        for (int l = 0; l < count; ++l) to[l * C] = r[l];
      }
    }
  }
}

template <class T>
FASTDL_INLINE void warp_any(i64 N, i64 Y, i64 X, i64 C, i64 P, i64 Q, const T* x, const float* matrix,
                            const float* field, float fill, float scale, float* y) {
  parallel_for(N, images_per_task(P * Q * C), [=](i64 begin, i64 end) {
    for (i64 n = begin; n < end; ++n) {
      for (i64 p = 0; p < P; ++p) {
        const float* row_field = field == nullptr ? nullptr : field + (n * P + p) * Q * 2;
        warp_row(Y, X, C, Q, static_cast<float>(p), x + n * Y * X * C, matrix + n * 6, row_field, fill, scale,
                 y + (n * P + p) * Q * C);
      }
    }
  });
}

// The index that a row outside stands for: ... b a | a b c ... z | z y ..., for any distance.
FASTDL_INLINE i64 reflect(i64 i, i64 size) {
  const i64 period = 2 * size;
  i %= period;
  if (i < 0) i += period;
  return i < size ? i : period - 1 - i;
}

// y[r] = sum over k of weight[|k|] x[r + k], for rows of `width` floats.
FASTDL_INLINE void blur_columns(i64 rows, i64 width, const float* x, const float* weight, int radius, float* y) {
  const float* above[kMaxRadius + 1];
  const float* below[kMaxRadius + 1];
  for (i64 r = 0; r < rows; ++r) {
    for (int k = 0; k <= radius; ++k) {
      above[k] = x + reflect(r - k, rows) * width;
      below[k] = x + reflect(r + k, rows) * width;
    }
    i64 i = 0;
    for (; i + kLanes <= width; i += kLanes) {
      vec sum = splat(weight[0]) * load(above[0] + i);
      for (int k = 1; k <= radius; ++k) sum += splat(weight[k]) * (load(above[k] + i) + load(below[k] + i));
      store(y + r * width + i, sum);
    }
    for (; i < width; ++i) {
      float sum = weight[0] * above[0][i];
      for (int k = 1; k <= radius; ++k) sum += weight[k] * (above[k][i] + below[k][i]);
      y[r * width + i] = sum;
    }
  }
}

// [rows, columns, C] to [columns, rows, C]
FASTDL_INLINE void transpose(i64 rows, i64 columns, i64 C, const float* x, float* y) {
  for (i64 r = 0; r < rows; ++r) {
    for (i64 q = 0; q < columns; ++q) {
      for (i64 c = 0; c < C; ++c) y[(q * rows + r) * C + c] = x[(r * columns + q) * C + c];
    }
  }
}

}  // namespace

void warp(i64 N, i64 Y, i64 X, i64 C, i64 P, i64 Q, const float* x, const float* matrix, const float* field, float fill,
          float* y, void*) {
  warp_any(N, Y, X, C, P, Q, x, matrix, field, fill, 1.0f, y);
}

void warp_u8(i64 N, i64 Y, i64 X, i64 C, i64 P, i64 Q, const uint8_t* x, const float* matrix, const float* field,
             float fill, float scale, float* y, void*) {
  warp_any(N, Y, X, C, P, Q, x, matrix, field, fill, scale, y);
}

i64 blur_workspace(i64 N, i64 Y, i64 X, i64 C) { return N * Y * X * C; }

void blur(i64 N, i64 Y, i64 X, i64 C, const float* x, float sigma, float* work, float* y, void*) {
  float weight[kMaxRadius + 1];
  const int radius = blur_weights(sigma, kMaxRadius, weight);
  const i64 size = Y * X * C;
  const float* w = weight;
  parallel_for(N, images_per_task(size), [=](i64 begin, i64 end) {
    for (i64 n = begin; n < end; ++n) {
      float* scratch = work + n * size;
      float* out = y + n * size;
      // Columns, then the transposed image's columns: both passes run along contiguous rows.
      blur_columns(Y, X * C, x + n * size, w, radius, scratch);
      transpose(Y, X, C, scratch, out);
      blur_columns(X, Y * C, out, w, radius, scratch);
      transpose(X, Y, C, scratch, out);
    }
  });
}

}  // namespace fastdl
