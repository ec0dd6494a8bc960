// Gibbs sampling in restricted Boltzmann machines: product, sigmoid and random draw in one pass, as the product's epilogue.
//
//      v [N,V] --- w [V,H] ---> a [N,H] --- epilogue, tile by tile in L1: + c, sigmoid, Philox, u < p ---> h [N,H]
//      h [N,H] --- w^T --------> z [N,V] --- the same --------------------------------------------------> v [N,V]
//
// Samples are mostly zeros. Where not most units of a layer are on, its product is a sum of the rows of w that belong to them
// (active.h), and so are the statistics. That is the same sum: what a zero adds changes no bit, and the order is kept.
//
// Units that need more than their own input (softmax groups) or a pair of words (normals) are drawn in a second pass by rows.
// docs/kernels/gibbs.md derives the formulas and keeps the diary.
#include "../formulas.h"
#include "../kernels.h"
#include "../philox.h"
#include "active.h"
#include "column_sums.h"
#include "gemm.h"
#include "loops.h"

namespace fastdl {
namespace {

// ----------------------------------------------------------------------------------------------------- draws

typedef uint64_t wide __attribute__((vector_size(FASTDL_VECTOR_BYTES)));

// kLanes words, from word 0 of a block on: kLanes / 4 blocks at once. A block has two 64-bit lanes, whose low halves hold
// c0 and c2 (x), c1 and c3 (y): one product and one exchange of lanes is a round.
FASTDL_INLINE uvec philox_words(uint64_t seed, uint64_t block) {
  wide x = {}, key = {}, weyl = {}, multiplier = {};
#pragma GCC unroll 8
  for (int i = 0; i < kLanes / 2; ++i) {
    x[i] = i % 2 ? 0 : block + static_cast<uint64_t>(i / 2);
    key[i] = i % 2 ? seed >> 32 : seed & 0xffffffffu;
    weyl[i] = i % 2 ? kPhiloxW1 : kPhiloxW0;
    multiplier[i] = i % 2 ? kPhiloxM1 : kPhiloxM0;
  }
  wide y = x >> 32;
#pragma GCC unroll 10
  for (int round = 0; round < 10; ++round) {
#if defined(__AVX512F__) && FASTDL_VECTOR_BYTES == 64
    const wide p = (wide)_mm512_mul_epu32((__m512i)x, (__m512i)multiplier);
#elif defined(__AVX2__) && FASTDL_VECTOR_BYTES == 32
    const wide p = (wide)_mm256_mul_epu32((__m256i)x, (__m256i)multiplier);
#elif defined(__SSE2__) && FASTDL_VECTOR_BYTES == 16
    const wide p = (wide)_mm_mul_epu32((__m128i)x, (__m128i)multiplier);
#else
    const wide p = (x & 0xffffffffu) * multiplier;
#endif
#if FASTDL_VECTOR_BYTES == 16
    const wide other = __builtin_shufflevector(p, p, 1, 0);
#elif FASTDL_VECTOR_BYTES == 32
    const wide other = __builtin_shufflevector(p, p, 1, 0, 3, 2);
#else
    const wide other = __builtin_shufflevector(p, p, 1, 0, 3, 2, 5, 4, 7, 6);
#endif
    x = (other >> 32) ^ y ^ key;
    y = other;
    key += weyl;
  }
  return (uvec)((x & 0xffffffffu) | (y << 32));
}

FASTDL_INLINE vec uniform_of(uvec word) { return to_float((ivec)(word >> 8)) * 0x1p-24f; }

// Where a layer's draws begin. A row's own blocks begin 2^38 apart: so a row draws the same in any batch.
struct Draws {
  uint64_t seed, block;
  explicit Draws(const StepState* step) : seed(step->seed), block((step->offset >> 2) + (step->offset & 3 ? 1 : 0)) {}
  FASTDL_INLINE uint64_t at(i64 row, i64 unit) const {
    return block + (static_cast<uint64_t>(row) << 38) + static_cast<uint64_t>(unit >> 2);
  }
  FASTDL_INLINE vec uniforms(i64 row, i64 unit) const { return uniform_of(philox_words(seed, at(row, unit))); }
  FASTDL_INLINE float uniform(i64 row, i64 unit) const {
    return uniform_from_word(philox_block(seed, at(row, unit)).w[unit & 3]);
  }
  // Both words of a pair in both of its lanes; then each lane keeps its own of the two normals.
  FASTDL_INLINE vec normals(i64 row, i64 unit) const {
    const vec u = uniforms(row, unit);
    vec first = {}, second = {};
    ivec odd = {};
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; ++i) {
      first[i] = u[i & ~1];
      second[i] = u[i | 1];
      odd[i] = i % 2 ? -1 : 0;
    }
    const Pair<vec> pair = normal_pair(first, second);
    return select(odd, pair.second, pair.first);
  }
  void next(i64 width) { block += static_cast<uint64_t>((width + 3) >> 2); }
};

// ---------------------------------------------------------------------------------------------------- layers

// What becomes of a layer's sums.
struct Layer {
  i64 width;
  const float *bias, *base, *gain;
  float gain_of_all;  // where gain is null
  const float* variance;
  int unit;
  i64 group;
};

// The epilogue: inputs of the units, and Bernoulli units at once.
struct Draw {
  Layer layer;
  Draws draws;
  float *mean, *sample;  // either may be null; the sums are in one that is not
  FASTDL_INLINE vec operator()(vec sum, i64 m, i64 n, i64 lanes) const {
    const float g = layer.gain ? layer.gain[m] : layer.gain_of_all;
    vec z = g * (sum + load_lanes(layer.bias + n, lanes));
    if (layer.base) z += (1.0f - g) * load_lanes(layer.base + n, lanes);
    return layer.unit == kBernoulliUnit ? bernoulli(z, m, n, lanes) : z;
  }
  FASTDL_INLINE vec bernoulli(vec z, i64 m, i64 n, i64 lanes) const {
    const vec p = sigmoid(z);
    if (!sample) return p;
    if (mean) store_lanes(mean + m * layer.width + n, p, lanes);
    const vec drawn = select(draws.uniforms(m, n) < p, splat(1.0f), vec{});
    return select(p == p, drawn, p);
  }
};

// A softmax group's probabilities in p, from its inputs in z (which may be p); returns the logarithm of their sum.
FASTDL_INLINE float softmax_group(i64 n, const float* z, float* p) {
  float top = z[0], sum = 0.0f;
  for (i64 i = 1; i < n; ++i) top = max_or_nan(top, z[i]);
  for (i64 i = 0; i < n; ++i) sum += exp(z[i] - top);
  if (p) {
    for (i64 i = 0; i < n; ++i) p[i] = exp(z[i] - top) / sum;
  }
  return top + fastdl::log(sum);
}

// Units that are not Bernoulli ones, from their inputs z[N,width], which may be mean or sample.
__attribute__((noinline)) void draw_rows(i64 N, const Draw& d, const float* z) {
  const Layer layer = d.layer;
  const i64 width = layer.width;
  for_rows(N, 8 * width, [=](i64 m) {
    const float* zr = z + m * width;
    float* mean = d.mean ? d.mean + m * width : nullptr;
    float* sample = d.sample ? d.sample + m * width : nullptr;
    if (layer.unit == kSoftmaxUnit) {
      for (i64 at = 0; at < width; at += layer.group) {
        float* p = mean ? mean + at : sample + at;
        softmax_group(layer.group, zr + at, p);
        if (!sample) continue;
        const float u = d.draws.uniform(m, at);
        float below = 0.0f;
        i64 chosen = layer.group - 1;
        for (i64 i = 0; i < layer.group; ++i) {
          below += p[i];
          if (u < below || below != below) {
            chosen = i;
            break;
          }
        }
        const bool poor = below != below;
        for (i64 i = 0; i < layer.group; ++i) sample[at + i] = poor ? below : i == chosen ? 1.0f : 0.0f;
      }
      return;
    }
    for_vectors(0, width, [&](i64 n, auto lanes) {
      const vec a = lanes.load(zr + n);
      if (layer.unit == kReluUnit) {
        if (sample) lanes.store(sample + n, noisy_relu(a, d.draws.normals(m, n)));
        if (mean) lanes.store(mean + n, noisy_relu_mean(a));
        return;
      }
      if (sample) {
        vec noise = d.draws.normals(m, n);
        if (layer.variance) noise *= square_root(lanes.load(layer.variance + n));
        lanes.store(sample + n, a + noise);
      }
      if (mean) lanes.store(mean + n, a);
    });
  });
}

// --------------------------------------------------------------------------------------------------- products

// Per cent of a layer that may be on for its zeros to be skipped: from where the dense product is faster.
constexpr i64 kActiveOfPanels = 50, kActiveOfMatrix = 30, kActiveOfRow = 70;

i64 count_active(i64 n, const float* x) {
  i64 count = 0;
  for (i64 i = 0; i < n; i += 1 << 20) {
    ivec active = {};
    for_vectors(i, smaller(i + (1 << 20), n), [&](i64 k, auto lanes) { active -= lanes.load(x + k) != 0.0f; });
    for (int lane = 0; lane < kLanes; ++lane) count += active[lane];
  }
  return count;
}

// The weights of a product x[N,K] w: as they are or, where `turned`, those of the transposed matrix; and copies in panels, which
// are worth making for many steps. Zeros of x are skipped where the rows that belong to them lie together.
struct Weights {
  const float* w;
  bool turned;
  const float* panels;  // may be null
};

// A layer from x[N,K].
void half_step(i64 N, i64 K, const float* x, const Weights& b, const Draw& d) {
  const i64 width = d.layer.width;
  float* out = d.sample ? d.sample : d.mean;
  if (!out) return;
  const bool rows = b.panels || !b.turned;
  const i64 active = rows ? count_active(N * K, x) : 0;
  const i64 share = b.panels ? kActiveOfPanels : N <= 2 ? kActiveOfRow : kActiveOfMatrix;
  if (rows && 100 * active <= share * N * K) {
    const ActiveB view = b.panels ? ActiveB::panels(b.panels, K) : ActiveB::matrix(b.w, width);
    multiply_active(N, width, K, active, x, view, 0.0f, out, epilogue_of(d));
  } else {
    gemm_strided(N, width, K, x, K, 0, b.w, b.turned ? K : width, b.turned, 0.0f, out, width, epilogue_of(d));
  }
  const bool done = d.layer.unit == kBernoulliUnit || (d.layer.unit == kGaussianUnit && !d.sample);
  if (!done) draw_rows(N, d, out);
}

// The transpose of x[R,C] in panels of `columns` columns of it; with columns = R a plain matrix y[C,R].
void transpose_matrix(i64 R, i64 C, i64 columns, const float* x, float* y) {
  parallel_for((R + kLanes - 1) / kLanes, kElementGrain / (kLanes * (C + 1)) + 1, [=](i64 begin, i64 end) {
    for (i64 r = begin * kLanes; r < smaller(end * kLanes, R); r += kLanes) {
      const i64 rows = smaller<i64>(kLanes, R - r);
      float* to = y + r / columns * columns * C + r % columns;
      i64 c = 0;
      for (; rows == kLanes && c + kLanes <= C; c += kLanes) {
        vec v[kLanes];
        for (int i = 0; i < kLanes; ++i) v[i] = load(x + (r + i) * C + c);
        transpose(v);
        for (int i = 0; i < kLanes; ++i) store(to + (c + i) * columns, v[i]);
      }
      for (; c < C; ++c) {
        for (i64 i = 0; i < rows; ++i) to[c * columns + i] = x[(r + i) * C + c];
      }
    }
  });
}

// w[V,H] in panels of its columns.
void copy_panels(i64 V, i64 H, const float* w, float* y) {
  for_rows(V, H, [=](i64 i) {
    for (i64 j = 0; j < H; j += kActiveCols) {
      memcpy(y + j * V + i * kActiveCols, w + i * H + j, size_t(smaller(kActiveCols, H - j)) * sizeof(float));
    }
  });
}

// y = v / variance of each row.
void divide_rows(i64 N, i64 V, const float* v, const float* variance, float* y) {
  for_rows(N, V, [=](i64 m) {
    for_vectors(0, V, [=](i64 i, auto lanes) {
      lanes.store(y + m * V + i, lanes.load(v + m * V + i) / lanes.load(variance + i));
    });
  });
}

template <class F>
FASTDL_INLINE float row_sum(i64 n, const F& f) {
  vec sum = {};
  for_vectors(0, n, [&](i64 i, auto lanes) { sum += lanes.only(f(i, lanes)); });
  return sum_lanes(sum);
}

// The log partition function of a hidden unit with input a.
FASTDL_INLINE vec log_partition(int unit, vec a) {
  if (unit == kBernoulliUnit) return softplus(a);
  return unit == kGaussianUnit ? 0.5f * (a * a) : softplus_integral(a);
}

// sum_j A(g a_j) of a row.
float sum_log_partition(i64 H, int unit, i64 group, const float* a, float g) {
  if (unit != kSoftmaxUnit) {
    return row_sum(H, [&](i64 j, auto lanes) { return log_partition(unit, g * lanes.load(a + j)); });
  }
  float total = 0.0f;
  for (i64 j = 0; j < H; j += group) {
    float top = g * a[j], sum = 0.0f;
    for (i64 i = 1; i < group; ++i) top = max_or_nan(top, g * a[j + i]);
    for (i64 i = 0; i < group; ++i) sum += exp(g * a[j + i] - top);
    total += top + fastdl::log(sum);
  }
  return total;
}

// The hidden units' inputs a = c + (v / variance) w.
void hidden_inputs(i64 N, i64 V, i64 H, const float* v, const Weights& w, const float* c, const float* variance,
                   float* scaled, float* a) {
  if (variance) divide_rows(N, V, v, variance, scaled);
  // As units whose mean is their input.
  const Layer layer = {H, c, nullptr, nullptr, 1.0f, nullptr, kGaussianUnit, 1};
  const StepState none = {};
  half_step(N, V, variance ? scaled : v, w, {layer, Draws(&none), a, nullptr});
}

}  // namespace

