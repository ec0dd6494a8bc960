// Depthwise convolution: bound by memory, so x is read once and kept where the window comes by again.
//
//   forward           a thread has 4 neighbours q of a row and 4 channels (1, where a channel has several filters):
//
//                         taps s   0 1 2        of every row of the window it reads 4 + S - 1 pixels into registers, from where
//                         q        . . . .      all its taps come (stride and dilation 1, S of 3 or 5; else pixel by pixel)
//   data gradient     with stride 1 the same, taps in reverse order; else a thread a pixel asks which outputs saw it
//   weight gradient   a lane a filter, a thread the taps of a row of the window, over a chunk of 256 pixels; chunks side by side into
//                     scratch, then added in order
//
// The order of taps and pixels is the CPU's (csrc/cpu/conv_depthwise.cpp), and so are the bits. Zeros outside the image are
// multiplied, as there.
#include "depthwise.cuh"

#include "loops.cuh"

namespace fastdl {
namespace {

constexpr int kStrip = 4;  // pixels of a thread

template <int W>
__device__ __forceinline__ Floats<W> multiply_add(const Floats<W>& a, const Floats<W>& b, Floats<W> c) {
#pragma unroll
  for (int k = 0; k < W; ++k) c.v[k] = fma(a.v[k], b.v[k], c.v[k]);
  return c;
}
template <int W>
__device__ __forceinline__ Floats<W> load_if(bool inside, const float* p) {
  Floats<W> r = {};
  if (inside) r = load<W>(p);
  return r;
}

// out[at ..] = epilogue(sum + beta out).
template <int W>
__device__ __forceinline__ void finish(const Floats<W>& sum, i64 row, i64 f, i64 at, float beta, const BiasActivation& epilogue,
                                       float* out) {
  float v[4] = {};
#pragma unroll
  for (int k = 0; k < W; ++k) v[k] = sum.v[k];
  if (beta != 0.0f) {
#pragma unroll
    for (int k = 0; k < W; ++k) v[k] = beta * out[at + k] + v[k];
  }
  epilogue(v, Place{0, row, f, at, W});
  Floats<W> result;
#pragma unroll
  for (int k = 0; k < W; ++k) result.v[k] = v[k];
  store(out + at, result);
}

// Window: how many taps along x, kept in registers (0: any number, stride and dilation). Flipped: w in reverse order.
template <int W, int Window, bool Flipped>
__global__ void __launch_bounds__(kThreads, 2)
    forward_kernel(Depthwise s, int groups, int strips, const float* x, const float* w, BiasActivation epilogue, float beta,
                   float* y) {
  for_rows(s.N * s.P, static_cast<i64>(strips) * groups, [&](i64 row, i64 column) {
    const int at = static_cast<int>(column), strip = at / groups, f = (at - strip * groups) * W;
    const int n = static_cast<int>(row) / s.P, c = W == 4 ? f : f / (s.F / s.C);
    const int top = (static_cast<int>(row) - n * s.P) * s.stride_y - s.pad_y;
    // Unsigned: pixels behind the last one may lie anywhere.
    const unsigned left = static_cast<unsigned>(strip * kStrip) * static_cast<unsigned>(s.stride_x) - static_cast<unsigned>(s.pad_x);
    const unsigned width = static_cast<unsigned>(s.X);
    const float* image = x + static_cast<i64>(n) * s.Y * s.X * s.C + c;
    const float* tap = w + (Flipped ? s.R * s.S - 1 : 0) * static_cast<i64>(s.F) + f;
    const i64 next_tap = Flipped ? -static_cast<i64>(s.F) : s.F;
    Floats<W> sum[kStrip] = {};
#pragma unroll 1
    for (int r = 0; r < s.R; ++r) {
      const int iy = top + r * s.dilation_y;
      const bool there = static_cast<unsigned>(iy) < static_cast<unsigned>(s.Y);
      const float* line = image + static_cast<i64>(there ? iy : 0) * s.X * s.C;
      if constexpr (Window != 0) {
        Floats<W> v[Window + kStrip - 1];
#pragma unroll
        for (int j = 0; j < Window + kStrip - 1; ++j) {
          const unsigned ix = left + static_cast<unsigned>(j);
          v[j] = load_if<W>(there && ix < width, line + static_cast<i64>(ix) * s.C);
        }
#pragma unroll
        for (int t = 0; t < Window; ++t, tap += next_tap) {
          const Floats<W> factor = load<W>(tap);
#pragma unroll
          for (int k = 0; k < kStrip; ++k) sum[k] = multiply_add(v[k + t], factor, sum[k]);
        }
      } else {
        unsigned first = left;
#pragma unroll 1
        for (int t = 0; t < s.S; ++t, tap += next_tap, first += static_cast<unsigned>(s.dilation_x)) {
          const Floats<W> factor = load<W>(tap);
          Floats<W> v[kStrip];
#pragma unroll
          for (int k = 0; k < kStrip; ++k) {
            const unsigned ix = first + static_cast<unsigned>(k) * static_cast<unsigned>(s.stride_x);
            v[k] = load_if<W>(there && ix < width, line + static_cast<i64>(ix) * s.C);
          }
#pragma unroll
          for (int k = 0; k < kStrip; ++k) sum[k] = multiply_add(v[k], factor, sum[k]);
        }
      }
    }
#pragma unroll
    for (int k = 0; k < kStrip; ++k) {
      const int q = strip * kStrip + k;
      if (q < s.Q) finish(sum[k], row, f, (row * s.Q + q) * s.F + f, beta, epilogue, y);
    }
  });
}

template <bool Flipped>
void forward(const Depthwise& s, const float* x, const float* w, const BiasActivation& epilogue, float* y, float beta,
             void* stream) {
  const bool quads = s.C == s.F && s.C % 4 == 0 && aligned(x, w, y);
  const int groups = quads ? s.F / 4 : s.F, strips = (s.Q + kStrip - 1) / kStrip;
  const bool adjacent = s.stride_x == 1 && s.dilation_x == 1;
  const RowGrid g(s.N * s.P, static_cast<i64>(strips) * groups);
  const auto start = [&](auto kernel) {
    launch(kernel, g.grid, g.block, 0, stream, s, groups, strips, x, w, epilogue, beta, y);
  };
  if (adjacent && s.S == 3) {
    start(quads ? forward_kernel<4, 3, Flipped> : forward_kernel<1, 3, Flipped>);
  } else if (adjacent && s.S == 5) {
    start(quads ? forward_kernel<4, 5, Flipped> : forward_kernel<1, 5, Flipped>);
  } else {
    start(quads ? forward_kernel<4, 0, Flipped> : forward_kernel<1, 0, Flipped>);
  }
}

// Any stride: of every tap, the output that met this pixel there, if one did.
template <int W>
__global__ void __launch_bounds__(kThreads, 2) data_kernel(Depthwise s, int groups, const float* dy, const float* w,
                                                        BiasActivation epilogue, float beta, float* dx) {
  const int filters = s.F / s.C;
  for_rows(s.N * s.Y, static_cast<i64>(s.X) * groups, [&](i64 row, i64 column) {
    const int at = static_cast<int>(column), ix = at / groups, c = (at - ix * groups) * W;
    const int n = static_cast<int>(row) / s.Y, from_y = static_cast<int>(row) - n * s.Y + s.pad_y, from_x = ix + s.pad_x;
    Floats<W> sum = {};
#pragma unroll 1
    for (int r = s.R - 1; r >= 0; --r) {
      const int at_y = from_y - r * s.dilation_y, p = at_y / s.stride_y;
      if (p * s.stride_y != at_y) continue;
      const bool there = at_y >= 0 && p < s.P;
      const float* line = dy + (static_cast<i64>(n) * s.P + (there ? p : 0)) * s.Q * s.F + c * filters;
#pragma unroll 1
      for (int t = s.S - 1; t >= 0; --t) {
        const int at_x = from_x - t * s.dilation_x, q = at_x / s.stride_x;
        if (q * s.stride_x != at_x) continue;
        const bool inside = there && at_x >= 0 && q < s.Q;
        const float *from = line + static_cast<i64>(q) * s.F, *tap = w + static_cast<i64>(r * s.S + t) * s.F + c * filters;
#pragma unroll 1
        for (int f = 0; f < filters; ++f) sum = multiply_add(load_if<W>(inside, from + f), load<W>(tap + f), sum);
      }
    }
    finish(sum, row, c, (row * s.X + ix) * s.C + c, beta, epilogue, dx);
  });
}

// Taps T at a time (all in one row of the window) of filter f: threads along x are filters, along y groups of taps; blocks along
// y chunks, along z more taps. parts[chunk][taps][F], or with one chunk the result.
template <int T>
__global__ void __launch_bounds__(kThreads, 2) weight_kernel(Depthwise s, i64 chunks, const float* x, const float* dy, float beta,
                                                          float* parts) {
  const int f = static_cast<int>(blockIdx.x * 32 + threadIdx.x);
  const int group = static_cast<int>(blockIdx.z * blockDim.y + threadIdx.y), taps = s.R * s.S;
  if (f >= s.F || group * T >= taps) return;
  const int c = f / (s.F / s.C), r = group * T / s.S, t0 = group * T % s.S;
  const i64 pixels = s.N * s.P * s.Q;
  for (i64 chunk = blockIdx.y; chunk < chunks; chunk += gridDim.y) {
    i64 k = chunk * kChunk;
    const i64 end = k + kChunk < pixels ? k + kChunk : pixels;
    int row = static_cast<int>(k / s.Q), q = static_cast<int>(k - static_cast<i64>(row) * s.Q);
    float sum[T] = {};
#pragma unroll 1
    while (k < end) {
      const int n = row / s.P, iy = (row - n * s.P) * s.stride_y - s.pad_y + r * s.dilation_y;
      const bool there = static_cast<unsigned>(iy) < static_cast<unsigned>(s.Y);
      const float* line = x + (static_cast<i64>(n) * s.Y + (there ? iy : 0)) * s.X * s.C + c;
      const float* d = dy + k * s.F + f;
      const int run = static_cast<int>(s.Q - q < end - k ? s.Q - q : end - k);
      const unsigned width = there ? static_cast<unsigned>(s.X) : 0u;
      unsigned ix = static_cast<unsigned>(q * s.stride_x - s.pad_x + t0 * s.dilation_x);
#pragma unroll 4
      for (int j = 0; j < run; ++j, ix += static_cast<unsigned>(s.stride_x), d += s.F) {
        const float share = *d;
#pragma unroll
        for (int t = 0; t < T; ++t) {
          const unsigned at = ix + static_cast<unsigned>(t * s.dilation_x);
          sum[t] = fma(at < width ? line[static_cast<i64>(at) * s.C] : 0.0f, share, sum[t]);
        }
      }
      k += run;
      ++row;
      q = 0;
    }
#pragma unroll
    for (int t = 0; t < T; ++t) put(parts + (chunk * taps + group * T + t) * s.F + f, sum[t], beta);
  }
}

}  // namespace

void depthwise_forward(const Depthwise& s, const float* x, const float* w, const BiasActivation& epilogue, float* y,
                       void* stream) {
  BiasActivation end = epilogue;
  end.bias_step = 0;  // groups are columns here
  forward<false>(s, x, w, end, y, 0.0f, stream);
}

void depthwise_data(const Depthwise& s, const float* dy, const float* w, const BiasActivation& epilogue, float* dx, float beta,
                    void* stream) {
  BiasActivation end = epilogue;
  end.bias_step = 0;
  if (s.stride_y == 1 && s.stride_x == 1 && s.C == s.F) {
    Depthwise back = s;
    back.Y = s.P, back.X = s.Q, back.P = s.Y, back.Q = s.X;
    back.pad_y = s.dilation_y * (s.R - 1) - s.pad_y, back.pad_x = s.dilation_x * (s.S - 1) - s.pad_x;
    return forward<true>(back, dy, w, end, dx, beta, stream);
  }
  const bool quads = s.C == s.F && s.C % 4 == 0 && aligned(dy, w, dx);
  const int groups = quads ? s.C / 4 : s.C;
  const RowGrid g(s.N * s.Y, static_cast<i64>(s.X) * groups);
  launch(quads ? data_kernel<4> : data_kernel<1>, g.grid, g.block, 0, stream, s, groups, dy, w, end, beta, dx);
}

void depthwise_weight(const Depthwise& s, const float* x, const float* dy, float* work, float* dw, float beta, void* stream) {
  const i64 chunks = chunks_of(s.N * s.P * s.Q), taps = static_cast<i64>(s.R) * s.S, count = taps * s.F;
  const i64 each = s.S == 3 || s.S == 5 || s.S == 7 ? s.S : 1, groups = taps / each;
  const dim3 block(32, static_cast<unsigned>(groups < kThreads / 32 ? groups : kThreads / 32));
  const dim3 grid(blocks_for(s.F, 32, INT32_MAX), static_cast<unsigned>(chunks < 65535 ? chunks : 65535),
                  static_cast<unsigned>((groups + block.y - 1) / block.y));
  const auto kernel = each == 3 ? weight_kernel<3> : each == 5 ? weight_kernel<5> : each == 7 ? weight_kernel<7> : weight_kernel<1>;
  const bool one = chunks == 1;
  launch(kernel, grid, block, 0, stream, s, chunks, x, dy, one ? beta : 0.0f, one ? dw : work);
  if (!one) add_rows(chunks, count, work, beta, dw, stream);
}

}  // namespace fastdl
