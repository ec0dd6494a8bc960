// Recursive neural tensor networks (Socher et al. 2013): nodes of one height, of all trees of a batch, in one product.
//
// x^T v x sees only v[i,j] + v[j,i], so a node's features are the products x_i x_j with i <= j and x itself, half as many as
// the outer product has, and its pre-activation is features[K] u[K,D]:
//
//                 x_0 x_0 .. x_0 x_e   x_1 x_1 .. x_1 x_e   ...   x_e x_e   x_0 .. x_e          e = 2D - 1
//      feature    0        ..     e    e+1      ..     2e         F - 1     F   ..  K - 1       F = D (2D + 1), K = F + 2D
//      u          v[0,0]   v[i,j] + v[j,i]  ...                             w[0] .. w[e]
//
// Features are never stored: they are made while the product packs its left operand. docs/kernels/rntn.md has the derivation.
#include "../formulas.h"
#include "../kernels.h"
#include "column_sums.h"
#include "trees.h"

namespace fastdl {
namespace {

constexpr i64 kGradientRows = 64;  // nodes whose K feature gradients are in L2 at a time

i64 tensor_features(i64 D, const float* v) { return v ? D * (2 * D + 1) : 0; }
// First feature of x_i.
i64 feature_of(i64 i, i64 E) { return i * E - i * (i - 1) / 2; }

// Row f of u, D floats, goes to u + f * row + k * column.
void fold(i64 D, const float* v, const float* w, i64 row, i64 column, float* u) {
  const i64 E = 2 * D, F = tensor_features(D, v);
  if (v) {
    for_rows(E, E * D, [=](i64 i) {
      for (i64 j = i; j < E; ++j) {
        const float *a = v + (i * E + j) * D, *b = v + (j * E + i) * D;
        float* to = u + (feature_of(i, E) + j - i) * row;
        for (i64 k = 0; k < D; ++k) to[k * column] = i == j ? a[k] : a[k] + b[k];
      }
    });
  }
  for (i64 i = 0; i < E; ++i) {
    for (i64 k = 0; k < D; ++k) u[(F + i) * row + k * column] = w[i * D + k];
  }
}

// The features of nodes as a left operand. Slices of kTileRows nodes lie transposed: tiles[slice][i][node].
struct Features {
  static constexpr Access kAccess = Access::kPacked;
  const float* tiles;
  i64 E, F;

  void pack(i64 m, i64, i64 k0, i64 k1, float* out) const {
    constexpr i64 W = kTileRows;
    const float* x = tiles + m * E;
    i64 i = 0, k = k0;
    while (i < E && feature_of(i + 1, E) <= k) ++i;
    for (const i64 end = smaller(k1, F); k < end; ++i) {
      // x_i for W rows again and again, W vectors of it, times a run of the x_j.
      float again[W * kLanes];
      for (i64 t = 0; t < W * kLanes; ++t) again[t] = x[i * W + t % W];
      const i64 stop = smaller(feature_of(i + 1, E), end), floats = (stop - k) * W;
      const float* from = x + (k - feature_of(i, E) + i) * W;
      float* to = out + (k - k0) * W;
      i64 t = 0;
      for (; t + W * kLanes <= floats; t += W * kLanes) {
        for (i64 p = 0; p < W; ++p) {
          store(to + t + p * kLanes, load(from + t + p * kLanes) * load(again + p * kLanes));
        }
      }
      for_vectors(t, floats, [=, &again](i64 at, auto lanes) {
        lanes.store(to + at, lanes.load(from + at) * lanes.load(again + (at - t)));
      });
      k = stop;
    }
    if (k < k1) memcpy(out + (k - k0) * W, x + (k - F) * W, static_cast<size_t>((k1 - k) * W) * sizeof(float));
  }
};

// Their transpose: rows are features, K runs over the nodes x[n,E]. Reads up to kTileRows + kLanes floats behind x.
struct FeaturesAcross {
  static constexpr Access kAccess = Access::kPacked;
  const float* x;
  i64 E, F;

