// Gibbs sampling in restricted Boltzmann machines: bias, sigmoid and random draw in the product's epilogue.
//
//      v [N,V] --- w [V,H] ---> sums in registers --- + c, sigmoid, Philox, u < p ---> h [N,H]       KMajor x MNMajor
//      h [N,H] --- w^T -------> the same                                        ---> v [N,V]       KMajor x KMajor
//
// Four neighbours of a row share a Philox block, so a thread draws them with one; the key is the element, not the thread.
// Products of samples stay in float32: a probability that tf32 has rounded would draw another unit.
#include "gemm.cuh"
#include "loops.cuh"
#include "philox.h"

namespace fastdl {
namespace {

// Where a layer's draws begin; a row's own blocks begin 2^38 apart.
struct Draws {
  uint64_t seed, block;
  explicit Draws(const StepState* step) : seed(step->seed), block((step->offset >> 2) + (step->offset & 3 ? 1 : 0)) {}
  __device__ Words4 words(i64 row, i64 unit) const {
    return philox_block(seed, block + (static_cast<uint64_t>(row) << 38) + static_cast<uint64_t>(unit >> 2));
  }
  __device__ float uniform(i64 row, i64 unit) const { return uniform_from_word(words(row, unit).w[unit & 3]); }
  __device__ float normal(i64 row, i64 unit) const {
    const Words4 b = words(row, unit);
    const int k = static_cast<int>(unit & 2);
    const Pair<float> pair = normal_pair(uniform_from_word(b.w[k]), uniform_from_word(b.w[k + 1]));
    return unit & 1 ? pair.second : pair.first;
  }
  void next(i64 width) { block += static_cast<uint64_t>((width + 3) >> 2); }
};

struct Layer {
  i64 width;
  const float *bias, *base, *gain;
  const float* gain_of_all;  // one number, where gain is null; null: 1
  const float* variance;
  int unit;
  i64 group;
};

// The epilogue: inputs of the units, and Bernoulli units at once.
struct Draw {
  static constexpr bool kTensorCores = false;
  Layer layer;
  Draws draws;
  float *mean, *sample;  // either may be null; the sums are in one that is not

  __device__ void operator()(float (&v)[4], const Place& at) const {
    const float g = layer.gain ? layer.gain[at.m] : layer.gain_of_all ? *layer.gain_of_all : 1.0f;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (i >= at.count) break;
      v[i] = g * (v[i] + layer.bias[at.n + i]);
      if (layer.base) v[i] += (1.0f - g) * layer.base[at.n + i];
    }
    if (layer.unit == kBernoulliUnit) bernoulli(v, at.m, at.n, at.count);
  }
  // Inputs become samples, or means where no sample is wanted. n is a multiple of 4: one block is enough.
  __device__ void bernoulli(float (&v)[4], i64 m, i64 n, int count) const {
    Words4 b = {};
    if (sample) b = draws.words(m, n);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (i >= count) break;
      const float p = sigmoid(v[i]);
      v[i] = p;
      if (!sample) continue;
      if (mean) mean[m * layer.width + n + i] = p;
      const float drawn = uniform_from_word(b.w[i]) < p ? 1.0f : 0.0f;
      v[i] = p == p ? drawn : p;
    }
  }
};

// Gaussian and rectified units from their inputs z, which may be mean or sample.
__global__ void draw_kernel(i64 N, Draw d, const float* z) {
  const i64 width = d.layer.width;
  for_rows(N, width, [=](i64 m, i64 n) {
    const i64 at = m * width + n;
    const float a = z[at];
    if (d.layer.unit == kReluUnit) {
      if (d.sample) d.sample[at] = noisy_relu(a, d.draws.normal(m, n));
      if (d.mean) d.mean[at] = noisy_relu_mean(a);
      return;
    }
    if (d.sample) {
      float noise = d.draws.normal(m, n);
      if (d.layer.variance) noise *= square_root(d.layer.variance[n]);
      d.sample[at] = a + noise;
    }
    if (d.mean) d.mean[at] = a;
  });
}