i64 gibbs_sample_hidden_workspace(i64 N, i64 V, i64, i64, i64) { return N * V; }

void gibbs_sample_hidden(i64 N, i64 V, i64 H, const float* v, const float* w, const float* c, const float* gain,
                         const float* variance, int units, i64 group, const StepState* step, float* work, float* mean,
                         float* sample, void*) {
  if (variance) divide_rows(N, V, v, variance, work);
  const Layer layer = {H, c, nullptr, gain, 1.0f, nullptr, units, group};
  half_step(N, V, variance ? work : v, {w, false, nullptr}, {layer, Draws(step), mean, sample});
}

void gibbs_sample_visible(i64 N, i64 V, i64 H, const float* h, const float* w, const float* b, const float* base,
                          const float* gain, const float* variance, int units, i64 group, const StepState* step,
                          float* mean, float* sample, void*) {
  const Layer layer = {V, b, base, gain, 1.0f, variance, units, group};
  half_step(N, H, h, {w, true, nullptr}, {layer, Draws(step), mean, sample});
}

namespace {
// Copies of w in panels. The transposed one lets inactive hidden units be skipped and costs about as much as a step of a dozen
// chains; the other one only brings together what is read together.
bool keeps_transpose(i64 N, i64 steps) { return N * steps >= (N <= 2 ? 2 : 24); }
bool keeps_panels(i64 N, i64 steps) { return N * steps >= 200; }
}  // namespace

