// Connectionist temporal classification (Graves, Fernandez, Gomez & Schmidhuber 2006): the loss of a sequence of labels
// whose places in time are not known. Everything stays a logarithm; a row of states is computed in vectors.
//
// States of a sample, W = 2 S + 1 of them, for the labels a b b:
//
//      0     1    2     3    4     5    6        from a state: itself, the next, and the one after where that skips a
//    blank   a  blank   b  blank   b  blank      blank between two labels that differ
//
// A row lies between two paddings of -inf, so that no state asks whether its neighbours exist.
#include "../formulas.h"
#include "../kernels.h"
#include "loops.h"

namespace fastdl {
namespace {

const float kNever = -__builtin_inff();
constexpr i64 kPad = 2;

i64 row_floats(i64 S) { return 2 * S + 1 + 2 * kPad; }

// log(e^a + e^b + e^c); -inf where all are.
FASTDL_INLINE vec log_of_three(vec a, vec b, vec c) {
  const vec top = at_least(at_least(at_least(a, b), c), splat(-1e30f));
  return log(exp(a - top) + exp(b - top) + exp(c - top)) + top;
}

struct Sample {
  i64 steps, states, C, row;
  const float* logp;
  const int64_t* labels;
  i64 blank;
  float* skip;  // 0 where a state may be reached from the one before the last, else -inf
  float* emit;  // the states' log probabilities at one step

