// Connectionist temporal classification: a block for each sample, a thread for some of its 2 S + 1 states, step after step
// of time. Rows of states lie in the workspace between two -inf on each side, as in csrc/cpu/ctc.cpp.
#include "formulas.h"
#include "launch.cuh"
#include "warp.cuh"

namespace fastdl {
namespace {

constexpr int kThreads = 128, kPad = 2;

__host__ __device__ i64 row_floats(i64 S) { return 2 * S + 1 + 2 * kPad; }
__device__ float never() { return -__builtin_inff(); }

__device__ float log_of_three(float a, float b, float c) {
  const float top = at_least(at_least(at_least(a, b), c), -1e30f);
  return log(exp(a - top) + exp(b - top) + exp(c - top)) + top;
}

struct Sample {
  i64 steps, states, C, row, blank;
  const float* logp;
  const int64_t* labels;

  __device__ Sample(i64 i, i64 T, i64 C_, i64 S, const float* logp_, const int64_t* labels_, const int64_t* lengths,
                    const int64_t* label_lengths, i64 blank_)
      : steps(lengths[i]), states(2 * label_lengths[i] + 1), C(C_), row(row_floats(S)), blank(blank_),
        logp(logp_ + i * T * C_), labels(labels_ + i * S) {}
  __device__ i64 label(i64 s) const { return s % 2 ? labels[s / 2] : blank; }
  __device__ float emit(i64 t, i64 s) const { return logp[t * C + label(s)]; }
  // 0 where state s may be reached from s - 2.
  __device__ float skip(i64 s) const {
    return s % 2 && s >= 3 && s < states && labels[s / 2] != labels[s / 2 - 1] ? 0.0f : never();
  }
  // The row of step t from that of t - 1 (t = 0: from nothing). The caller synchronises.
  __device__ void forward(i64 t, const float* before, float* alpha) const {
    for (i64 s = i64(threadIdx.x) - kPad; s < states + kPad; s += kThreads) {
      if (s < 0 || s >= states) {
        alpha[s] = never();
      } else if (t == 0) {
        alpha[s] = s < 2 ? emit(0, s) : never();
      } else {
        alpha[s] = log_of_three(before[s], before[s - 1], before[s - 2] + skip(s)) + emit(t, s);
      }
    }
  }
  __device__ float total(const float* alpha) const {
    const float a = alpha[states - 1], b = states > 1 ? alpha[states - 2] : never();
    const float top = at_least(at_least(a, b), -1e30f);
    return log(exp(a - top) + exp(b - top)) + top;
  }
};

// A warp for each row.
__global__ void __launch_bounds__(kThreads)
    log_softmax_rows(i64 rows, i64 T, i64 C, const float* x, const int64_t* lengths, float* y) {
  const int lane = threadIdx.x % 32;
  for (i64 r = i64(blockIdx.x) * (kThreads / 32) + threadIdx.x / 32; r < rows; r += i64(gridDim.x) * (kThreads / 32)) {
    const bool inside = r % T < lengths[r / T];
    float top = never(), sum = 0.0f;
    for (i64 c = lane; c < C; c += 32) top = max_or_nan(top, x[r * C + c]);
    top = warp_max(top);
    for (i64 c = lane; c < C; c += 32) sum += exp(x[r * C + c] - top);
    const float less = log(warp_sum(sum));
    for (i64 c = lane; c < C; c += 32) y[r * C + c] = inside ? (x[r * C + c] - top) - less : 0.0f;
  }
}

__global__ void __launch_bounds__(kThreads)
    losses(i64 N, i64 T, i64 C, i64 S, const float* logp, const int64_t* labels, const int64_t* lengths,
           const int64_t* label_lengths, i64 blank, float* work, float* loss) {
  for (i64 i = blockIdx.x; i < N; i += gridDim.x) {
    const Sample sample(i, T, C, S, logp, labels, lengths, label_lengths, blank);
    float* rows = work + i * 2 * sample.row + kPad;
    for (i64 t = 0; t < sample.steps; ++t) {
      sample.forward(t, rows + (t + 1) % 2 * sample.row, rows + t % 2 * sample.row);
      __syncthreads();
    }
    if (threadIdx.x == 0) {
      loss[i] = sample.steps > 0 ? -sample.total(rows + (sample.steps - 1) % 2 * sample.row)
                                 : (sample.states == 1 ? 0.0f : -never());
    }
  }
}

__global__ void __launch_bounds__(kThreads)
    gradients(i64 N, i64 T, i64 C, i64 S, const float* logp, const int64_t* labels, const int64_t* lengths,
              const int64_t* label_lengths, const float* dloss, i64 blank, float* work, float* dx, float beta) {
  for (i64 i = blockIdx.x; i < N; i += gridDim.x) {
    const Sample sample(i, T, C, S, logp, labels, lengths, label_lengths, blank);
    const i64 row = sample.row, states = sample.states, steps = sample.steps;
    float* own = work + i * ((T + 3) * row + C);
    float *alphas = own + kPad, *later = alphas + T * row, *at = later + 2 * row, *share = at - kPad + row;
    for (i64 t = 0; t < steps; ++t) {
      sample.forward(t, alphas + (t - 1) * row, alphas + t * row);
      __syncthreads();
    }
    const float total = steps > 0 ? sample.total(alphas + (steps - 1) * row) : never();
    const bool possible = total != never();  // a NaN is possible, and goes on
    for (i64 t = T - 1; t >= 0; --t) {
      float* to = dx + (i * T + t) * C;
      if (t >= steps || !possible) {
        for (i64 c = threadIdx.x; c < C; c += kThreads) to[c] = beta == 0.0f ? 0.0f : beta * to[c];
        continue;
      }
      // rest[s]: log probability of all that follows step t, from state s. Two rows take turns.
      float *rest = later + t % 2 * row, *next = later + (t + 1) % 2 * row;
      for (i64 s = i64(threadIdx.x) - kPad; s < states + kPad; s += kThreads) {
        if (s < 0 || s >= states) {
          rest[s] = never();
        } else if (t == steps - 1) {
          rest[s] = s >= states - 2 ? 0.0f : never();
        } else {
          const float a = next[s] + sample.emit(t + 1, s);
          const float b = s + 1 < states ? next[s + 1] + sample.emit(t + 1, s + 1) : never();
          const float c = s + 2 < states ? next[s + 2] + sample.emit(t + 1, s + 2) + sample.skip(s + 2) : never();
          rest[s] = log_of_three(a, b, c);
        }
        if (s >= 0 && s < states) at[s] = exp((alphas[t * row + s] + rest[s]) - total);
      }
      for (i64 c = threadIdx.x; c < C; c += kThreads) share[c] = 0.0f;
      __syncthreads();
      // A class is summed by the thread of the first state that has it, in the order of the states.
      for (i64 s = threadIdx.x; s < states; s += kThreads) {
        const i64 label = sample.label(s);
        bool first = true;
        for (i64 k = s - 2; k >= 0 && first; k -= 2) first = sample.label(k) != label;
        if (!first) continue;
        float sum = 0.0f;
        for (i64 k = s; k < states; k += 2) {
          if (sample.label(k) == label) sum += at[k];
        }
        share[label] = sum;
      }
      __syncthreads();
      const float scale = dloss[i];
      for (i64 c = threadIdx.x; c < C; c += kThreads) {
        const float value = (exp(sample.logp[t * C + c]) - share[c]) * scale;
        to[c] = beta == 0.0f ? value : value + beta * to[c];
      }
      __syncthreads();
    }
  }
}

unsigned blocks_of(i64 N) { return static_cast<unsigned>(N < (1 << 16) ? N : 1 << 16); }

}  // namespace

i64 ctc_forward_workspace(i64 N, i64, i64, i64 S) { return N * 2 * row_floats(S); }

void ctc_forward(i64 N, i64 T, i64 C, i64 S, const float* x, const int64_t* labels, const int64_t* lengths,
                 const int64_t* label_lengths, i64 blank, float* work, float* loss, float* logp, void* stream) {
  launch(log_softmax_rows, blocks_for(N * T, kThreads / 32), kThreads, 0, stream, N * T, T, C, x, lengths, logp);
  launch(losses, blocks_of(N), kThreads, 0, stream, N, T, C, S, logp, labels, lengths, label_lengths, blank, work, loss);
}

i64 ctc_backward_workspace(i64 N, i64 T, i64 C, i64 S) { return N * ((T + 3) * row_floats(S) + C); }

void ctc_backward(i64 N, i64 T, i64 C, i64 S, const float* logp, const int64_t* labels, const int64_t* lengths,
                  const int64_t* label_lengths, const float* dloss, i64 blank, float* work, float* dx, float beta,
                  void* stream) {
  launch(gradients, blocks_of(N), kThreads, 0, stream, N, T, C, S, logp, labels, lengths, label_lengths, dloss, blank, work,
         dx, beta);
}

}  // namespace fastdl