i64 gibbs_chain_workspace(i64 N, i64 V, i64 H, i64 steps, i64, i64, i64, i64, i64) {
  return N * H + 2 * N * V + (keeps_transpose(N, steps) ? active_panel_floats(H, V) : 0) +
         (keeps_panels(N, steps) ? active_panel_floats(V, H) : 0);
}

void gibbs_chain(i64 N, i64 V, i64 H, const float* w, const float* b, const float* c, const float* gain,
                 const float* variance, const uint8_t* fixed, i64 steps, int from_hidden, int visible,
                 i64 visible_group, int hidden, i64 hidden_group, float factor, const StepState* step, float* work,
                 float* v, float* h, float* dw, float* db, float* dc, float* dq, float beta, void* stream) {
  float* const mean = work;
  float* const scaled = mean + N * H;
  float* const other = scaled + N * V;
  float* const turned = keeps_transpose(N, steps) ? other + N * V : nullptr;
  float* const panels = keeps_panels(N, steps) ? turned + active_panel_floats(H, V) : nullptr;
  if (turned) transpose_matrix(V, H, kActiveCols, w, turned);
  if (panels) copy_panels(V, H, w, panels);
  const Layer hidden_layer = {H, c, nullptr, gain, 1.0f, nullptr, hidden, hidden_group};
  const Layer visible_layer = {V, b, nullptr, gain, 1.0f, variance, visible, visible_group};
  Draws draws(step);
  const bool counts = dw || dc;
  const auto up = [&](float* means, float* samples) {
    if (variance) divide_rows(N, V, v, variance, scaled);
    half_step(N, V, variance ? scaled : v, {w, false, panels}, {hidden_layer, draws, means, samples});
    draws.next(H);
  };
  if (!from_hidden) up(counts && steps == 0 ? mean : nullptr, h);
  for (i64 k = 0; k < steps; ++k) {
    float* drawn = fixed ? other : v;
    half_step(N, H, h, {w, true, turned}, {visible_layer, draws, nullptr, drawn});
    draws.next(V);
    if (fixed) {
      for_rows(N, V, [=](i64 m) {
        for (i64 i = m * V; i < (m + 1) * V; ++i) v[i] = fixed[i] ? v[i] : drawn[i];
      });
    }
    up(counts && k == steps - 1 ? mean : nullptr, h);
  }
  if (from_hidden && steps == 0 && counts) up(mean, nullptr);
  // The statistics.
  const float* vs = v;
  if (variance) {
    divide_rows(N, V, v, variance, scaled);
    vs = scaled;
  }
  if (counts) {
    for_elements(N * H, [=](i64 i, auto lanes) { lanes.store(mean + i, factor * lanes.load(mean + i)); });
    const i64 active = dw ? count_active(N * V, vs) : 0;
    if (dw && 100 * active <= kActiveOfMatrix * N * V) {
      transpose_matrix(N, V, N, vs, other);
      multiply_active(V, H, N, active, other, ActiveB::matrix(mean, H), beta, dw);
    } else if (dw) {
      matmul(1, V, H, N, vs, mean, 1, 0, beta, dw, stream);
    }
    if (dc) sum_columns(N, H, mean, beta, dc);
  }
  for (int square = 0; square < 2; ++square) {
    float* sums = square ? dq : db;
    if (!sums) continue;
    for_elements(N * V, [=](i64 i, auto lanes) {
      const vec x = factor * lanes.load(vs + i);
      lanes.store(other + i, square ? x * lanes.load(v + i) : x);
    });
    sum_columns(N, V, other, beta, sums);
  }
}

