// Pooling. Channels lie next to each other, so a window's elements are vectors of channels:
//
//     x  . . . . . .        one output pixel = size_y * size_x loads a vector of channels, no shuffling
//        . [a b] . .
//        . [c d] . .        y = max(a, b, c, d), where = 0, 1, 2 or 3
#include "../formulas.h"
#include "../kernels.h"
#include "loops.h"

namespace fastdl {
namespace {

struct Window {  // the part of an output pixel's window that lies inside the image
  i64 y0, y1, x0, x1;
  i64 top, left;  // where the whole window begins, maybe outside
};

struct Geometry {
  i64 Y, X, C, P, Q, size_y, size_x, stride_y, stride_x, pad_y, pad_x;

  FASTDL_INLINE Window window(i64 p, i64 q) const {
    Window w;
    w.top = p * stride_y - pad_y;
    w.left = q * stride_x - pad_x;
    w.y0 = w.top > 0 ? w.top : 0;
    w.x0 = w.left > 0 ? w.left : 0;
    w.y1 = w.top + size_y < Y ? w.top + size_y : Y;
    w.x1 = w.left + size_x < X ? w.left + size_x : X;
    return w;
  }
  // Every input pixel lies in exactly one window.
  bool tiles() const {
    return pad_y == 0 && pad_x == 0 && stride_y == size_y && stride_x == size_x && P * size_y == Y && Q * size_x == X;
  }
};

// lanes.count() bytes of 0..255 <-> a vector of integers.
typedef uint8_t bytes __attribute__((vector_size(kLanes)));
FASTDL_INLINE void store_bytes(uint8_t* p, ivec v, Whole) {
  const bytes b = __builtin_convertvector(v, bytes);
  memcpy(p, &b, sizeof b);
}
FASTDL_INLINE void store_bytes(uint8_t* p, ivec v, Part part) {
  for (i64 i = 0; i < part.n; ++i) p[i] = static_cast<uint8_t>(v[i]);
}
FASTDL_INLINE ivec load_bytes(const uint8_t* p, Whole) {
  bytes b;
  memcpy(&b, p, sizeof b);
  return __builtin_convertvector(b, ivec);
}
FASTDL_INLINE ivec load_bytes(const uint8_t* p, Part part) {
  ivec v = {};
  for (i64 i = 0; i < part.n; ++i) v[i] = p[i];
  return v;
}

template <bool kWhere>
void max_forward(const Geometry& g, i64 N, const float* x, float* y, uint8_t* where) {
  for_rows(N * g.P, g.Q * g.C * g.size_y * g.size_x, [=](i64 row) {
    const float* image = x + row / g.P * g.Y * g.X * g.C;
    for (i64 q = 0; q < g.Q; ++q) {
      const Window w = g.window(row % g.P, q);
      const i64 out = (row * g.Q + q) * g.C;
      for_vectors(0, g.C, [&](i64 c, auto lanes) {
        vec best = splat(-__builtin_inff());
        ivec place = splat_i(static_cast<int32_t>((w.y0 - w.top) * g.size_x + (w.x0 - w.left)));
        for (i64 iy = w.y0; iy < w.y1; ++iy) {
          const float* pixel = image + (iy * g.X + w.x0) * g.C + c;
          int32_t here = static_cast<int32_t>((iy - w.top) * g.size_x + (w.x0 - w.left));
          for (i64 ix = w.x0; ix < w.x1; ++ix, pixel += g.C, ++here) {
            const vec v = lanes.load(pixel);
            if (kWhere) {
              const ivec better = (v > best) | ((v != v) & (best == best));
              best = select(better, v, best);
              place = better ? splat_i(here) : place;
            } else {
              best = max_or_nan(best, v);
            }
          }
        }
        lanes.store(y + out + c, best);
        if (kWhere) store_bytes(where + out + c, place, lanes);
      });
    }
  });
}

// dx = beta dx everywhere: windows then add to it.
void scale(i64 n, float* dx, float beta) {
  if (beta == 1.0f) return;
  if (beta == 0.0f) {
    for_elements(n, [=](i64 i, auto lanes) { lanes.store(dx + i, vec{}); });
  } else {
    for_elements(n, [=](i64 i, auto lanes) { lanes.store(dx + i, beta * lanes.load(dx + i)); });
  }
}

// Windows touch only their own image, so a thread takes whole images; where windows tile it, rows of windows.
template <class Put, class Gradient>
FASTDL_INLINE void spread(const Geometry& g, i64 N, float* dx, const Put& put, const Gradient& gradient) {
  const auto row_of_windows = [=](i64 row) {
    float* image = dx + row / g.P * g.Y * g.X * g.C;
    for (i64 q = 0; q < g.Q; ++q) {
      const Window w = g.window(row % g.P, q);
      const i64 out = (row * g.Q + q) * g.C;
      for_vectors(0, g.C, [&](i64 c, auto lanes) {
        const auto of_place = gradient(w, out + c, lanes);
        for (i64 iy = w.y0; iy < w.y1; ++iy) {
          float* pixel = image + (iy * g.X + w.x0) * g.C + c;
          int32_t here = static_cast<int32_t>((iy - w.top) * g.size_x + (w.x0 - w.left));
          for (i64 ix = w.x0; ix < w.x1; ++ix, pixel += g.C, ++here) put(lanes, pixel, of_place(here));
        }
      });
    }
  };
  if (g.tiles()) {
    for_rows(N * g.P, g.Q * g.C * g.size_y * g.size_x, row_of_windows);
  } else {
    for_rows(N, g.P * g.Q * g.C * g.size_y * g.size_x, [=](i64 n) {
      for (i64 p = 0; p < g.P; ++p) row_of_windows(n * g.P + p);
    });
  }
}

template <class Gradient>
FASTDL_INLINE void backward(const Geometry& g, i64 N, float* dx, float beta, const Gradient& gradient) {
  if (g.tiles()) {
    with_beta(beta, [&](auto put) { spread(g, N, dx, put, gradient); });
  } else {
    scale(N * g.Y * g.X * g.C, dx, beta);
    spread(g, N, dx, Accumulate{1.0f}, gradient);
  }
}

FASTDL_INLINE float pixels(const Geometry& g, const Window& w, int count_padding) {
  return static_cast<float>(count_padding ? g.size_y * g.size_x : (w.y1 - w.y0) * (w.x1 - w.x0));
}

}  // namespace

void max_pool2d_forward(i64 N, i64 Y, i64 X, i64 C, i64 P, i64 Q, const float* x, i64 size_y, i64 size_x, i64 stride_y,
                        i64 stride_x, i64 pad_y, i64 pad_x, float* y, uint8_t* where, void*) {
  const Geometry g = {Y, X, C, P, Q, size_y, size_x, stride_y, stride_x, pad_y, pad_x};
  if (where != nullptr) {
    max_forward<true>(g, N, x, y, where);
  } else {
    max_forward<false>(g, N, x, y, where);
  }
}

void max_pool2d_backward(i64 N, i64 Y, i64 X, i64 C, i64 P, i64 Q, const uint8_t* where, const float* dy, i64 size_y,
                         i64 size_x, i64 stride_y, i64 stride_x, i64 pad_y, i64 pad_x, float* dx, float beta, void*) {
  const Geometry g = {Y, X, C, P, Q, size_y, size_x, stride_y, stride_x, pad_y, pad_x};
  backward(g, N, dx, beta, [=](const Window&, i64 at, auto lanes) {
    const vec d = lanes.load(dy + at);
    const ivec place = load_bytes(where + at, lanes);
    return [=](int32_t here) { return from_bits(bits(d) & (place == here)); };
  });
}

void avg_pool2d_forward(i64 N, i64 Y, i64 X, i64 C, i64 P, i64 Q, const float* x, i64 size_y, i64 size_x, i64 stride_y,
                        i64 stride_x, i64 pad_y, i64 pad_x, int count_padding, float* y, void*) {
  const Geometry g = {Y, X, C, P, Q, size_y, size_x, stride_y, stride_x, pad_y, pad_x};
  for_rows(N * P, Q * C * size_y * size_x, [=](i64 row) {
    const float* image = x + row / g.P * g.Y * g.X * g.C;
    for (i64 q = 0; q < g.Q; ++q) {
      const Window w = g.window(row % g.P, q);
      const float count = pixels(g, w, count_padding);
      const i64 out = (row * g.Q + q) * g.C;
      for_vectors(0, g.C, [&](i64 c, auto lanes) {
        vec sum = {};
        for (i64 iy = w.y0; iy < w.y1; ++iy) {
          const float* pixel = image + (iy * g.X + w.x0) * g.C + c;
          for (i64 ix = w.x0; ix < w.x1; ++ix, pixel += g.C) sum += lanes.load(pixel);
        }
        lanes.store(y + out + c, sum / count);
      });
    }
  });
}

void avg_pool2d_backward(i64 N, i64 Y, i64 X, i64 C, i64 P, i64 Q, const float* dy, i64 size_y, i64 size_x, i64 stride_y,
                         i64 stride_x, i64 pad_y, i64 pad_x, int count_padding, float* dx, float beta, void*) {
  const Geometry g = {Y, X, C, P, Q, size_y, size_x, stride_y, stride_x, pad_y, pad_x};
  backward(g, N, dx, beta, [=](const Window& w, i64 at, auto lanes) {
    const vec d = lanes.load(dy + at) / pixels(g, w, count_padding);
    return [=](int32_t) { return d; };
  });
}

}  // namespace fastdl