// Softmax units, a thread a group.
__global__ void draw_groups_kernel(i64 N, Draw d, const float* z) {
  const i64 group = d.layer.group, width = d.layer.width;
  for_rows(N, width / group, [=](i64 m, i64 g) {
    const i64 at = m * width + g * group;
    float* p = (d.mean ? d.mean : d.sample) + at;
    float top = z[at], sum = 0.0f;
    for (i64 i = 1; i < group; ++i) top = max_or_nan(top, z[at + i]);
    for (i64 i = 0; i < group; ++i) sum += exp(z[at + i] - top);
    for (i64 i = 0; i < group; ++i) p[i] = exp(z[at + i] - top) / sum;
    if (!d.sample) return;
    const float u = d.draws.uniform(m, g * group);
    float below = 0.0f;
    i64 chosen = group - 1;
    for (i64 i = 0; i < group; ++i) {
      below += p[i];
      if (u < below || below != below) {
        chosen = i;
        break;
      }
    }
    const bool poor = below != below;
    for (i64 i = 0; i < group; ++i) d.sample[at + i] = poor ? below : i == chosen ? 1.0f : 0.0f;
  });
}

void draw_rows(i64 N, const Draw& d, const float* z, void* stream) {
  if (d.layer.unit == kBernoulliUnit || (d.layer.unit == kGaussianUnit && !d.sample)) return;
  const bool softmax = d.layer.unit == kSoftmaxUnit;
  const RowGrid g(N, softmax ? d.layer.width / d.layer.group : d.layer.width);
  launch(softmax ? draw_groups_kernel : draw_kernel, g.grid, g.block, 0, stream, N, d, z);
}

// A layer from x[N,K] by b[K,width].
template <class B>
void half_step(i64 N, i64 K, const float* x, const B& b, const Draw& d, void* stream) {
  float* out = d.sample ? d.sample : d.mean;
  if (!out) return;
  gemm(matrix(out, N, d.layer.width, K, d.layer.width), KMajor{x, K}, b, d, stream);
  draw_rows(N, d, out, stream);
}

__global__ void divide_kernel(i64 N, i64 V, const float* v, const float* variance, float* y) {
  for_rows(N, V, [=](i64 m, i64 i) { y[m * V + i] = v[m * V + i] / variance[i]; });
}

void divide_rows(i64 N, i64 V, const float* v, const float* variance, float* y, void* stream) {
  const RowGrid g(N, V);
  launch(divide_kernel, g.grid, g.block, 0, stream, N, V, v, variance, y);
}

// Chains keep what is fixed.
__global__ void keep_kernel(i64 n, const uint8_t* fixed, const float* drawn, float* v) {
  for_elements(n, 0, [=](i64 i, auto) { v[i] = fixed[i] ? v[i] : drawn[i]; });
}

// y = factor x, times z where that is not null.
__global__ void scale_kernel(i64 n, float factor, const float* x, const float* z, float* y) {
  for_elements(n, 0, [=](i64 i, auto) { y[i] = z ? factor * x[i] * z[i] : factor * x[i]; });
}

__device__ __forceinline__ float log_partition(int unit, float a) {
  if (unit == kBernoulliUnit) return softplus(a);
  return unit == kGaussianUnit ? 0.5f * (a * a) : softplus_integral(a);
}
// A(g a) of a softmax group.
__device__ __forceinline__ float log_partition_of_group(i64 group, const float* a, float g) {
  float top = g * a[0], sum = 0.0f;
  for (i64 i = 1; i < group; ++i) top = max_or_nan(top, g * a[i]);
  for (i64 i = 0; i < group; ++i) sum += exp(g * a[i] - top);
  return top + fastdl::log(sum);
}

