// Pooling. Channels lie next to each other, so neighbouring threads read neighbouring floats: along x a thread for each
// (column of the image, channel), along y for each row. Backward a thread gathers what its input pixel gets from the windows
// that cover it, in their order, so that nothing is added by two threads.
#include "loops.cuh"

namespace fastdl {
namespace {

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
    first = from > 0 ? (from + stride - 1) / stride : 0;
    last = (i + pad) / stride + 1;
    if (last > windows) last = windows;
  }
};

__global__ void max_forward_kernel(Geometry g, i64 N, const float* x, float* y, uint8_t* where) {
  for_rows(N * g.P, g.Q * g.C, [=](i64 row, i64 column) {
    const i64 n = row / g.P, q = column / g.C, c = column % g.C;
    const Window w(g, row % g.P, q);
    const float* image = x + n * g.Y * g.X * g.C + c;
    const bool any = w.y0 < w.y1 && w.x0 < w.x1;  // not so for images of no pixels, but padded
    float best = any ? image[(w.y0 * g.X + w.x0) * g.C] : -__builtin_inff();
    i64 place = (w.y0 - w.top) * g.size_x + (w.x0 - w.left);
    for (i64 iy = w.y0; iy < w.y1; ++iy) {
      for (i64 ix = w.x0; ix < w.x1; ++ix) {
        const float v = image[(iy * g.X + ix) * g.C];
        if (v <= best || best != best) continue;  // larger, or the first NaN, goes on
        best = v;
        place = (iy - w.top) * g.size_x + (ix - w.left);
      }
    }
    y[row * g.Q * g.C + column] = best;
    if (where != nullptr) where[row * g.Q * g.C + column] = static_cast<uint8_t>(place);
  });
}

__global__ void avg_forward_kernel(Geometry g, i64 N, const float* x, int count_padding, float* y) {
  for_rows(N * g.P, g.Q * g.C, [=](i64 row, i64 column) {
    const i64 n = row / g.P, q = column / g.C, c = column % g.C;
    const Window w(g, row % g.P, q);
    const float* image = x + n * g.Y * g.X * g.C + c;
    float sum = 0.0f;
    for (i64 iy = w.y0; iy < w.y1; ++iy) {
      for (i64 ix = w.x0; ix < w.x1; ++ix) sum += image[(iy * g.X + ix) * g.C];
    }
    y[row * g.Q * g.C + column] = sum / w.count(g, count_padding);
  });
}

// where: null for the mean.
__global__ void backward_kernel(Geometry g, i64 N, const uint8_t* where, const float* dy, int count_padding, float* dx,
                                float beta) {
  for_rows(N * g.Y, g.X * g.C, [=](i64 row, i64 column) {
    const i64 n = row / g.Y, iy = row % g.Y, ix = column / g.C, c = column % g.C;
    const Covering rows(iy, g.size_y, g.stride_y, g.pad_y, g.P), columns(ix, g.size_x, g.stride_x, g.pad_x, g.Q);
    float* to = dx + row * g.X * g.C + column;
    float sum = beta == 0.0f ? 0.0f : beta * *to;
    for (i64 p = rows.first; p < rows.last; ++p) {
      for (i64 q = columns.first; q < columns.last; ++q) {
        const i64 at = ((n * g.P + p) * g.Q + q) * g.C + c;
        const Window w(g, p, q);
        if (where == nullptr) {
          sum = sum + dy[at] / w.count(g, count_padding);
        } else {
          const i64 here = (iy - w.top) * g.size_x + (ix - w.left);
          sum = sum + (where[at] == here ? dy[at] : 0.0f);
        }
      }
    }
    *to = sum;
  });
}

void backward(const Geometry& g, i64 N, const uint8_t* where, const float* dy, int count_padding, float* dx, float beta,
              void* stream) {
  const RowGrid grid(N * g.Y, g.X * g.C);
  launch(backward_kernel, grid.grid, grid.block, 0, stream, g, N, where, dy, count_padding, dx, beta);
}

}  // namespace

void max_pool2d_forward(i64 N, i64 Y, i64 X, i64 C, i64 P, i64 Q, const float* x, i64 size_y, i64 size_x, i64 stride_y,
                        i64 stride_x, i64 pad_y, i64 pad_x, float* y, uint8_t* where, void* stream) {
  const Geometry g = {Y, X, C, P, Q, size_y, size_x, stride_y, stride_x, pad_y, pad_x};
  const RowGrid grid(N * P, Q * C);
  launch(max_forward_kernel, grid.grid, grid.block, 0, stream, g, N, x, y, where);
}

void max_pool2d_backward(i64 N, i64 Y, i64 X, i64 C, i64 P, i64 Q, const uint8_t* where, const float* dy, i64 size_y,
                         i64 size_x, i64 stride_y, i64 stride_x, i64 pad_y, i64 pad_x, float* dx, float beta, void* stream) {
  const Geometry g = {Y, X, C, P, Q, size_y, size_x, stride_y, stride_x, pad_y, pad_x};
  backward(g, N, where, dy, 0, dx, beta, stream);
}

void avg_pool2d_forward(i64 N, i64 Y, i64 X, i64 C, i64 P, i64 Q, const float* x, i64 size_y, i64 size_x, i64 stride_y,
                        i64 stride_x, i64 pad_y, i64 pad_x, int count_padding, float* y, void* stream) {
  const Geometry g = {Y, X, C, P, Q, size_y, size_x, stride_y, stride_x, pad_y, pad_x};
  const RowGrid grid(N * P, Q * C);
  launch(avg_forward_kernel, grid.grid, grid.block, 0, stream, g, N, x, count_padding, y);
}

void avg_pool2d_backward(i64 N, i64 Y, i64 X, i64 C, i64 P, i64 Q, const float* dy, i64 size_y, i64 size_x, i64 stride_y,
                         i64 stride_x, i64 pad_y, i64 pad_x, int count_padding, float* dx, float beta, void* stream) {
  const Geometry g = {Y, X, C, P, Q, size_y, size_x, stride_y, stride_x, pad_y, pad_x};
  backward(g, N, nullptr, dy, count_padding, dx, beta, stream);
}

}  // namespace fastdl
