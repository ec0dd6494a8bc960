// The formulas that host and device share, each written once: elementary functions, activations and their slopes, losses,
// optimiser updates. Random numbers (philox.h) and recurrent cells (cells.h) have files of their own. Everything is a template
// over T = float or vec (cpu/simd.h) in plain IEEE multiplications and additions: no fused operation, no table, no library
// call. So the same input gives the same bits on every target, in a vector's lanes and in a scalar loop alike. Compile with
// contraction off (-ffp-contract=off, nvcc -fmad=false, no fast-math).
//
// Errors stated below are the largest seen against float64 libm over the sweep named, in units in the last place (ulp) of
// the correctly rounded float32 result or relative to the true value; tests/test_math.py repeats the sweeps.
// NaN comes out wherever NaN goes in. Rounding is to nearest, and denormal inputs are honoured.
#pragma once
#include <stdint.h>
#include <string.h>

#if defined(__CUDACC__)
#define FASTDL_HD __host__ __device__ __forceinline__
#elif defined(FASTDL_DEVICE_CODE)  // device source that a host compiler reads
#define FASTDL_HD inline
#else
#include "cpu/simd.h"
#define FASTDL_HD FASTDL_INLINE
#endif

namespace fastdl {
namespace {

// ---------------------------------------------------------------------------------------------------------------------
// What the formulas are written in. simd.h has the same functions for vec.

FASTDL_HD int32_t bits(float x) {
  int32_t i;
  memcpy(&i, &x, 4);
  return i;
}
FASTDL_HD float from_bits(int32_t i) {
  float x;
  memcpy(&x, &i, 4);
  return x;
}
FASTDL_HD float select(bool mask, float yes, float no) { return mask ? yes : no; }
FASTDL_HD int32_t shift_left(int32_t i, int by) { return static_cast<int32_t>(static_cast<uint32_t>(i) << by); }
FASTDL_HD float to_float(int32_t i) { return static_cast<float>(i); }
FASTDL_HD float square_root(float x) {
#if defined(__CUDA_ARCH__)
  return __fsqrt_rn(x);
#else
  return __builtin_sqrtf(x);
#endif
}
// Written so that a NaN in x stays (the machine's own min and max return their second operand then).
FASTDL_HD float at_most(float x, float high) { return high < x ? high : x; }
FASTDL_HD float at_least(float x, float low) { return low > x ? low : x; }

template <class T>
FASTDL_HD T all(float x) {  // x in every lane
  return T{} + x;
}
template <class T>
FASTDL_HD T absolute(T x) {
  return from_bits(bits(x) & 0x7fffffff);
}
template <class T>
FASTDL_HD T with_sign_of(T magnitude, T sign) {
  return from_bits((bits(magnitude) & 0x7fffffff) | (bits(sign) & static_cast<int32_t>(0x80000000u)));
}
// The larger; NaN if either is NaN.
template <class T>
FASTDL_HD T max_or_nan(T a, T b) {
  return select(a == a, at_least(b, a), a);
}
template <class T>
FASTDL_HD T min_or_nan(T a, T b) {
  return select(a == a, at_most(b, a), a);
}

// ---------------------------------------------------------------------------------------------------------------------
// Exponential and logarithm

// x = n ln 2 + r with |r| <= ln 2 / 2, for |x| < 2^21: `excess` is r + r^2 q(r) = e^r - 1, `n` is an integer in the low
// bits of a float (see pow2). ln 2 is split so that n * kLn2High is exact; q is the minimax polynomial of
// (e^r - 1 - r) / r^2, off by 3e-9.
template <class T>
struct Reduced {
  T n;
  T excess;
};
constexpr float kLn2High = 0.693359375f;
constexpr float kLn2Low = -2.12194440e-4f;
constexpr float kRoundToInteger = 12582912.0f;  // 1.5 * 2^23: after adding it, the low bits hold the rounded integer

template <class T>
FASTDL_HD Reduced<T> reduce_exp(T x) {
  const T n = x * 1.44269504f + kRoundToInteger;
  const T whole = n - kRoundToInteger;
  const T r = (x - whole * kLn2High) - whole * kLn2Low;
  // Both halves of a polynomial at once: half the wait for one result after the other.
  const T rr = r * r;
  const T q =
      (0x1.555492p-3f * r + 0x1.fffffcp-2f) + rr * ((0x1.123a00p-7f * r + 0x1.5558f2p-5f) + rr * 0x1.6a2404p-10f);
  return {n, rr * q + r};
}
// 2^(n + shift) for n from reduce_exp; 0 where n + shift == -127.
template <class T>
FASTDL_HD T pow2(T n, int shift) {
  return from_bits(shift_left(bits(n) + (127 + shift), 23));
}

// e^x. At most 1.5 ulp where not flushed. Overflows to infinity where the correctly rounded result does
// (x > 88.722839). Results below 2^-125.5 = 1.66e-38 (x < -86.989) are flushed to zero, so that no denormal slows what
// follows.
template <class T>
FASTDL_HD T exp(T x) {
  x = at_least(at_most(x, all<T>(88.75f)), all<T>(-87.0f));
  const Reduced<T> e = reduce_exp(x);
  const T y = (1.0f + e.excess) * pow2(e.n, -1);  // half of it: 2^128 itself is not a float
  return y + y;
}

// e^x - 1 without cancellation for 0 <= x; x above 40 counts as 40.
template <class T>
FASTDL_HD T expm1_from_zero_to_40(T x) {
  const Reduced<T> e = reduce_exp(at_most(x, all<T>(40.0f)));
  const T scale = pow2(e.n, 0);
  return e.excess * scale + (scale - 1.0f);
}

// log(1 + f) + n ln 2 for sqrt(1/2) - 1 <= f <= sqrt(2) - 1 and an integer n. The cubic term's minimax polynomial is off
// by 7e-10.
template <class T>
FASTDL_HD T log_of_reduced(T f, T n) {
  const T ff = f * f, f4 = ff * ff;
  const T low = (0x1.555546p-2f - 0x1.ffffeep-3f * f) + ff * (0x1.99a546p-3f - 0x1.5562e4p-3f * f);
  const T high = (0x1.2332c0p-3f - 0x1.fb432ap-4f * f) + ff * (0x1.e650a6p-4f - 0x1.e2e9b8p-4f * f);
  const T p = low + f4 * (high + f4 * 0x1.1b42bcp-4f);
  T y = p * f * ff + n * kLn2Low;
  y = y - 0.5f * ff;
  return (f + y) + n * kLn2High;
}

// log x for normal, finite x > 0: the part of log that needs no care.
template <class T>
FASTDL_HD T log_of_normal(T x) {
  const auto above =
      bits(x) - 0x3f3504f3;  // 0x3f3504f3 is sqrt(1/2), so that the mantissa lands in [sqrt(1/2), sqrt(2))
  const auto n = above >> 23;
  return log_of_reduced(from_bits(bits(x) - shift_left(n, 23)) - 1.0f, to_float(n));
}

// log x. At most 0.8 ulp over all positive floats, denormals included; log(0) = -inf, log(inf) = inf, log(x < 0) = NaN.
template <class T>
FASTDL_HD T log(T x) {
  const auto small = x < 1.17549435e-38f;  // denormal: times 2^24
  const T scaled = select(small, x * 0x1p24f, x);
  const auto above = bits(scaled) - 0x3f3504f3;
  const auto n = above >> 23;
  const T m = from_bits(bits(scaled) - shift_left(n, 23));
  T y = log_of_reduced(m - 1.0f, to_float(n) - select(small, all<T>(24.0f), all<T>(0.0f)));
  y = select(x == __builtin_inff(), x, y);
  y = select(x == 0.0f, all<T>(-__builtin_inff()), y);
  y = select(x < 0.0f, all<T>(__builtin_nanf("")), y);
  return select(x == x, y, x);
}

// log(1 + e) for 0 <= e <= 1, without cancellation for small e.
template <class T>
FASTDL_HD T log1p_of_unit(T e) {
  const auto large = e > 0.41421356f;
  return log_of_reduced(select(large, 0.5f * e - 0.5f, e), select(large, all<T>(1.0f), all<T>(0.0f)));
}

// ---------------------------------------------------------------------------------------------------------------------
// Sine and cosine

template <class T>
struct SinCos {
  T sin;
  T cos;
};
// sin and cos of f quarter turns, -1/2 <= f <= 1/2, then turned by n (its two low bits) whole quarters.
template <class T, class I>
FASTDL_HD SinCos<T> sincos_of_quarters(T f, I n) {
  const T s2 = f * f;
  T s = -0x1.2d9bb8p-8f * s2 + 0x1.465ec6p-4f;
  s = s * s2 - 0x1.4abbbap-1f;
  s = (s * s2 + 0x1.921fb6p+0f) * f;
  T c = 0x1.d9f7bcp-11f * s2 - 0x1.55c664p-6f;
  c = c * s2 + 0x1.03c1dep-2f;
  c = (c * s2 - 0x1.3bd3ccp+0f) * s2 + 1.0f;
  const auto swap = (n & 1) != 0;
  const T sin = select(swap, c, s);
  const T cos = select(swap, s, c);
  return {from_bits(bits(sin) ^ shift_left(n & 2, 30)), from_bits(bits(cos) ^ shift_left((n + 1) & 2, 30))};
}
// sin and cos of 2 pi u for 0 <= u < 1, u a multiple of 2^-24: the reduction is exact.
template <class T>
FASTDL_HD SinCos<T> sincos_of_turn(T u) {
  const T quarters = 4.0f * u;
  const T n = quarters + kRoundToInteger;
  return sincos_of_quarters(quarters - (n - kRoundToInteger), bits(n));
}

// sin and cos of any x in radians, at most 2.5 ulp. x is counted in quarter turns in double precision with 2/pi in two parts, the first
// product exact; from 2^26 on by an integer product with the window of 2/pi's bits that matters (Payne & Hanek 1983).
FASTDL_HD SinCos<float> sincos(float x) {
  const int32_t magnitude = bits(x) & 0x7fffffff;
  if (magnitude >= 0x7f800000) return {x - x, x - x};  // infinite or NaN
  if (magnitude < 0x4c800000) {
    const double n = (0x1.45f306dc9c883p-1 * x + 0x1.8p52) - 0x1.8p52;
    const double f = (0x1.45f306cp-1 * x - n) + 0x1.c9c882a53f84fp-29 * x;
    return sincos_of_quarters(static_cast<float>(f), static_cast<int32_t>(n));
  }
  const uint32_t two_over_pi[7] = {0xa2f9836eu, 0x4e441529u, 0xfc2757d1u, 0xf534ddc0u,
                                   0xdb629599u, 0x3c439041u, 0xfe5163abu};
  const int first = (magnitude >> 23) - 150 - 2;  // bits before this one stand for whole turns
  uint32_t window[3];
  for (int i = 0; i < 3; ++i) {
    const int word = (first >> 5) + i;
    const uint64_t two = static_cast<uint64_t>(two_over_pi[word]) << 32 | two_over_pi[word + 1];
    window[i] = static_cast<uint32_t>(two >> (32 - (first & 31)));
  }
  const uint64_t m = static_cast<uint64_t>((magnitude & 0x7fffff) | 0x800000);
  const uint64_t middle = m * window[1] + (m * window[2] >> 32);
  const uint64_t turn = ((m * window[0]) << 32) + middle;  // x / (2 pi), its whole part dropped, times 2^64
  const float f = static_cast<float>(static_cast<double>(static_cast<int64_t>(turn << 2)) * 0x1p-64);
  const int32_t n = static_cast<int32_t>((turn + (uint64_t{1} << 61)) >> 62);
  return x < 0.0f ? SinCos<float>{-sincos_of_quarters(f, n).sin, sincos_of_quarters(f, n).cos}
                  : sincos_of_quarters(f, n);
}

// ---------------------------------------------------------------------------------------------------------------------
// Activations. A slope takes the saved output y where that is enough; gelu's takes the input z.

// 1 / (1 + e^-x). At most 2.4 ulp; below x = -88.7 the result is 0.
template <class T>
FASTDL_HD T sigmoid(T x) {
  return 1.0f / (1.0f + exp(-x));
}
template <class T>
FASTDL_HD T sigmoid_slope(T y) {
  return y * (1.0f - y);
}

// tanh x = m / (m + 2) with m = e^(2|x|) - 1, which keeps its relative accuracy near zero: at most 2.5 ulp, everywhere.
template <class T>
FASTDL_HD T tanh(T x) {
  const T a = absolute(x);
  const T m = expm1_from_zero_to_40(a + a);
  return with_sign_of(m / (m + 2.0f), x);
}
template <class T>
FASTDL_HD T tanh_slope(T y) {
  return 1.0f - y * y;
}

// log(1 + e^x). At most 1.6 ulp; below x = -87 the result is 0.
template <class T>
FASTDL_HD T softplus(T x) {
  return at_least(x, all<T>(0.0f)) + log1p_of_unit(exp(-absolute(x)));
}

template <class T>
FASTDL_HD T relu(T z) {
  return at_least(z, all<T>(0.0f));
}
template <class T>
FASTDL_HD T relu_backward(T dy, T y) {
  return select(y <= 0.0f, all<T>(0.0f), dy);
}
// slope: of the negative part, > 0, so that y's sign tells z's.
template <class T>
FASTDL_HD T leaky_relu(T z, T slope) {
  return select(z <= 0.0f, slope * z, z);
}
template <class T>
FASTDL_HD T leaky_relu_backward(T dy, T y, T slope) {
  return select(y <= 0.0f, slope * dy, dy);
}

// erfc(u) / 2 = gauss * t P(t), t = 1 / (1 + 0.35 u), for u >= 0 and gauss = e^(-u^2); P is the minimax polynomial in t on
// u in [0, 10], relative error 7e-9.
template <class T>
FASTDL_HD T half_erfc(T u, T gauss) {
  const T t = 1.0f / (1.0f + 0.35f * u);
  const T tt = t * t, t4 = tt * tt;
  const T low = (0x1.93bd46p-3f * t + 0x1.947260p-3f) + tt * (0x1.35a10ap-3f * t + 0x1.80d2fep-3f);
  const T high = (0x1.646d06p-4f * t + 0x1.2b185ep-3f) + tt * (0x1.73a196p-3f * t - 0x1.c5ea34p-6f);
  const T p = low + t4 * (high + t4 * (0x1.3a94bap-5f * t - 0x1.457c0ap-3f));
  return (0.5f * gauss) * (t * p);
}

// erf x for |x| < 3/4; with erf below at most 2.5 ulp.
template <class T>
FASTDL_HD T erf_near_zero(T x) {
  const T s = x * x;
  T p = -0x1.61de70p-11f * s + 0x1.4f2c7cp-8f;
  p = p * s - 0x1.b7a892p-6f;
  p = p * s + 0x1.ce2ac8p-4f;
  p = p * s - 0x1.81273ap-2f;
  p = p * s + 0x1.20dd74p+0f;
  return p * x;
}
template <class T>
FASTDL_HD T erf(T x) {
  const T c = half_erfc(absolute(x), exp(-(x * x)));
  return select(absolute(x) < 0.75f, erf_near_zero(x), with_sign_of(1.0f - (c + c), x));
}

// Phi(z) and phi(z) of the standard normal share what is dear.
template <class T>
struct Normal {
  T cdf;
  T density;
};
template <class T>
FASTDL_HD Normal<T> normal_distribution(T z) {
  const T x = z * 0.707106781f;
  const T gauss = exp(-0.5f * (z * z));
  const T tail = half_erfc(absolute(x), gauss);
  const T outside = select(z < 0.0f, tail, 1.0f - tail);
  return {select(absolute(x) < 0.75f, 0.5f + 0.5f * erf_near_zero(x), outside), gauss * 0.398942280f};
}
// gelu z = z Phi(z), the exact form (not the tanh approximation). Hendrycks & Gimpel (2016). At most 4.5 ulp for z > -1, 12
// for z > -5; the relative error grows as z^2 2^-24 in the left tail, where the value vanishes. gelu(-inf) is NaN, as 0 * inf is.
template <class T>
FASTDL_HD T gelu(T z) {
  return z * normal_distribution(z).cdf;
}
// Absolute error at most 2e-7.
template <class T>
FASTDL_HD T gelu_slope(T z) {
  const Normal<T> n = normal_distribution(z);
  return n.cdf + z * n.density;
}

// ---------------------------------------------------------------------------------------------------------------------
// Noisy rectified units (Nair & Hinton 2010): y = max(0, x + a normal number of variance sigmoid(x)), which stands for infinitely
// many Bernoulli units whose biases differ by one.

template <class T>
FASTDL_HD T noisy_relu(T x, T normal) {
  return at_least(x + square_root(sigmoid(x)) * normal, all<T>(0.0f));
}
// Its expected value x Phi(x/s) + s phi(x/s), s^2 = sigmoid(x).
template <class T>
FASTDL_HD T noisy_relu_mean(T x) {
  const T s = square_root(sigmoid(x));
  const Normal<T> n = normal_distribution(x / s);
  return at_least(x * n.cdf + s * n.density, all<T>(0.0f));
}
// The integral of log(1 + e^t) up to x: -Li2(-e^x), by t P(t) = -Li2(-t) on [0, 1], P minimax, off by 6e-8, and by the dilogarithm's
// inversion above 0.
template <class T>
FASTDL_HD T softplus_integral(T x) {
  const T t = exp(-absolute(x));
  T p = 0x1.93cfc2p-11f * t - 0x1.25f348p-8f;
  p = p * t + 0x1.9b8234p-7f;
  p = p * t - 0x1.89e4c8p-6f;
  p = p * t + 0x1.3e705ep-5f;
  p = p * t - 0x1.fe5d12p-5f;
  p = p * t + 0x1.c70960p-4f;
  p = p * t - 0x1.ffffa8p-3f;
  p = (p * t + 1.0f) * t;
  return select(x > 0.0f, 1.64493407f + (0.5f * x * x - p), p);
}

// ---------------------------------------------------------------------------------------------------------------------
// Losses of a prediction x against a target t, and their derivatives in x. d = x - t.

template <class T>
FASTDL_HD T binary_cross_entropy(T x, T t) {  // x: logit
  return (at_least(x, all<T>(0.0f)) - x * t) + log1p_of_unit(exp(-absolute(x)));
}
template <class T>
FASTDL_HD T huber(T d, T delta) {
  const T a = absolute(d);
  return select(a <= delta, 0.5f * d * d, delta * (a - 0.5f * delta));
}
template <class T>
FASTDL_HD T huber_slope(T d, T delta) {
  return at_least(at_most(d, delta), -delta);
}
template <class T>
FASTDL_HD T sign(T x) {  // 0 at 0
  return select(x > 0.0f, all<T>(1.0f), select(x < 0.0f, all<T>(-1.0f), x));
}
template <class T>
FASTDL_HD T hinge(T x, T t) {
  return at_least(1.0f - t * x, all<T>(0.0f));
}
template <class T>
FASTDL_HD T hinge_slope(T x, T t) {
  const T margin = 1.0f - t * x;
  return select(margin > 0.0f, -t, select(margin <= 0.0f, all<T>(0.0f), margin));
}

// ---------------------------------------------------------------------------------------------------------------------
// Optimiser updates: one parameter w with gradient g and state m, v.

template <class T>
FASTDL_HD void sgd_update(T g, float lr, float momentum, bool nesterov, float weight_decay, T& w, T& v) {
  g = g + weight_decay * w;
  v = momentum * v + g;
  w = w - lr * (nesterov ? g + momentum * v : v);
}
// Constants of one Adam step; the bias corrections are folded into two factors.
struct AdamStep {
  float beta1, beta2, one_minus_beta1, one_minus_beta2;
  float step;           // lr / (1 - beta1^t)
  float root;           // 1 / sqrt(1 - beta2^t)
  float eps, l2, keep;  // l2: weight decay in the gradient; keep: factor on w, 1 - lr weight_decay if decoupled
};
// Update t = 1, 2, ..., in double: the powers are close to 1 for long.
inline AdamStep adam_step(float beta1, float beta2, float eps, float weight_decay, bool decoupled, int64_t t,
                          float lr) {
  const double updates = static_cast<double>(t);
  AdamStep s;
  s.beta1 = beta1;
  s.beta2 = beta2;
  s.one_minus_beta1 = 1.0f - beta1;
  s.one_minus_beta2 = 1.0f - beta2;
  s.step = static_cast<float>(lr / (1.0 - __builtin_pow(beta1, updates)));
  s.root = static_cast<float>(1.0 / __builtin_sqrt(1.0 - __builtin_pow(beta2, updates)));
  s.eps = eps;
  s.l2 = decoupled ? 0.0f : weight_decay;
  s.keep = decoupled ? 1.0f - lr * weight_decay : 1.0f;
  return s;
}
template <class T>
FASTDL_HD void adam_update(T g, const AdamStep& s, T& w, T& m, T& v) {
  g = g + s.l2 * w;
  m = s.beta1 * m + s.one_minus_beta1 * g;
  v = s.beta2 * v + s.one_minus_beta2 * (g * g);
  w = s.keep * w - (s.step * m) / (square_root(v) * s.root + s.eps);
}
template <class T>
FASTDL_HD void rmsprop_update(T g, float lr, float rho, float eps, float weight_decay, T& w, T& v) {
  g = g + weight_decay * w;
  v = rho * v + (1.0f - rho) * (g * g);
  w = w - lr * g / (square_root(v) + eps);
}
template <class T>
FASTDL_HD void adagrad_update(T g, float lr, float eps, float weight_decay, T& w, T& v) {
  g = g + weight_decay * w;
  v = v + g * g;
  w = w - lr * g / (square_root(v) + eps);
}

// ---------------------------------------------------------------------------------------------------------------------
// Gaussian blur: weight[k] of the pixels k away, k = 0 .. radius = min(ceil(3 sigma), most), normalised. In double: a weight's
// own rounding is then the only one that matters, and there are few of them.
inline int blur_weights(float sigma, int most, float* weight) {
  const double s = static_cast<double>(sigma);
  const double wanted = s > 0.0 ? __builtin_ceil(3.0 * s) : 0.0;
  const int radius = wanted < most ? static_cast<int>(wanted) : most;
  double sum = 1.0;
  for (int k = 1; k <= radius; ++k) sum += 2.0 * __builtin_exp(-0.5 * k * k / (s * s));
  for (int k = 0; k <= radius; ++k) weight[k] = static_cast<float>(__builtin_exp(-0.5 * k * k / (s * s)) / sum);
  return radius;
}

}  // namespace
}  // namespace fastdl