i64 gibbs_free_energy_workspace(i64 N, i64 V, i64 H, i64, i64, i64) { return N * (V + H); }

void gibbs_free_energy(i64 N, i64 V, i64 H, const float* v, const float* w, const float* b, const float* c,
                       const float* variance, int visible, int hidden, i64 hidden_group, float* work, float* energy,
                       void*) {
  float* const a = work + N * V;
  hidden_inputs(N, V, H, v, {w, false, nullptr}, c, variance, work, a);
  for_rows(N, 8 * (V + H), [=](i64 m) {
    const float* vr = v + m * V;
    const float own = row_sum(V, [&](i64 i, auto lanes) {
      const vec x = lanes.load(vr + i), bias = lanes.load(b + i);
      if (visible != kGaussianUnit) return -(bias * x);
      const vec d = x - bias;
      return variance ? 0.5f * (d * d) / lanes.load(variance + i) : 0.5f * (d * d);
    });
    energy[m] = own - sum_log_partition(H, hidden, hidden_group, a + m * H, 1.0f);
  });
}

i64 gibbs_anneal_workspace(i64 N, i64 V, i64 H, i64, i64, i64, i64, i64) {
  return N * (V + 2 * H) + active_panel_floats(H, V) + active_panel_floats(V, H);
}

void gibbs_anneal(i64 N, i64 V, i64 H, i64 K, const float* w, const float* b, const float* c, const float* base,
                  const float* variance, const float* betas, int visible, i64 visible_group, int hidden,
                  i64 hidden_group, const StepState* step, float* work, float* v, float* log_ratio, void*) {
  float* const scaled = work;
  float* const a = scaled + N * V;
  float* const h = a + N * H;
  float* const turned = h + N * H;
  float* const panels = turned + active_panel_floats(H, V);
  transpose_matrix(V, H, kActiveCols, w, turned);
  copy_panels(V, H, w, panels);
  Draws draws(step);
  for (i64 m = 0; m < N; ++m) log_ratio[m] = 0.0f;
  for (i64 k = 1; k < K; ++k) {
    const float before = betas[k - 1], now = betas[k];
    hidden_inputs(N, V, H, v, {w, false, panels}, c, variance, scaled, a);
    const Layer hidden_layer = {H, c, nullptr, nullptr, now, nullptr, hidden, hidden_group};
    const Draw draw = {hidden_layer, draws, nullptr, h};
    const float* vs = variance ? scaled : v;
    for_rows(N, 8 * (V + H), [=](i64 m) {
      float* ar = a + m * H;
      const float own = row_sum(V, [&](i64 i, auto lanes) {
        const vec bias = lanes.load(b + i);
        return (base ? bias - lanes.load(base + i) : bias) * lanes.load(vs + m * V + i);
      });
      // Unit by unit, so that the difference of two nearly equal sums keeps its digits.
      float units;
      if (hidden == kSoftmaxUnit) {
        units = 0.0f;
        for (i64 j = 0; j < H; j += hidden_group) {
          units += sum_log_partition(hidden_group, hidden, hidden_group, ar + j, now) -
                   sum_log_partition(hidden_group, hidden, hidden_group, ar + j, before);
        }
      } else {
        units = row_sum(H, [&](i64 j, auto lanes) {
          const vec x = lanes.load(ar + j);
          return log_partition(hidden, now * x) - log_partition(hidden, before * x);
        });
      }
      log_ratio[m] += (now - before) * own + units;
      for_vectors(0, H, [&](i64 j, auto lanes) {
        const vec z = now * lanes.load(ar + j);
        lanes.store(h + m * H + j, hidden == kBernoulliUnit ? draw.bernoulli(z, m, j, lanes.count()) : z);
      });
    });
    if (hidden != kBernoulliUnit) draw_rows(N, draw, h);
    draws.next(H);
    half_step(N, H, h, {w, true, turned},
              {{V, b, base, nullptr, now, variance, visible, visible_group}, draws, nullptr, v});
    draws.next(V);
  }
}