__global__ void energy_kernel(i64 N, i64 V, i64 H, const float* v, const float* b, const float* variance, int visible,
                              int hidden, i64 group, const float* a, float* energy) {
  const Team<32> team;
  for (i64 m = team.row; m < N; m += team.stride) {
    float own = 0.0f, units = 0.0f;
    for (i64 i = team.lane; i < V; i += 32) {
      const float x = v[m * V + i], d = x - b[i];
      own += visible != kGaussianUnit ? -(b[i] * x) : variance ? 0.5f * (d * d) / variance[i] : 0.5f * (d * d);
    }
    const i64 step = hidden == kSoftmaxUnit ? group : 1;
    for (i64 j = team.lane; j < H / step; j += 32) {
      const float* aj = a + m * H + j * step;
      units += hidden == kSoftmaxUnit ? log_partition_of_group(group, aj, 1.0f) : log_partition(hidden, *aj);
    }
    own = team.sum(own);
    units = team.sum(units);
    if (team.lane == 0) energy[m] = own - units;
  }
}

// One temperature: its share of the ratio, and the hidden units' inputs (Bernoulli ones at once) at the new one.
__global__ void anneal_kernel(i64 N, i64 V, i64 H, const float* vs, const float* b, const float* base, const float* betas,
                              Draw d, const float* a, float* log_ratio) {
  const Team<32> team;
  const float before = betas[0], now = betas[1];
  const int hidden = d.layer.unit;
  const i64 step = hidden == kSoftmaxUnit ? d.layer.group : 1;
  for (i64 m = team.row; m < N; m += team.stride) {
    float own = 0.0f, units = 0.0f;
    for (i64 i = team.lane; i < V; i += 32) own += (base ? b[i] - base[i] : b[i]) * vs[m * V + i];
    for (i64 j = team.lane; j < H / step; j += 32) {
      const float* aj = a + m * H + j * step;
      units += hidden == kSoftmaxUnit ? log_partition_of_group(step, aj, now) - log_partition_of_group(step, aj, before)
                                      : log_partition(hidden, now * *aj) - log_partition(hidden, before * *aj);
    }
    own = team.sum(own);
    units = team.sum(units);
    if (team.lane == 0) log_ratio[m] += (now - before) * own + units;
    for (i64 j = 4 * team.lane; j < H; j += 128) {
      const int count = static_cast<int>(H - j < 4 ? H - j : 4);
      float z[4] = {};
      for (int i = 0; i < count; ++i) z[i] = now * a[m * H + j + i];
      if (hidden == kBernoulliUnit) d.bernoulli(z, m, j, count);
      for (int i = 0; i < count; ++i) d.sample[m * H + j + i] = z[i];
    }
  }
}

__global__ void clear_kernel(i64 n, float* y) {
  for_elements(n, 0, [=](i64 i, auto) { y[i] = 0.0f; });
}

__global__ void utility_kernel(i64 N, i64 V, i64 H, const float* vs, const float* b, const float* h, const float* a, float* u,
                               float* accepted) {
  const Team<32> team;
  for (i64 m = team.row; m < N; m += team.stride) {
    float own = 0.0f, units = 0.0f;
    for (i64 i = team.lane; i < V; i += 32) own += b[i] * vs[m * V + i];
    for (i64 j = team.lane; j < H; j += 32) units += a[m * H + j] * h[m * H + j];
    own = team.sum(own);
    units = team.sum(units);
    if (team.lane == 0) {
      u[m] = own + units;
      accepted[m] = 0.0f;
    }
  }
}

// A block for each pair of rows.
__global__ void swap_kernel(i64 pairs, i64 chains, i64 V, i64 H, i64 parity, const float* betas, Draws draws, const float* u,
                            float* v, float* h, float* accepted) {
  for (i64 pair = blockIdx.x; pair < pairs; pair += gridDim.x) {
    const i64 t = parity + 2 * (pair / chains), cold = t * chains + pair % chains, hot = cold + chains;
    const float odds = exp((betas[t] - betas[t + 1]) * (u[hot] - u[cold]));
    const bool taken = draws.uniform(cold, 0) < odds;
    if (threadIdx.x == 0 && (taken || odds != odds)) accepted[cold] = accepted[hot] = taken ? 1.0f : odds;
    if (!taken) continue;
    for (i64 i = threadIdx.x; i < V + H; i += blockDim.x) {
      float* x = i < V ? v + cold * V + i : h + cold * H + (i - V);
      float* y = i < V ? v + hot * V + i : h + hot * H + (i - V);
      const float kept = *x;
      *x = *y;
      *y = kept;
    }
  }
}

