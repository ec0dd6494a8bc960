// Softmax and losses. A row is a few vectors in the first-level cache: passes over it are cheap, its exponentials are
// not. Rows of few classes go kLanes at a time, a row to a lane: no lane of an exponential is idle, no sum folds lanes.
//
//     x  row 0: a b c ..          t[0]: a d g ..
//        row 1: d e f ..    ->    t[1]: b e h ..
//        row 2: g h i ..          t[2]: c f i ..
//
// All rows of such a width take this path, the last few beside idle lanes: what a row gives depends on its width alone.
#include "../formulas.h"
#include "../kernels.h"
#include "chains.h"

namespace fastdl {
namespace {

FASTDL_INLINE float max_of_row(i64 C, const float* x) {
  vec best = splat(-__builtin_inff());
  i64 c = 0;
  for (; c + kLanes <= C; c += kLanes) best = max_or_nan(best, load(x + c));
  if (c < C) {  // absent lanes stand for the row's first element
    best = max_or_nan(best, first_lanes(load_part(x + c, C - c), C - c, splat(x[0])));
  }
  return max_lanes(best);
}

// A vector after the other.
FASTDL_INLINE void add_up(vec& sum, vec v) { sum += v; }
FASTDL_INLINE void add_up(vec& sum, vec4 v) { sum = (((sum + v.a.a) + v.a.b) + v.b.a) + v.b.b; }

// e^(x - top) into y (which may be x; null: nowhere), the sum returned.
FASTDL_INLINE float exponentials(i64 C, const float* x, float top, float* y) {
  vec sum = {};
  for_chains(0, C, [&](i64 c, auto lanes) {
    const auto e = fastdl::exp(lanes.load(x + c) - top);
    if (y != nullptr) lanes.store(y + c, e);
    add_up(sum, lanes.only(e));
  });
  return sum_lanes(sum);
}

constexpr i64 kFewClasses = 31;  // from 32 on a row by itself is as fast

// `rows` rows of C from x on, at most kLanes; idle lanes repeat the first.
FASTDL_INLINE void rows_to_lanes(i64 C, i64 rows, const float* x, vec* t) {
  float* to = reinterpret_cast<float*>(t);
  for (i64 c = 0; c < C; ++c) {
#pragma GCC unroll 16
    for (i64 k = 0; k < kLanes; ++k) to[c * kLanes + k] = x[(k < rows ? k : 0) * C + c];
  }
}
FASTDL_INLINE void lanes_to_rows(i64 C, i64 rows, const vec* t, float* y) {
  const float* from = reinterpret_cast<const float*>(t);
  for (i64 k = 0; k < rows; ++k) {
    for (i64 c = 0; c < C; ++c) y[k * C + c] = from[c * kLanes + k];
  }
}

struct RowsInLanes {
  vec t[kFewClasses];
  vec top, sum;  // of x, of e^(x - top)
  vec below;     // sum of x - top, if `add_below`

