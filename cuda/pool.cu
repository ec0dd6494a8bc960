// Pooling. Channels lie next to each other, so neighbouring threads read neighbouring floats: along x a thread for each
// (column of the image, group of 4 channels or 1), along y for each row. Backward a thread gathers what its input pixel gets from the windows
// that cover it, in their order, so that nothing is added by two threads.
#include "loops.cuh"

namespace fastdl {
namespace {

// a / b for a >= 0, b > 0; a 64-bit division is a hundred instructions.
__device__ __forceinline__ i64 ratio(i64 a, i64 b) {
  return ((a | b) >> 32) == 0 ? static_cast<i64>(static_cast<uint32_t>(a) / static_cast<uint32_t>(b)) : a / b;
}

// W places in a window, as they are stored.
template <int W>
struct Places {
  uint8_t v[W];
};
template <int W>
__device__ __forceinline__ Places<W> load_places(const uint8_t* p) {
  Places<W> r;
  if constexpr (W == 4) {
    const uchar4 q = *reinterpret_cast<const uchar4*>(p);
    r.v[0] = q.x, r.v[1] = q.y, r.v[2] = q.z, r.v[3] = q.w;
  } else {
    r.v[0] = *p;
  }
  return r;
}
template <int W>
__device__ __forceinline__ void store_places(uint8_t* p, const Places<W>& r) {
  if constexpr (W == 4) {
    *reinterpret_cast<uchar4*>(p) = make_uchar4(r.v[0], r.v[1], r.v[2], r.v[3]);
  } else {
    *p = r.v[0];
  }
}

struct Geometry {
  i64 Y, X, C, P, Q, size_y, size_x, stride_y, stride_x, pad_y, pad_x;
};

struct Window {  // the part of an output pixel's window that lies inside the image
  i64 y0, y1, x0, x1;
  i64 top, left;  // where the whole window begins, maybe outside
  __device__ __forceinline__ Window(const Geometry& g, i64 p, i64 q) {
    top = p * g.stride_y - g.pad_y;
    left = q * g.stride_x - g.pad_x;
    y0 = top > 0 ? top : 0;
    x0 = left > 0 ? left : 0;
    y1 = top + g.size_y < g.Y ? top + g.size_y : g.Y;
    x1 = left + g.size_x < g.X ? left + g.size_x : g.X;
  }
  __device__ __forceinline__ float count(const Geometry& g, int count_padding) const {
    return static_cast<float>(count_padding ? g.size_y * g.size_x : (y1 - y0) * (x1 - x0));
  }
};

// Windows first .. last - 1 of `windows` cover position i of one axis.
struct Covering {
  i64 first, last;
  __device__ __forceinline__ Covering(i64 i, i64 size, i64 stride, i64 pad, i64 windows) {
    const i64 from = i + pad - size + 1;  // where the first window that reaches i begins, at the earliest
    first = from > 0 ? ratio(from + stride - 1, stride) : 0;
    last = ratio(i + pad, stride) + 1;
    if (last > windows) last = windows;
  }
};

template <int W>
__global__ void max_forward_kernel(Geometry g, i64 N, const float* x, float* y, uint8_t* where) {
  const i64 groups = g.C / W;
  for_rows(N * g.P, g.Q * groups, [=](i64 row, i64 column) {
    const i64 n = ratio(row, g.P), q = ratio(column, groups), c = (column - q * groups) * W;
    const Window w(g, row - n * g.P, q);
    const float* image = x + n * g.Y * g.X * g.C + c;
    const bool any = w.y0 < w.y1 && w.x0 < w.x1;  // not so for images of no pixels, but padded
    Floats<W> best;
    Places<W> places;
#pragma unroll
    for (int k = 0; k < W; ++k) {
      best.v[k] = -__builtin_inff();
      places.v[k] = static_cast<uint8_t>((w.y0 - w.top) * g.size_x + (w.x0 - w.left));
    }
    if (any) best = load<W>(image + (w.y0 * g.X + w.x0) * g.C);
    for (i64 iy = w.y0; iy < w.y1; ++iy) {
      for (i64 ix = w.x0; ix < w.x1; ++ix) {
        const Floats<W> v = load<W>(image + (iy * g.X + ix) * g.C);
        const uint8_t place = static_cast<uint8_t>((iy - w.top) * g.size_x + (ix - w.left));
#pragma unroll
        for (int k = 0; k < W; ++k) {
          if (v.v[k] <= best.v[k] || best.v[k] != best.v[k]) continue;  // larger, or the first NaN, goes on
          best.v[k] = v.v[k];
          places.v[k] = place;
        }
      }
    }
    const i64 at = (row * g.Q + q) * g.C + c;
    store(y + at, best);
    if (where != nullptr) store_places(where + at, places);
  });
}

template <int W>
__global__ void avg_forward_kernel(Geometry g, i64 N, const float* x, int count_padding, float* y) {
  const i64 groups = g.C / W;
  for_rows(N * g.P, g.Q * groups, [=](i64 row, i64 column) {
    const i64 n = ratio(row, g.P), q = ratio(column, groups), c = (column - q * groups) * W;
    const Window w(g, row - n * g.P, q);
    const float* image = x + n * g.Y * g.X * g.C + c;
    Floats<W> sum = {};
    for (i64 iy = w.y0; iy < w.y1; ++iy) {
      for (i64 ix = w.x0; ix < w.x1; ++ix)
        sum = each(sum, load<W>(image + (iy * g.X + ix) * g.C), [](float a, float b) { return a + b; });
    }
    const float count = w.count(g, count_padding);
    store(y + (row * g.Q + q) * g.C + c, each(sum, [=](float v) { return v / count; }));
  });
}

// where: null for the mean.
template <int W>
__global__ void backward_kernel(Geometry g, i64 N, const uint8_t* where, const float* dy, int count_padding, float* dx,
                                float beta) {
  const i64 groups = g.C / W;
  for_rows(N * g.Y, g.X * groups, [=](i64 row, i64 column) {
    const i64 n = ratio(row, g.Y), iy = row - n * g.Y, ix = ratio(column, groups), c = (column - ix * groups) * W;
    const Covering rows(iy, g.size_y, g.stride_y, g.pad_y, g.P), columns(ix, g.size_x, g.stride_x, g.pad_x, g.Q);
    float* to = dx + (row * g.X + ix) * g.C + c;
    Floats<W> sum = {};
    if (beta != 0.0f) sum = each(load<W>(to), [=](float v) { return beta * v; });
    for (i64 p = rows.first; p < rows.last; ++p) {
      for (i64 q = columns.first; q < columns.last; ++q) {
        const i64 at = ((n * g.P + p) * g.Q + q) * g.C + c;
        const Window w(g, p, q);
        const Floats<W> d = load<W>(dy + at);
        if (where == nullptr) {
          const float count = w.count(g, count_padding);
          sum = each(sum, d, [=](float a, float b) { return a + b / count; });
        } else {
          const i64 here = (iy - w.top) * g.size_x + (ix - w.left);
          const Places<W> places = load_places<W>(where + at);
#pragma unroll
          for (int k = 0; k < W; ++k) sum.v[k] = sum.v[k] + (places.v[k] == here ? d.v[k] : 0.0f);
        }
      }
    }
    store(to, sum);
  });
}

// Whether four channels go together.
bool by_quads(const Geometry& g, const uint8_t* where, const float* a, const float* b) {
  return g.C % 4 == 0 && aligned(a, b) && reinterpret_cast<uintptr_t>(where) % 4 == 0;
}

void backward(const Geometry& g, i64 N, const uint8_t* where, const float* dy, int count_padding, float* dx, float beta,
              void* stream) {
  const bool quads = by_quads(g, where, dy, dx);
  const RowGrid grid(N * g.Y, g.X * (quads ? g.C / 4 : g.C));
  launch(quads ? backward_kernel<4> : backward_kernel<1>, grid.grid, grid.block, 0, stream, g, N, where, dy, count_padding, dx, beta);
}

}  // namespace

void max_pool2d_forward(i64 N, i64 Y, i64 X, i64 C, i64 P, i64 Q, const float* x, i64 size_y, i64 size_x, i64 stride_y,
                        i64 stride_x, i64 pad_y, i64 pad_x, float* y, uint8_t* where, void* stream) {
  const Geometry g = {Y, X, C, P, Q, size_y, size_x, stride_y, stride_x, pad_y, pad_x};
  const bool quads = by_quads(g, where, x, y);
  const RowGrid grid(N * P, Q * (quads ? C / 4 : C));
  launch(quads ? max_forward_kernel<4> : max_forward_kernel<1>, grid.grid, grid.block, 0, stream, g, N, x, y, where);
}

void max_pool2d_backward(i64 N, i64 Y, i64 X, i64 C, i64 P, i64 Q, const uint8_t* where, const float* dy, i64 size_y,
                         i64 size_x, i64 stride_y, i64 stride_x, i64 pad_y, i64 pad_x, float* dx, float beta, void* stream) {
  const Geometry g = {Y, X, C, P, Q, size_y, size_x, stride_y, stride_x, pad_y, pad_x};
  backward(g, N, where, dy, 0, dx, beta, stream);
}

void avg_pool2d_forward(i64 N, i64 Y, i64 X, i64 C, i64 P, i64 Q, const float* x, i64 size_y, i64 size_x, i64 stride_y,
                        i64 stride_x, i64 pad_y, i64 pad_x, int count_padding, float* y, void* stream) {
  const Geometry g = {Y, X, C, P, Q, size_y, size_x, stride_y, stride_x, pad_y, pad_x};
  const bool quads = by_quads(g, nullptr, x, y);
  const RowGrid grid(N * P, Q * (quads ? C / 4 : C));
  launch(quads ? avg_forward_kernel<4> : avg_forward_kernel<1>, grid.grid, grid.block, 0, stream, g, N, x, count_padding, y);
}

void avg_pool2d_backward(i64 N, i64 Y, i64 X, i64 C, i64 P, i64 Q, const float* dy, i64 size_y, i64 size_x, i64 stride_y,
                         i64 stride_x, i64 pad_y, i64 pad_x, int count_padding, float* dx, float beta, void* stream) {
  const Geometry g = {Y, X, C, P, Q, size_y, size_x, stride_y, stride_x, pad_y, pad_x};
  backward(g, N, nullptr, dy, count_padding, dx, beta, stream);
}

}  // namespace fastdl
