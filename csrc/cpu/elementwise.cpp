// Kernels that go through their arrays once: activations, unary and binary operations, reductions over a middle axis,
// columns. All but the transcendental ones are bound by memory.
#include "../formulas.h"
#include "../kernels.h"
#include "chains.h"

namespace fastdl {
namespace {

// A scalar function in every lane: for the few operations whose speed nothing depends on.
template <class F>
FASTDL_INLINE vec lane_by_lane(vec x, const F& f) {
  vec y;
  for (int i = 0; i < kLanes; ++i) y[i] = f(x[i]);
  return y;
}
FASTDL_INLINE vec sine(vec x) {
  return lane_by_lane(x, [](float v) { return sincos(v).sin; });
}
FASTDL_INLINE vec cosine(vec x) {
  return lane_by_lane(x, [](float v) { return sincos(v).cos; });
}

template <class F>
FASTDL_INLINE void map(i64 n, const float* x, float* y, const F& f) {
  for_elements(n, [=](i64 i, auto lanes) { lanes.store(y + i, f(lanes.load(x + i))); });
}

// For what takes tens of operations an element: f is generic.
template <class F>
FASTDL_INLINE void map_chains(i64 n, const float* x, float* y, const F& f) {
  parallel_for(n, kElementGrain, [=](i64 begin, i64 end) {
    for_chains(begin, end, [=](i64 i, auto lanes) { lanes.store(y + i, f(lanes.load(x + i))); });
  });
}

template <class F>
FASTDL_INLINE void map2(i64 n, const float* x, const float* dy, float* dx, float beta, const F& f) {
  with_beta(beta, [=](auto put) {
    for_elements(n, [=](i64 i, auto lanes) { put(lanes, dx + i, f(lanes.load(x + i), lanes.load(dy + i))); });
  });
}

template <class F>
FASTDL_INLINE void broadcast(i64 L, i64 n, const float* x, const float* y, float* z, const F& f) {
  if (n == 1) {
    const vec yi = splat(L > 0 ? y[0] : 0.0f);
    for_elements(L, [=](i64 i, auto lanes) { lanes.store(z + i, f(lanes.load(x + i), yi)); });
  } else if (L == 1) {
    for_elements(n, [=](i64 i, auto lanes) { lanes.store(z + i, f(lanes.load(x + i), lanes.load(y + i))); });
  } else {
    for_rows(L, n, [=](i64 r) {
      const float* xr = x + r * n;
      float* zr = z + r * n;
      for_vectors(0, n, [=](i64 i, auto lanes) { lanes.store(zr + i, f(lanes.load(xr + i), lanes.load(y + i))); });
    });
  }
}

// Sum of `count` floats: chunks of 256, sequential inside; their sums in chunks of 256 again, and so on: the order of every sum
// along an axis. Eight chunks advance together, so that their additions overlap.
float sum_in_order(const float* x, i64 count) {
  float total = 0.0f;
  if (count > kSumChunk * kSumChunk) {
    i64 span = kSumChunk * kSumChunk;
    while (count / kSumChunk >= span && count > span * kSumChunk) span *= kSumChunk;
    for (i64 at = 0; at < count; at += span) total += sum_in_order(x + at, count - at < span ? count - at : span);
    return total;
  }
  i64 at = 0;
  for (; at + 8 * kSumChunk <= count; at += 8 * kSumChunk) {
    float s[8] = {};
    for (i64 i = 0; i < kSumChunk; ++i) {
#pragma GCC unroll 8
      for (int k = 0; k < 8; ++k) s[k] += x[at + k * kSumChunk + i];
    }
    for (int k = 0; k < 8; ++k) total += s[k];
  }
  for (; at < count; at += kSumChunk) {
    const i64 end = at + kSumChunk < count ? at + kSumChunk : count;
    float s = 0.0f;
    for (i64 i = at; i < end; ++i) s += x[i];
    total += s;
  }
  return total;
}
// The same order for up to 256 numbers in each of eight neighbouring rows.
void sum_short_rows(const float* x, i64 count, float* y) {
  float s[8] = {};
  for (i64 i = 0; i < count; ++i) {
#pragma GCC unroll 8
    for (int k = 0; k < 8; ++k) s[k] += x[k * count + i];
  }
  for (int k = 0; k < 8; ++k) y[k] = 0.0f + s[k];
}

template <int W>
struct Width {
  static constexpr int value = W;
};

// One slab x[B,C] -> y[C] for columns [begin, end): four vectors of columns at a time.
template <class Start, class Step>
FASTDL_INLINE void reduce_columns(i64 B, i64 C, i64 begin, i64 end, const float* x, float* y, bool chunked,
                                  const Start& start, const Step& step) {
  const auto columns = [&](i64 c, auto lanes, auto width) {
    constexpr int W = decltype(width)::value;
    constexpr int kLevels = 7;  // chunks of 256, 256 chunks, ...
    vec level[kLevels][W];
    for (auto& sums : level)
      for (int k = 0; k < W; ++k) sums[k] = start();
    const i64 chunk = chunked ? kSumChunk : (B > 0 ? B : 1);
    int highest = 0;
    while (chunked && highest < kLevels - 1 && (B - 1) >> 8 * (highest + 2) > 0) ++highest;
    for (i64 at = 0; at < B; at += chunk) {
      const i64 stop = at + chunk < B ? at + chunk : B;
      vec part[W];
      for (int k = 0; k < W; ++k) part[k] = start();
      for (i64 b = at; b < stop; ++b) {
        const float* row = x + b * C + c;
        for (int k = 0; k < W; ++k) part[k] = step(part[k], lanes.load(row + k * kLanes));
      }
      for (int k = 0; k < W; ++k) level[0][k] = step(level[0][k], part[k]);
      for (int l = 0; l < highest && (stop == B || stop % (i64{1} << 8 * (l + 2)) == 0); ++l) {
        for (int k = 0; k < W; ++k) {
          level[l + 1][k] = step(level[l + 1][k], level[l][k]);
          level[l][k] = start();
        }
      }
    }
    for (int k = 0; k < W; ++k) lanes.store(y + c + k * kLanes, level[highest][k]);
  };
  i64 c = begin;
  for (; c + 4 * kLanes <= end; c += 4 * kLanes) columns(c, Whole{}, Width<4>{});
  for_vectors(c, end, [&](i64 i, auto lanes) { columns(i, lanes, Width<1>{}); });
}

template <class Start, class Step>
void reduce(i64 A, i64 B, i64 C, const float* x, float* y, bool chunked, const Start& start, const Step& step) {
  const i64 block = 128;
  const i64 blocks = (C + block - 1) / block;
  const i64 work = B * (C < block ? C : block);
  const i64 grain = kElementGrain / (work > 0 ? work : 1);
  parallel_for(A * blocks, grain > 0 ? grain : 1, [&](i64 first, i64 last) {
    for (i64 i = first; i < last; ++i) {
      const i64 a = i / blocks, begin = i % blocks * block;
      reduce_columns(B, C, begin, begin + block < C ? begin + block : C, x + a * B * C, y + a * C, chunked, start,
                     step);
    }
  });
}

template <class Better>
void reduce_contiguous(i64 A, i64 B, const float* x, float* y, float start, const Better& better) {
  for_rows(A, B, [=](i64 a) {
    const float* row = x + a * B;
    vec best = splat(start);
    i64 i = 0;
    for (; i + kLanes <= B; i += kLanes) best = better(best, load(row + i));
    float lanes[kLanes];
    store(lanes, best);
    float r = start;
    for (int k = 0; k < kLanes; ++k) r = better(r, lanes[k]);
    for (; i < B; ++i) r = better(r, row[i]);
    y[a] = r;
  });
}

}  // namespace

void activation_forward(i64 n, const float* x, int act, float slope, float* y, void*) {
  switch (act) {
    case kRelu: return map(n, x, y, [](vec z) { return relu(z); });
    case kLeakyRelu: return map(n, x, y, [=](vec z) { return leaky_relu(z, splat(slope)); });
    case kSigmoid: return map_chains(n, x, y, [](auto z) { return fastdl::sigmoid(z); });
    case kTanh: return map_chains(n, x, y, [](auto z) { return fastdl::tanh(z); });
    case kGelu: return map(n, x, y, [](vec z) { return gelu(z); });
    default: return map(n, x, y, [](vec z) { return z; });
  }
}

void activation_backward(i64 n, const float* saved, const float* dy, int act, float slope, float* dx, float beta,
                         void*) {
  switch (act) {
    case kRelu: return map2(n, saved, dy, dx, beta, [](vec y, vec d) { return relu_backward(d, y); });
    case kLeakyRelu:
      return map2(n, saved, dy, dx, beta, [=](vec y, vec d) { return leaky_relu_backward(d, y, splat(slope)); });
    case kSigmoid: return map2(n, saved, dy, dx, beta, [](vec y, vec d) { return d * sigmoid_slope(y); });
    case kTanh: return map2(n, saved, dy, dx, beta, [](vec y, vec d) { return d * tanh_slope(y); });
    case kGelu: return map2(n, saved, dy, dx, beta, [](vec z, vec d) { return d * gelu_slope(z); });
    default: return map2(n, dy, dy, dx, beta, [](vec, vec d) { return d; });
  }
}

void unary_forward(i64 n, const float* x, int op, float* y, void*) {
  switch (op) {
    case kNegate: return map(n, x, y, [](vec v) { return -v; });
    case kAbs: return map(n, x, y, [](vec v) { return absolute(v); });
    case kSquare: return map(n, x, y, [](vec v) { return v * v; });
    case kSqrt: return map(n, x, y, [](vec v) { return square_root(v); });
    case kReciprocal: return map(n, x, y, [](vec v) { return 1.0f / v; });
    case kExp: return map_chains(n, x, y, [](auto v) { return fastdl::exp(v); });
    case kLog: return map(n, x, y, [](vec v) { return log(v); });
    case kSoftplus: return map_chains(n, x, y, [](auto v) { return fastdl::softplus(v); });
    case kSin: return map(n, x, y, [](vec v) { return sine(v); });
    case kCos: return map(n, x, y, [](vec v) { return cosine(v); });
  }
}

void unary_backward(i64 n, const float* x, const float* dy, int op, float* dx, float beta, void*) {
  switch (op) {
    case kNegate: return map2(n, x, dy, dx, beta, [](vec, vec d) { return -d; });
    case kAbs: return map2(n, x, dy, dx, beta, [](vec v, vec d) { return d * sign(v); });
    case kSquare: return map2(n, x, dy, dx, beta, [](vec v, vec d) { return d * (v + v); });
    case kSqrt: return map2(n, x, dy, dx, beta, [](vec v, vec d) { return d * (0.5f / square_root(v)); });
    case kReciprocal:
      return map2(n, x, dy, dx, beta, [](vec v, vec d) {
        const vec r = 1.0f / v;
        return -(d * r) * r;
      });
    case kExp: return map2(n, x, dy, dx, beta, [](vec v, vec d) { return d * exp(v); });
    case kLog: return map2(n, x, dy, dx, beta, [](vec v, vec d) { return d / v; });
    case kSoftplus: return map2(n, x, dy, dx, beta, [](vec v, vec d) { return d * sigmoid(v); });
    case kSin: return map2(n, x, dy, dx, beta, [](vec v, vec d) { return d * cosine(v); });
    case kCos: return map2(n, x, dy, dx, beta, [](vec v, vec d) { return -d * sine(v); });
  }
}

void binary(i64 L, i64 n, const float* x, const float* y, int op, float* z, void*) {
  switch (op) {
    case kAdd: return broadcast(L, n, x, y, z, [](vec a, vec b) { return a + b; });
    case kSubtract: return broadcast(L, n, x, y, z, [](vec a, vec b) { return a - b; });
    case kMultiply: return broadcast(L, n, x, y, z, [](vec a, vec b) { return a * b; });
    case kDivide: return broadcast(L, n, x, y, z, [](vec a, vec b) { return a / b; });
    case kMaximum: return broadcast(L, n, x, y, z, [](vec a, vec b) { return max_or_nan(a, b); });
    case kMinimum: return broadcast(L, n, x, y, z, [](vec a, vec b) { return min_or_nan(a, b); });
  }
}

void axpby(i64 n, float a, const float* x, float b, float* y, void*) {
  with_beta(b,
            [=](auto put) { for_elements(n, [=](i64 i, auto lanes) { put(lanes, y + i, a * lanes.load(x + i)); }); });
}

i64 reduce_forward_workspace(i64, i64, i64, i64) { return 0; }

void reduce_forward(i64 A, i64 B, i64 C, const float* x, int op, float*, float* y, void*) {
  if (op == kMax) {
    const float start = -__builtin_inff();
    const auto better = [](auto a, auto b) { return max_or_nan(a, b); };
    if (C == 1) return reduce_contiguous(A, B, x, y, start, better);
    return reduce(A, B, C, x, y, false, [=] { return splat(start); }, better);
  }
  if (op == kMin) {
    const float start = __builtin_inff();
    const auto better = [](auto a, auto b) { return min_or_nan(a, b); };
    if (C == 1) return reduce_contiguous(A, B, x, y, start, better);
    return reduce(A, B, C, x, y, false, [=] { return splat(start); }, better);
  }
  if (C != 1) {
    reduce(A, B, C, x, y, true, [] { return vec{}; }, [](vec a, vec b) { return a + b; });
  } else if (B <= kSumChunk) {
    parallel_for((A + 7) / 8, 512 / (B / 8 + 1) + 1, [=](i64 first, i64 last) {
      for (i64 i = first; i < last; ++i) {
        if (8 * i + 8 <= A) {
          sum_short_rows(x + 8 * i * B, B, y + 8 * i);
        } else {
          for (i64 a = 8 * i; a < A; ++a) y[a] = sum_in_order(x + a * B, B);
        }
      }
    });
  } else {
    for_rows(A, B, [=](i64 a) { y[a] = sum_in_order(x + a * B, B); });
  }
  if (op == kMean) {
    const float count = static_cast<float>(B);
    for_elements(A * C, [=](i64 i, auto lanes) { lanes.store(y + i, lanes.load(y + i) / count); });
  }
}

void reduce_backward(i64 A, i64 B, i64 C, const float* x, const float* y, const float* dy, int op, float* dx,
                     float beta, void*) {
  with_beta(beta, [=](auto put) {
    if (op == kSum || op == kMean) {
      const float count = op == kMean ? static_cast<float>(B) : 1.0f;
      if (C == 1) {
        for_rows(A, B, [=](i64 a) {
          const vec d = splat(dy[a] / count);
          float* row = dx + a * B;
          for_vectors(0, B, [=](i64 b, auto lanes) { put(lanes, row + b, d); });
        });
        return;
      }
      for_rows(A * B, C, [=](i64 r) {
        const float* from = dy + r / B * C;
        float* row = dx + r * C;
        for_vectors(0, C, [=](i64 c, auto lanes) { put(lanes, row + c, lanes.load(from + c) / count); });
      });
      return;
    }
    for_rows(A, B * C, [=](i64 a) {
      for (i64 c = 0; c < C; ++c) {
        const float held = y[a * C + c];
        bool given = false;
        for (i64 b = 0; b < B; ++b) {
          const i64 at = (a * B + b) * C + c;
          const bool here = !given && (x[at] == held || (x[at] != x[at] && held != held));
          put(dx + at, here ? dy[a * C + c] : 0.0f);
          given = given || here;
        }
      }
    });
  });
}

void argmax(i64 A, i64 B, i64 C, const float* x, int64_t* index, void*) {
  for_rows(A, B * C, [=](i64 a) {
    for (i64 c = 0; c < C; ++c) {
      const float* column = x + a * B * C + c;
      i64 best = 0;
      for (i64 b = 1; b < B; ++b) {
        const float held = column[best * C], here = column[b * C];
        if (here > held || (here != here && held == held)) best = b;
      }
      index[a * C + c] = best;
    }
  });
}

i64 sum_squares_workspace(i64) { return 0; }

void sum_squares(i64 n, const float* x, float*, float* y, void*) {
  y[0] = ordered_sum(n, [=](i64 begin, i64 end) {
    vec s = {};
    for_vectors(begin, end, [&](i64 i, auto lanes) {
      const vec v = lanes.load(x + i);
      s += v * v;
    });
    return sum_lanes(s);
  });
}

void get_columns(i64 L, i64 W, i64 n, const float* x, i64 at, float* y, float beta, void*) {
  with_beta(beta, [=](auto put) {
    for_rows(L, n, [=](i64 r) {
      const float* from = x + r * W + at;
      float* to = y + r * n;
      for_vectors(0, n, [=](i64 i, auto lanes) { put(lanes, to + i, lanes.load(from + i)); });
    });
  });
}

void put_columns(i64 L, i64 W, i64 n, const float* x, i64 at, float* y, float beta, void*) {
  with_beta(beta, [=](auto put) {
    for_rows(L, n, [=](i64 r) {
      const float* from = x + r * n;
      float* to = y + r * W + at;
      for_vectors(0, n, [=](i64 i, auto lanes) { put(lanes, to + i, lanes.load(from + i)); });
    });
  });
}

}  // namespace fastdl