// The hidden units' inputs a = c + (v / variance) w: as units whose mean is their input.
void hidden_inputs(i64 N, i64 V, i64 H, const float* v, const float* w, const float* c, const float* variance, float* scaled,
                   float* a, void* stream) {
  if (variance) divide_rows(N, V, v, variance, scaled, stream);
  const StepState none = {};
  half_step(N, V, variance ? scaled : v, MNMajor{w, H},
            Draw{{H, c, nullptr, nullptr, nullptr, nullptr, kGaussianUnit, 1}, Draws(&none), a, nullptr}, stream);
}

unsigned team_blocks(i64 n) { return blocks_for(n, kThreads / 32); }

}  // namespace

i64 gibbs_sample_hidden_workspace(i64 N, i64 V, i64, i64, i64) { return N * V; }

void gibbs_sample_hidden(i64 N, i64 V, i64 H, const float* v, const float* w, const float* c, const float* gain,
                         const float* variance, int units, i64 group, const StepState* step, float* work, float* mean,
                         float* sample, void* stream) {
  if (variance) divide_rows(N, V, v, variance, work, stream);
  half_step(N, V, variance ? work : v, MNMajor{w, H},
            Draw{{H, c, nullptr, gain, nullptr, nullptr, units, group}, Draws(step), mean, sample}, stream);
}

void gibbs_sample_visible(i64 N, i64 V, i64 H, const float* h, const float* w, const float* b, const float* base,
                          const float* gain, const float* variance, int units, i64 group, const StepState* step, float* mean,
                          float* sample, void* stream) {
  half_step(N, H, h, KMajor{w, H}, Draw{{V, b, base, gain, nullptr, variance, units, group}, Draws(step), mean, sample},
            stream);
}

// mean [N,H], then [N,V] twice, then what the sums of columns need.
i64 gibbs_chain_workspace(i64 N, i64 V, i64 H, i64, i64, i64, i64, i64, i64) {
  return N * H + 2 * N * V + column_sums_workspace(N, V > H ? V : H);
}

void gibbs_chain(i64 N, i64 V, i64 H, const float* w, const float* b, const float* c, const float* gain,
                 const float* variance, const uint8_t* fixed, i64 steps, int from_hidden, int visible, i64 visible_group,
                 int hidden, i64 hidden_group, float factor, const StepState* step, float* work, float* v, float* h,
                 float* dw, float* db, float* dc, float* dq, float beta, void* stream) {
  float* const mean = work;
  float* const scaled = mean + N * H;
  float* const other = scaled + N * V;
  float* const parts = other + N * V;
  const Layer hidden_layer = {H, c, nullptr, gain, nullptr, nullptr, hidden, hidden_group};
  const Layer visible_layer = {V, b, nullptr, gain, nullptr, variance, visible, visible_group};
  Draws draws(step);
  const bool counts = dw || dc;
  const auto up = [&](float* means, float* samples) {
    if (variance) divide_rows(N, V, v, variance, scaled, stream);
    half_step(N, V, variance ? scaled : v, MNMajor{w, H}, Draw{hidden_layer, draws, means, samples}, stream);
    draws.next(H);
  };
  if (!from_hidden) up(counts && steps == 0 ? mean : nullptr, h);
  for (i64 k = 0; k < steps; ++k) {
    float* drawn = fixed ? other : v;
    half_step(N, H, h, KMajor{w, H}, Draw{visible_layer, draws, nullptr, drawn}, stream);
    draws.next(V);
    if (fixed) launch(keep_kernel, element_blocks(N * V), kThreads, 0, stream, N * V, fixed, drawn, v);
    up(counts && k == steps - 1 ? mean : nullptr, h);
  }
  if (from_hidden && steps == 0 && counts) up(mean, nullptr);
  const float* vs = v;
  if (variance) {
    divide_rows(N, V, v, variance, scaled, stream);
    vs = scaled;
  }
  if (counts) {
    launch(scale_kernel, element_blocks(N * H), kThreads, 0, stream, N * H, factor, mean, nullptr, mean);
    if (dw) matmul(1, V, H, N, vs, mean, 1, 0, beta, dw, stream);
    if (dc) column_sums(N, H, mean, beta, parts, dc, stream);
  }
  for (int square = 0; square < 2; ++square) {
    float* sums = square ? dq : db;
    if (!sums) continue;
    launch(scale_kernel, element_blocks(N * V), kThreads, 0, stream, N * V, factor, vs, square ? v : nullptr, other);
    column_sums(N, V, other, beta, parts, sums, stream);
  }
}