i64 gibbs_swap_workspace(i64 N, i64 V, i64 H, i64, i64) { return N * (V + H + 1); }

void gibbs_swap(i64 N, i64 V, i64 H, i64 T, const float* w, const float* b, const float* c, const float* variance,
                const float* betas, i64 parity, const StepState* step, float* work, float* v, float* h, float* accepted,
                void*) {
  float* const scaled = work;
  float* const a = scaled + N * V;
  float* const u = a + N * H;
  hidden_inputs(N, V, H, v, {w, false, nullptr}, c, variance, scaled, a);
  const float* vs = variance ? scaled : v;
  for_rows(N, V + H, [=](i64 m) {
    accepted[m] = 0.0f;
    u[m] = row_sum(V, [&](i64 i, auto lanes) { return lanes.load(b + i) * lanes.load(vs + m * V + i); }) +
           row_sum(H, [&](i64 j, auto lanes) { return lanes.load(a + m * H + j) * lanes.load(h + m * H + j); });
  });
  const Draws draws(step);
  const i64 chains = N / T;
  for (i64 t = parity; t + 1 < T; t += 2) {
    for (i64 m = 0; m < chains; ++m) {
      const i64 cold = t * chains + m, hot = cold + chains;
      const float odds = exp((betas[t] - betas[t + 1]) * (u[hot] - u[cold]));
      if (odds != odds) accepted[cold] = accepted[hot] = odds;
      if (!(draws.uniform(cold, 0) < odds)) continue;
      accepted[cold] = accepted[hot] = 1.0f;
      const auto exchange = [=](float* x, i64 width) {
        for (i64 i = 0; i < width; ++i) {
          const float kept = x[cold * width + i];
          x[cold * width + i] = x[hot * width + i];
          x[hot * width + i] = kept;
        }
      };
      exchange(v, V);
      exchange(h, H);
    }
  }
}

}  // namespace fastdl