  // t is e^(x - top) then, or x - top with `logarithms`.
  FASTDL_INLINE void exponentials(i64 C, i64 rows, const float* x, bool logarithms, bool add_below) {
    rows_to_lanes(C, rows, x, t);
    top = splat(-__builtin_inff());
    for (i64 c = 0; c < C; ++c) top = max_or_nan(top, t[c]);
    below = vec{};
    if (add_below) {
      for (i64 c = 0; c < C; ++c) below += t[c] - top;
    }
    sum = vec{};
    for (i64 first = 0; first < C; first += 8) {  // chunks: a long sum's error would grow with its length
      vec part = {};
      for (i64 c = first; c < C && c < first + 8; ++c) {
        const vec d = t[c] - top, e = exp(d);
        t[c] = logarithms ? d : e;
        part += e;
      }
      sum += part;
    }
  }
};

FASTDL_INLINE float dot(i64 C, const float* a, const float* b) {
  vec sum = {};
  for_vectors(0, C, [&](i64 c, auto lanes) { sum += lanes.load(a + c) * lanes.load(b + c); });
  return sum_lanes(sum);
}
FASTDL_INLINE float sum(i64 C, const float* a) {
  vec s = {};
  for_vectors(0, C, [&](i64 c, auto lanes) { s += lanes.load(a + c); });
  return sum_lanes(s);
}

// Sum of the weights of the rows that count.
float total_weight(i64 n, const int64_t* labels, const float* weights) {
  return ordered_sum(n, [=](i64 begin, i64 end) {
    float s = 0.0f;
    for (i64 i = begin; i < end; ++i) {
      if (labels == nullptr || labels[i] >= 0) s += weights == nullptr ? 1.0f : weights[i];
    }
    return s;
  });
}

template <int kind, class V>
FASTDL_INLINE V element_loss(V x, V t, V delta) {
  if constexpr (kind == kBinaryCrossEntropy) return binary_cross_entropy(x, t);
  if constexpr (kind == kSquaredError) return (x - t) * (x - t);
  if constexpr (kind == kAbsoluteError) return absolute(x - t);
  if constexpr (kind == kHuber) return huber(x - t, delta);
  if constexpr (kind == kHinge) return hinge(x, t);
}
template <int kind>
FASTDL_INLINE vec element_slope(vec x, vec t, vec delta) {
  if constexpr (kind == kBinaryCrossEntropy) return sigmoid(x) - t;
  if constexpr (kind == kSquaredError) return 2.0f * (x - t);
  if constexpr (kind == kAbsoluteError) return sign(x - t);
  if constexpr (kind == kHuber) return huber_slope(x - t, delta);
  if constexpr (kind == kHinge) return hinge_slope(x, t);
}

template <int kind>
float loss_sum(i64 n, const float* x, const float* t, const float* weights, float delta, float* elements) {
  return ordered_sum(n, [=](i64 begin, i64 end) {
    vec s = {};
    for_chains<kind == kBinaryCrossEntropy>(begin, end, [&](i64 i, auto lanes) {
      const auto many = all<typename decltype(lanes)::vector>(delta);
      const auto l = element_loss<kind>(lanes.load(x + i), lanes.load(t + i), many);
      if (elements != nullptr) lanes.store(elements + i, l);
      add_up(s, lanes.only(weights == nullptr ? l : l * lanes.load(weights + i)));
    });
    return sum_lanes(s);
  });
}

template <int kind>
void loss_slopes(i64 n, const float* x, const float* t, const float* weights, const float* dloss, float delta,
                 float share, bool by_element, float* dx, float beta) {
  with_beta(beta, [=](auto put) {
    for_elements(n, [=](i64 i, auto lanes) {
      vec factor = splat(share);
      if (by_element) {
        factor = lanes.load(dloss + i);
      } else if (weights != nullptr) {
        factor = share * lanes.load(weights + i);
      }
      put(lanes, dx + i, element_slope<kind>(lanes.load(x + i), lanes.load(t + i), splat(delta)) * factor);
    });
  });
}

}  // namespace

// Sums wait on the stack.
i64 softmax_cross_entropy_forward_workspace(i64, i64, i64) { return 0; }
i64 softmax_cross_entropy_backward_workspace(i64, i64, i64, i64, i64) { return 0; }
i64 loss_forward_workspace(i64, i64, i64) { return 0; }
i64 loss_backward_workspace(i64, i64, i64, i64, i64) { return 0; }

void softmax_forward(i64 n, i64 C, const float* x, int log_of_it, float* y, void*) {
  if (C == 0) return;
  if (C <= kFewClasses) {
    for_rows((n + kLanes - 1) / kLanes, 8 * C * kLanes, [=](i64 group) {
      const i64 r = group * kLanes, rows = n - r < kLanes ? n - r : kLanes;
      RowsInLanes lanes;
      lanes.exponentials(C, rows, x + r * C, log_of_it != 0, false);
      if (log_of_it) {
        const vec shift = log(lanes.sum);
        for (i64 c = 0; c < C; ++c) lanes.t[c] -= shift;
      } else {
        const vec scale = 1.0f / lanes.sum;
        for (i64 c = 0; c < C; ++c) lanes.t[c] *= scale;
      }
      lanes_to_rows(C, rows, lanes.t, y + r * C);
    });
    return;
  }
  for_rows(n, 8 * C, [=](i64 r) {
    const float* xr = x + r * C;
    float* yr = y + r * C;
    const float top = max_of_row(C, xr);
    if (log_of_it) {
      const float shift = log(exponentials(C, xr, top, nullptr));
      for_vectors(0, C, [=](i64 c, auto lanes) { lanes.store(yr + c, (lanes.load(xr + c) - top) - shift); });
    } else {
      const float scale = 1.0f / exponentials(C, xr, top, yr);
      for_vectors(0, C, [=](i64 c, auto lanes) { lanes.store(yr + c, lanes.load(yr + c) * scale); });
    }
  });
}

// softmax: dx = y (dy - sum dy y); log_softmax: dx = dy - e^y sum dy.
void softmax_backward(i64 n, i64 C, const float* y, const float* dy, int log_of_it, float* dx, float beta, void*) {
  with_beta(beta, [=](auto put) {
    for_rows(n, 2 * C, [=](i64 r) {
      const float *yr = y + r * C, *dr = dy + r * C;
      float* to = dx + r * C;
      if (log_of_it) {
        const float s = sum(C, dr);
        for_vectors(0, C,
                    [=](i64 c, auto lanes) { put(lanes, to + c, lanes.load(dr + c) - exp(lanes.load(yr + c)) * s); });
      } else {
        const float s = dot(C, yr, dr);
        for_vectors(0, C,
                    [=](i64 c, auto lanes) { put(lanes, to + c, lanes.load(yr + c) * (lanes.load(dr + c) - s)); });
      }
    });
  });
}

void softmax_cross_entropy_forward(i64 n, i64 C, const float* x, const int64_t* labels, const float* weights,
                                   float smoothing, int reduction, float*, float* loss, float* rows, float* p, void*) {
  constexpr i64 kBlock = 4096;  // rows whose losses wait on the stack to be added in order
  float losses[kBlock];
  float total = 0.0f;
  const i64 rows_at_once = kElementGrain / 8 / (C > 0 ? C : 1) + 1;
  for (i64 first = 0; first < n; first += kBlock) {
    const i64 count = n - first < kBlock ? n - first : kBlock;
    float* const row_loss = losses;
    parallel_for(count, rows_at_once, [=](i64 begin, i64 end) {
      if (C <= kFewClasses) {
        for (i64 i = begin; i < end; i += kLanes) {
          const i64 r = first + i, count_here = end - i < kLanes ? end - i : kLanes;
          RowsInLanes lanes;
          lanes.exponentials(C, count_here, x + r * C, false, smoothing != 0.0f);
          float at_label[kLanes] = {};
          for (i64 k = 0; k < count_here; ++k) {
            if (labels[r + k] >= 0) at_label[k] = x[(r + k) * C + labels[r + k]];
          }
          vec l = log(lanes.sum) - (1.0f - smoothing) * (load(at_label) - lanes.top);
          if (smoothing != 0.0f) l -= smoothing / static_cast<float>(C) * lanes.below;
          for (i64 k = 0; k < count_here; ++k) {
            const float lk = labels[r + k] < 0 ? 0.0f : l[k];
            if (rows != nullptr) rows[r + k] = lk;
            row_loss[i + k] = weights == nullptr || labels[r + k] < 0 ? lk : weights[r + k] * lk;
          }
          if (p != nullptr) {
            const vec scale = 1.0f / lanes.sum;
            for (i64 c = 0; c < C; ++c) lanes.t[c] *= scale;
            lanes_to_rows(C, count_here, lanes.t, p + r * C);
          }
        }
        return;
      }
      for (i64 i = begin; i < end; ++i) {
        const i64 r = first + i;
        const float* xr = x + r * C;
        const int64_t label = labels[r];
        float* pr = p == nullptr ? nullptr : p + r * C;
        float l = 0.0f;
        if (label >= 0 || pr != nullptr) {
          const float top = max_of_row(C, xr);
          const float s = exponentials(C, xr, top, pr);
          if (pr != nullptr) {
            const float scale = 1.0f / s;
            for_vectors(0, C, [=](i64 c, auto lanes) { lanes.store(pr + c, lanes.load(pr + c) * scale); });
          }
          if (label >= 0) {
            l = log(s) - (1.0f - smoothing) * (xr[label] - top);
            if (smoothing != 0.0f) {
              vec d = {};
              for_vectors(0, C, [&](i64 c, auto lanes) { d += lanes.only(lanes.load(xr + c) - top); });
              l -= smoothing / static_cast<float>(C) * sum_lanes(d);
            }
          }
        }
        if (rows != nullptr) rows[r] = l;
        row_loss[i] = label < 0 ? 0.0f : (weights == nullptr ? l : weights[r] * l);
      }
    });
    for (i64 at = 0; at < count; at += kSumChunk) {
      const i64 end = at + kSumChunk < count ? at + kSumChunk : count;
      float s = 0.0f;
      for (i64 i = at; i < end; ++i) s += losses[i];
      total += s;
    }
  }
  if (reduction == kReduceMean) {
    const float count = total_weight(n, labels, weights);
    if (count != 0.0f) total /= count;
  }
  loss[0] = total;
}

void softmax_cross_entropy_backward(i64 n, i64 C, i64, const float* p, const int64_t* labels, const float* weights,
                                    const float* dloss, float smoothing, int reduction, int by_row, float*, float* dx,
                                    float beta, void*) {
  float share = 1.0f;
  if (!by_row) {
    share = dloss[0];
    if (reduction == kReduceMean) {
      const float count = total_weight(n, labels, weights);
      if (count != 0.0f) share /= count;
    }
  }
  const float rest = smoothing / static_cast<float>(C);
  with_beta(beta, [=](auto put) {
    for_rows(n, C, [=](i64 r) {
      const int64_t label = labels[r];
      const float* pr = p + r * C;
      float* to = dx + r * C;
      if (label < 0) {
        for_vectors(0, C, [=](i64 c, auto lanes) { put(lanes, to + c, vec{}); });
        return;
      }
      const float factor = by_row ? dloss[r] : (weights == nullptr ? share : share * weights[r]);
      float at_label = beta == 0.0f ? 0.0f : to[label];
      put(&at_label, ((pr[label] - (1.0f - smoothing)) - rest) * factor);
      for_vectors(0, C, [=](i64 c, auto lanes) { put(lanes, to + c, (lanes.load(pr + c) - rest) * factor); });
      to[label] = at_label;
    });
  });
}

#define FASTDL_FOR_LOSS(call)                                   \
  switch (kind) {                                               \
    case kBinaryCrossEntropy: call(kBinaryCrossEntropy); break; \
    case kSquaredError: call(kSquaredError); break;             \
    case kAbsoluteError: call(kAbsoluteError); break;           \
    case kHuber: call(kHuber); break;                           \
    case kHinge: call(kHinge); break;                           \
  }

void loss_forward(i64 n, const float* x, const float* t, const float* weights, int kind, float delta, int reduction,
                  float*, float* loss, float* elements, void*) {
  float total = 0.0f;
#define FASTDL_CALL(k) total = loss_sum<k>(n, x, t, weights, delta, elements)
  FASTDL_FOR_LOSS(FASTDL_CALL)
#undef FASTDL_CALL
  if (reduction == kReduceMean) {
    const float count = weights == nullptr ? static_cast<float>(n) : total_weight(n, nullptr, weights);
    if (count != 0.0f) total /= count;
  }
  loss[0] = total;
}

void loss_backward(i64 n, i64, const float* x, const float* t, const float* weights, const float* dloss, int kind,
                   float delta, int reduction, int by_element, float*, float* dx, float beta, void*) {
  float share = by_element || n == 0 ? 1.0f : dloss[0];
  if (!by_element && reduction == kReduceMean) {
    const float count = weights == nullptr ? static_cast<float>(n) : total_weight(n, nullptr, weights);
    if (count != 0.0f) share /= count;
  }
#define FASTDL_CALL(k) loss_slopes<k>(n, x, t, weights, dloss, delta, share, by_element != 0, dx, beta)
  FASTDL_FOR_LOSS(FASTDL_CALL)
#undef FASTDL_CALL
}

}  // namespace fastdl