  void pack(i64 m, i64 rows, i64 k0, i64 k1, float* out) const {
    constexpr i64 W = kTileRows, V = (W + kLanes - 1) / kLanes;
    i64 first[W], second[W];  // the feature is x[first] x[second]; x[second] alone where first < 0
    i64 i = 0;
    bool run = rows == W;
    for (i64 r = 0; r < rows; ++r) {
      const i64 f = m + r;
      while (i < E && feature_of(i + 1, E) <= f) ++i;
      first[r] = f < F ? i : -1;
      second[r] = f < F ? f - feature_of(i, E) + i : f - F;
      run = run && first[r] == first[0] && second[r] == second[0] + r;
    }
    for (i64 k = k0; k < k1; ++k) {
      const float* node = x + k * E;
      float* to = out + (k - k0) * W;
      if (run) {
        const vec factor = splat(first[0] < 0 ? 1.0f : node[first[0]]);
        // What a vector spills over its row is overwritten next; the last row has none to spill into.
        for (i64 v = 0; v < V; ++v) {
          const vec y = factor * load(node + second[0] + v * kLanes);
          if (k + 1 < k1 || (v + 1) * kLanes <= W) {
            store(to + v * kLanes, y);
          } else {
            store_part(to + v * kLanes, y, W - v * kLanes);
          }
        }
      } else {
        for (i64 r = 0; r < rows; ++r) to[r] = first[r] < 0 ? node[second[r]] : node[first[r]] * node[second[r]];
      }
    }
  }
};

struct Compose {
  const float* bias;
  FASTDL_INLINE vec operator()(vec sum, i64, i64 n, i64 lanes) const {
    return fastdl::tanh(bias ? sum + load_lanes(bias + n, lanes) : sum);
  }
};

// dx[E] = d(features . g) / dx for the feature gradients g[K].
FASTDL_INLINE void features_backward(i64 E, i64 F, const float* x, const float* g, float* dx) {
  memcpy(dx, g + F, static_cast<size_t>(E) * sizeof(float));
  if (F == 0) return;
  for (i64 i = 0; i < E; ++i) {
    const vec xi = splat(x[i]);
    const float* gi = g - i;
    vec sum = {};
    for_vectors(i, E, [&](i64 j, auto lanes) {
      const vec gij = lanes.load(gi + j);
      lanes.store(dx + j, fma(gij, xi, lanes.load(dx + j)));
      sum = fma(gij, lanes.load(x + j), sum);
    });
    dx[i] += sum_lanes(sum);
    g += E - i;
  }
}

i64 all_features(i64 D) { return D * (2 * D + 1) + 2 * D; }

}  // namespace

i64 rntn_forward_workspace(i64, i64 n, i64, i64 D) {
  return all_features(D) * D + (n + kTileRows) * 2 * D + kTileRows * kLanes;
}

void rntn_forward(i64 L, i64 n, i64 H, i64 D, const float* leaves, const int64_t* children, const int64_t* ends,
                  const float* v, const float* w, const float* b, float* work, float* h, void*) {
  const i64 E = 2 * D, F = tensor_features(D, v), K = F + E;
  for_elements(L * D, [=](i64 i, auto lanes) { lanes.store(h + i, lanes.load(leaves + i)); });
  if (n == 0 || D == 0) return;
  float *u = work, *tiles = u + K * D;
  fold(D, v, w, D, 1, u);
  for_heights(H, n, ends, true, [=](i64 begin, i64 end) {
    const i64 count = end - begin, slices = (count + kTileRows - 1) / kTileRows;
    for_rows(slices, kTileRows * E, [=](i64 slice) {
      float* tile = tiles + slice * kTileRows * E;
      for (i64 r = 0; r < kTileRows; ++r) {
        const i64 m = slice * kTileRows + r;
        for (i64 side = 0; side < 2; ++side) {
          const float* from = m < count ? h + children[(begin + m) * 2 + side] * D : nullptr;
          for (i64 d = 0; d < D; ++d) tile[(side * D + d) * kTileRows + r] = from ? from[d] : 0.0f;
        }
      }
    });
    const Compose compose = {b};
    gemm(count, D, K, Features{tiles, E, F}, RowsB{u, D}, 0.0f, h + (L + begin) * D, D, epilogue_of(compose));
  });
}

i64 rntn_backward_workspace(i64 M, i64 n, i64, i64 D) {
  const i64 K = all_features(D), rows = n < kGradientRows ? n : kGradientRows;
  return K * D + n * D + M * D + rows * (K + 2 * D) + n * 2 * D + kTileRows + 2 * kLanes;
}

void rntn_backward(i64 M, i64 n, i64 H, i64 D, const float* h, const int64_t* children, const int64_t* ends,
                   const float* v, const float* w, const float* dh, float* work, float* dleaves, float beta_dleaves,
                   float* dv, float beta_dv, float* dw, float beta_dw, float* db, float beta_db, void*) {
  const i64 L = M - n, E = 2 * D, F = tensor_features(D, v), K = F + E;
  const i64 rows = n < kGradientRows ? n : kGradientRows;
  float* u = work;                            // transposed, [D,K], while gradients go down; then their sums, [K,D]
  const i64 products = dv ? D * (E + 1) : F;  // dv may be wanted without v
  float* dz = u + (products + E) * D;
  float* g = dz + n * D;
  float* of_features = g + M * D;
  float* dx = of_features + rows * K;
  float* x = dx + rows * E;
  for_elements(M * D, [=](i64 i, auto lanes) { lanes.store(g + i, lanes.load(dh + i)); });
  gather_children(0, n, D, h, children, x);
  fold(D, v, w, 1, K, u);
  for_heights(H, n, ends, false, [=](i64 begin, i64 end) {
    for_elements((end - begin) * D, [=](i64 i, auto lanes) {
      const i64 at = begin * D + i;
      lanes.store(dz + at, lanes.load(g + L * D + at) * tanh_slope(lanes.load(h + L * D + at)));
    });
    for (i64 m0 = begin; m0 < end; m0 += kGradientRows) {
      const i64 count = smaller(kGradientRows, end - m0);
      matmul(1, count, K, D, dz + m0 * D, u, 0, 0, 0.0f, of_features, nullptr);
      for_rows(count, K, [=](i64 r) { features_backward(E, F, x + (m0 + r) * E, of_features + r * K, dx + r * E); });
      add_to_children(m0, m0 + count, D, dx, children, g);
    }
  });
  if (dleaves) {
    with_beta(beta_dleaves, [=](auto put) {
      for_elements(L * D, [=](i64 i, auto lanes) { put(lanes, dleaves + i, lanes.load(g + i)); });
    });
  }
  if (db) sum_columns(n, D, dz, beta_db, db);
  if (!dv && !dw) return;
  memset(x + n * E, 0, static_cast<size_t>(kTileRows + 2 * kLanes) * sizeof(float));
  gemm(products + E, D, n, FeaturesAcross{x, E, products}, RowsB{dz, D}, 0.0f, u, D);
  if (dv) {
    with_beta(beta_dv, [=](auto put) {
      for_rows(E, E * D, [=](i64 i) {
        for (i64 j = 0; j < E; ++j) {
          const float* from = u + (i < j ? feature_of(i, E) + j - i : feature_of(j, E) + i - j) * D;
          float* to = dv + (i * E + j) * D;
          for_vectors(0, D, [=](i64 d, auto lanes) { put(lanes, to + d, lanes.load(from + d)); });
        }
      });
    });
  }
  if (dw) {
    with_beta(beta_dw, [=](auto put) {
      for_elements(E * D, [=](i64 i, auto lanes) { put(lanes, dw + i, lanes.load(u + products * D + i)); });
    });
  }
}

}  // namespace fastdl