  i64 label(i64 s) const { return s % 2 ? labels[s / 2] : blank; }
  void prepare() const {
    for (i64 s = -kPad; s < states + kPad; ++s) {
      const bool may = s % 2 && s >= 3 && s < states && labels[s / 2] != labels[s / 2 - 1];
      skip[s] = may ? 0.0f : kNever;
      emit[s] = kNever;
    }
  }
  void gather(i64 t) const {
    const float* of_blank = logp + t * C;
    for (i64 s = 0; s < states; ++s) emit[s] = of_blank[label(s)];
  }
  void clear(float* states_row) const {
    for (i64 s = -kPad; s < states + kPad; ++s) states_row[s] = kNever;
  }
  // Before the first step only the imagined state before the first blank holds: a path may begin with blank or label.
  void begin(float* alpha) const {
    clear(alpha);
    gather(0);
    for (i64 s = 0; s < smaller_of(2, states); ++s) alpha[s] = emit[s];
  }
  void forward(const float* before, i64 t, float* alpha) const {
    clear(alpha);
    gather(t);
    const float *from = before, *may = skip, *now = emit;
    for_vectors(0, states, [=](i64 s, auto lanes) {
      const vec sum =
          log_of_three(lanes.load(from + s), lanes.load(from + s - 1), lanes.load(from + s - 2) + lanes.load(may + s));
      lanes.store(alpha + s, sum + lanes.load(now + s));
    });
  }
  // log p(labels) from the last row.
  float total(const float* alpha) const {
    const float a = alpha[states - 1], b = states > 1 ? alpha[states - 2] : kNever;
    const float top = at_least(at_least(a, b), -1e30f);
    return log(exp(a - top) + exp(b - top)) + top;
  }
  static i64 smaller_of(i64 a, i64 b) { return a < b ? a : b; }
};

Sample make_sample(i64 i, i64 T, i64 C, i64 S, const float* logp, const int64_t* labels, const int64_t* lengths,
                   const int64_t* label_lengths, i64 blank, float* work) {
  const i64 row = row_floats(S);
  const Sample s = {lengths[i],  2 * label_lengths[i] + 1, C, row, logp + i * T * C, labels + i * S, blank,
                    work + kPad, work + row + kPad};
  s.prepare();
  return s;
}

void log_softmax_row(i64 C, const float* x, float* y) {
  vec tops = splat(kNever);
  for_vectors(0, C, [&](i64 c, auto lanes) { tops = max_or_nan(tops, lanes.only(lanes.load(x + c), kNever)); });
  const float top = max_lanes(tops);
  vec sums = {};
  for_vectors(0, C, [&](i64 c, auto lanes) { sums += lanes.only(exp(lanes.load(x + c) - top)); });
  const float less = log(sum_lanes(sums));
  for_vectors(0, C, [=](i64 c, auto lanes) { lanes.store(y + c, (lanes.load(x + c) - top) - less); });
}

}  // namespace

i64 ctc_forward_workspace(i64 N, i64, i64, i64 S) { return N * 4 * row_floats(S); }

void ctc_forward(i64 N, i64 T, i64 C, i64 S, const float* x, const int64_t* labels, const int64_t* lengths,
                 const int64_t* label_lengths, i64 blank, float* work, float* loss, float* logp, void*) {
  for_rows(N * T, 8 * C, [=](i64 r) {
    if (r % T < lengths[r / T]) {
      log_softmax_row(C, x + r * C, logp + r * C);
    } else {
      memset(logp + r * C, 0, static_cast<size_t>(C) * sizeof(float));
    }
  });
  const i64 row = row_floats(S);
  parallel_for(N, 1, [=](i64 first, i64 last) {
    for (i64 i = first; i < last; ++i) {
      float* own = work + i * 4 * row;
      const Sample s = make_sample(i, T, C, S, logp, labels, lengths, label_lengths, blank, own);
      float *now = own + 2 * row + kPad, *before = now + row;
      if (s.steps == 0) {
        loss[i] = s.states == 1 ? 0.0f : -kNever;
        continue;
      }
      s.begin(now);
      for (i64 t = 1; t < s.steps; ++t) {
        float* swap = now;
        now = before;
        before = swap;
        s.forward(before, t, now);
      }
      loss[i] = -s.total(now);
    }
  });
}

i64 ctc_backward_workspace(i64 N, i64 T, i64 C, i64 S) { return N * ((4 + T) * row_floats(S) + C); }

void ctc_backward(i64 N, i64 T, i64 C, i64 S, const float* logp, const int64_t* labels, const int64_t* lengths,
                  const int64_t* label_lengths, const float* dloss, i64 blank, float* work, float* dx, float beta,
                  void*) {
  const i64 row = row_floats(S), each = (4 + T) * row + C;
  parallel_for(N, 1, [=](i64 first, i64 last) {
    for (i64 i = first; i < last; ++i) {
      float* own = work + i * each;
      const Sample s = make_sample(i, T, C, S, logp, labels, lengths, label_lengths, blank, own);
      float *later = own + 2 * row + kPad, *after = later + row, *alphas = after + row,
            *share = alphas - kPad + T * row;
      if (s.steps > 0) {
        s.begin(alphas);
        for (i64 t = 1; t < s.steps; ++t) s.forward(alphas + (t - 1) * row, t, alphas + t * row);
      }
      const float total = s.steps > 0 ? s.total(alphas + (s.steps - 1) * row) : kNever;
      const bool possible = total != kNever;  // a NaN is possible, and goes on
      for (i64 t = T - 1; t >= 0; --t) {
        float* to = dx + (i * T + t) * C;
        const float* lp = s.logp + t * C;
        if (t >= s.steps || !possible) {
          with_beta(beta, [=](auto put) { for_vectors(0, C, [=](i64 c, auto lanes) { put(lanes, to + c, vec{}); }); });
          continue;
        }
        // later[s]: log probability of all that follows step t, from state s; after: that with step t + 1's own.
        if (t == s.steps - 1) {
          s.clear(later);
          s.clear(after);
          for (i64 k = s.states - 1; k >= 0 && k >= s.states - 2; --k) later[k] = 0.0f;
        } else {
          const float *next = later, *may = s.skip, *emitted = s.emit;  // emit is that of step t + 1 still
          float *sum = after, *result = later;
          for_vectors(0, s.states,
                      [=](i64 k, auto lanes) { lanes.store(sum + k, lanes.load(next + k) + lanes.load(emitted + k)); });
          for_vectors(0, s.states, [=](i64 k, auto lanes) {
            lanes.store(result + k, log_of_three(lanes.load(sum + k), lanes.load(sum + k + 1),
                                                 lanes.load(sum + k + 2) + lanes.load(may + k + 2)));
          });
        }
        s.gather(t);
        memset(share, 0, static_cast<size_t>(C) * sizeof(float));
        const float* alpha = alphas + t * row;
        const float* rest = later;
        float* at = after;
        for_vectors(0, s.states, [=](i64 k, auto lanes) {
          lanes.store(at + k, exp((lanes.load(alpha + k) + lanes.load(rest + k)) - total));
        });
        for (i64 k = 0; k < s.states; ++k) share[s.label(k)] += at[k];
        const float scale = dloss[i];
        const float* taken = share;
        with_beta(beta, [=](auto put) {
          for_vectors(0, C, [=](i64 c, auto lanes) {
            put(lanes, to + c, (exp(lanes.load(lp + c)) - lanes.load(taken + c)) * scale);
          });
        });
      }
    }
  });
}

}  // namespace fastdl