i64 gibbs_free_energy_workspace(i64 N, i64 V, i64 H, i64, i64, i64) { return N * (V + H); }

void gibbs_free_energy(i64 N, i64 V, i64 H, const float* v, const float* w, const float* b, const float* c,
                       const float* variance, int visible, int hidden, i64 hidden_group, float* work, float* energy,
                       void* stream) {
  float* const a = work + N * V;
  hidden_inputs(N, V, H, v, w, c, variance, work, a, stream);
  launch(energy_kernel, team_blocks(N), kThreads, 0, stream, N, V, H, v, b, variance, visible, hidden, hidden_group, a,
         energy);
}

i64 gibbs_anneal_workspace(i64 N, i64 V, i64 H, i64, i64, i64, i64, i64) { return N * (V + 2 * H); }

void gibbs_anneal(i64 N, i64 V, i64 H, i64 K, const float* w, const float* b, const float* c, const float* base,
                  const float* variance, const float* betas, int visible, i64 visible_group, int hidden, i64 hidden_group,
                  const StepState* step, float* work, float* v, float* log_ratio, void* stream) {
  float* const scaled = work;
  float* const a = scaled + N * V;
  float* const h = a + N * H;
  Draws draws(step);
  launch(clear_kernel, element_blocks(N), kThreads, 0, stream, N, log_ratio);
  for (i64 k = 1; k < K; ++k) {
    hidden_inputs(N, V, H, v, w, c, variance, scaled, a, stream);
    const Draw up = {{H, c, nullptr, nullptr, betas + k, nullptr, hidden, hidden_group}, draws, nullptr, h};
    launch(anneal_kernel, team_blocks(N), kThreads, 0, stream, N, V, H, variance ? scaled : v, b, base, betas + k - 1, up, a,
           log_ratio);
    draw_rows(N, up, h, stream);
    draws.next(H);
    const Draw down = {{V, b, base, nullptr, betas + k, variance, visible, visible_group}, draws, nullptr, v};
    half_step(N, H, h, KMajor{w, H}, down, stream);
    draws.next(V);
  }
}

i64 gibbs_swap_workspace(i64 N, i64 V, i64 H, i64, i64) { return N * (V + H + 1); }

void gibbs_swap(i64 N, i64 V, i64 H, i64 T, const float* w, const float* b, const float* c, const float* variance,
                const float* betas, i64 parity, const StepState* step, float* work, float* v, float* h, float* accepted,
                void* stream) {
  float* const scaled = work;
  float* const a = scaled + N * V;
  float* const u = a + N * H;
  hidden_inputs(N, V, H, v, w, c, variance, scaled, a, stream);
  launch(utility_kernel, team_blocks(N), kThreads, 0, stream, N, V, H, variance ? scaled : v, b, h, a, u, accepted);
  const i64 chains = N / T, pairs = (T - parity) / 2 * chains;
  launch(swap_kernel, blocks_for(pairs, 1), kThreads, 0, stream, pairs, chains, V, H, parity, betas, Draws(step), u, v, h,
         accepted);
}

}  // namespace fastdl
