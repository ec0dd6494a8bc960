// Kernels that go through their arrays once: activations, unary and binary operations, columns. All are bound by memory, so
// a thread moves 16 bytes at a time where addresses allow it; which operation it is, is asked once for four elements.
#include "loops.cuh"

namespace fastdl {
namespace {

template <int W>
__device__ __forceinline__ Floats<W> activate(Floats<W> z, int act, float slope) {
  switch (act) {
    case kRelu:
      return each(z, [](float v) { return relu(v); });
    case kLeakyRelu:
      return each(z, [=](float v) { return leaky_relu(v, slope); });
    case kSigmoid:
      return each(z, [](float v) { return sigmoid(v); });
    case kTanh:
      return each(z, [](float v) { return tanh(v); });
    case kGelu:
      return each(z, [](float v) { return gelu(v); });
    default:
      return z;
  }
}

template <int W>
__device__ __forceinline__ Floats<W> activate_backward(Floats<W> y, Floats<W> dy, int act, float slope) {
  switch (act) {
    case kRelu:
      return each(y, dy, [](float v, float d) { return relu_backward(d, v); });
    case kLeakyRelu:
      return each(y, dy, [=](float v, float d) { return leaky_relu_backward(d, v, slope); });
    case kSigmoid:
      return each(y, dy, [](float v, float d) { return d * sigmoid_slope(v); });
    case kTanh:
      return each(y, dy, [](float v, float d) { return d * tanh_slope(v); });
    case kGelu:
      return each(y, dy, [](float v, float d) { return d * gelu_slope(v); });
    default:
      return dy;
  }
}

template <int W>
__device__ __forceinline__ Floats<W> apply(Floats<W> x, int op) {
  switch (op) {
    case kNegate:
      return each(x, [](float v) { return -v; });
    case kAbs:
      return each(x, [](float v) { return absolute(v); });
    case kSquare:
      return each(x, [](float v) { return v * v; });
    case kSqrt:
      return each(x, [](float v) { return square_root(v); });
    case kReciprocal:
      return each(x, [](float v) { return 1.0f / v; });
    case kExp:
      return each(x, [](float v) { return exp(v); });
    case kLog:
      return each(x, [](float v) { return log(v); });
    default:
      return each(x, [](float v) { return softplus(v); });
  }
}

template <int W>
__device__ __forceinline__ Floats<W> apply_backward(Floats<W> x, Floats<W> dy, int op) {
  switch (op) {
    case kNegate:
      return each(dy, [](float d) { return -d; });
    case kAbs:
      return each(x, dy, [](float v, float d) { return d * sign(v); });
    case kSquare:
      return each(x, dy, [](float v, float d) { return d * (v + v); });
    case kSqrt:
      return each(x, dy, [](float v, float d) { return d * (0.5f / square_root(v)); });
    case kReciprocal:
      return each(x, dy, [](float v, float d) {
        const float r = 1.0f / v;
        return -(d * r) * r;
      });
    case kExp:
      return each(x, dy, [](float v, float d) { return d * exp(v); });
    case kLog:
      return each(x, dy, [](float v, float d) { return d / v; });
    default:
      return each(x, dy, [](float v, float d) { return d * sigmoid(v); });
  }
}

template <int W>
__device__ __forceinline__ Floats<W> combine(Floats<W> x, Floats<W> y, int op) {
  switch (op) {
    case kAdd:
      return each(x, y, [](float a, float b) { return a + b; });
    case kSubtract:
      return each(x, y, [](float a, float b) { return a - b; });
    case kMultiply:
      return each(x, y, [](float a, float b) { return a * b; });
    case kDivide:
      return each(x, y, [](float a, float b) { return a / b; });
    case kMaximum:
      return each(x, y, [](float a, float b) { return max_or_nan(a, b); });
    default:
      return each(x, y, [](float a, float b) { return min_or_nan(a, b); });
  }
}

__global__ void activation_forward_kernel(i64 n, int quads, const float* x, int act, float slope, float* y) {
  for_elements(n, quads, [=](i64 i, auto width) {
    constexpr int W = decltype(width)::value;
    store(y + i, activate(load<W>(x + i), act, slope));
  });
}

__global__ void activation_backward_kernel(i64 n, int quads, const float* saved, const float* dy, int act, float slope,
                                           float* dx, float beta) {
  for_elements(n, quads, [=](i64 i, auto width) {
    constexpr int W = decltype(width)::value;
    put(dx + i, activate_backward(load<W>(saved + i), load<W>(dy + i), act, slope), beta);
  });
}

__global__ void unary_forward_kernel(i64 n, int quads, const float* x, int op, float* y) {
  for_elements(n, quads, [=](i64 i, auto width) {
    constexpr int W = decltype(width)::value;
    store(y + i, apply(load<W>(x + i), op));
  });
}

__global__ void unary_backward_kernel(i64 n, int quads, const float* x, const float* dy, int op, float* dx, float beta) {
  for_elements(n, quads, [=](i64 i, auto width) {
    constexpr int W = decltype(width)::value;
    put(dx + i, apply_backward(load<W>(x + i), load<W>(dy + i), op), beta);
  });
}

// Sine and cosine reduce their argument in double precision: long code, so apart from the others and once.
__global__ void sine_kernel(i64 n, const float* x, int cosine, float* y) {
  for_elements(n, 0, [=](i64 i, auto) {
    const SinCos<float> a = sincos(x[i]);
    y[i] = cosine ? a.cos : a.sin;
  });
}

__global__ void sine_backward_kernel(i64 n, const float* x, const float* dy, int cosine, float* dx, float beta) {
  for_elements(n, 0, [=](i64 i, auto) {
    const SinCos<float> a = sincos(x[i]);
    put(dx + i, cosine ? -dy[i] * a.sin : dy[i] * a.cos, beta);
  });
}

// n and columns count groups of W. y_step: 0 where one y serves all.
template <int W>
__global__ void binary_kernel(i64 L, i64 n, const float* x, const float* y, int y_step, int op, float* z) {
  for_rows(L, n, [=](i64 r, i64 column) {
    const i64 at = (r * n + column) * W;
    Floats<W> b;
    if (y_step) {
      b = load<W>(y + column * W);
    } else {
#pragma unroll
      for (int k = 0; k < W; ++k) b.v[k] = y[0];
    }
    store(z + at, combine(load<W>(x + at), b, op));
  });
}

__global__ void axpby_kernel(i64 n, int quads, float a, const float* x, float b, float* y) {
  for_elements(n, quads, [=](i64 i, auto width) {
    constexpr int W = decltype(width)::value;
    put(y + i, each(load<W>(x + i), [=](float v) { return a * v; }), b);
  });
}

// to[r, column] = from[r, column], rows `from_step` and `to_step` apart.
template <int W>
__global__ void copy_columns_kernel(i64 L, i64 n, const float* from, i64 from_step, float* to, i64 to_step, float beta) {
  for_rows(L, n, [=](i64 r, i64 column) {
    put(to + r * to_step + column * W, load<W>(from + r * from_step + column * W), beta);
  });
}

void copy_columns(i64 L, i64 n, const float* from, i64 from_step, float* to, i64 to_step, float beta, void* stream) {
  const bool quads = n % 4 == 0 && from_step % 4 == 0 && to_step % 4 == 0 && aligned(from, to);
  const i64 width = quads ? n / 4 : n;
  const RowGrid g(L, width);
  launch(quads ? copy_columns_kernel<4> : copy_columns_kernel<1>, g.grid, g.block, 0, stream, L, width, from, from_step, to,
         to_step, beta);
}

}  // namespace

void activation_forward(i64 n, const float* x, int act, float slope, float* y, void* stream) {
  launch(activation_forward_kernel, element_blocks(n), kThreads, 0, stream, n, aligned(x, y), x, act, slope, y);
}

void activation_backward(i64 n, const float* saved, const float* dy, int act, float slope, float* dx, float beta,
                         void* stream) {
  launch(activation_backward_kernel, element_blocks(n), kThreads, 0, stream, n, aligned(saved, dy, dx), saved, dy, act,
         slope, dx, beta);
}

void unary_forward(i64 n, const float* x, int op, float* y, void* stream) {
  if (op == kSin || op == kCos) {
    launch(sine_kernel, element_blocks(n), kThreads, 0, stream, n, x, op == kCos, y);
  } else {
    launch(unary_forward_kernel, element_blocks(n), kThreads, 0, stream, n, aligned(x, y), x, op, y);
  }
}

void unary_backward(i64 n, const float* x, const float* dy, int op, float* dx, float beta, void* stream) {
  if (op == kSin || op == kCos) {
    launch(sine_backward_kernel, element_blocks(n), kThreads, 0, stream, n, x, dy, op == kCos, dx, beta);
  } else {
    launch(unary_backward_kernel, element_blocks(n), kThreads, 0, stream, n, aligned(x, dy, dx), x, dy, op, dx, beta);
  }
}

void binary(i64 L, i64 n, const float* x, const float* y, int op, float* z, void* stream) {
  const int y_step = n != 1;
  const i64 rows = y_step ? L : 1, all = y_step ? n : L;
  const bool quads = all % 4 == 0 && aligned(x, z) && (y_step == 0 || aligned(y));
  const i64 width = quads ? all / 4 : all;
  const RowGrid g(rows, width);
  launch(quads ? binary_kernel<4> : binary_kernel<1>, g.grid, g.block, 0, stream, rows, width, x, y, y_step, op, z);
}

void axpby(i64 n, float a, const float* x, float b, float* y, void* stream) {
  launch(axpby_kernel, element_blocks(n), kThreads, 0, stream, n, aligned(x, y), a, x, b, y);
}

void get_columns(i64 L, i64 W, i64 n, const float* x, i64 at, float* y, float beta, void* stream) {
  copy_columns(L, n, x + at, W, y, n, beta, stream);
}

void put_columns(i64 L, i64 W, i64 n, const float* x, i64 at, float* y, float beta, void* stream) {
  copy_columns(L, n, x, n, y + at, W, beta, stream);
}

}  // namespace fastdl
