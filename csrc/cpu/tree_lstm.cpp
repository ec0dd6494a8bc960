// Binary tree LSTM (Tai, Socher & Manning 2015): nodes of one height, of all trees of a batch, in one product.
//
//   up, each height:    gates = (h[left], h[right]) w (packed once for all heights); then cells and outputs in one pass
//   down, each height:  dgates in one pass; (dh[left], dh[right]) += dgates w^T; dc of the children += their forget gates dc
//
// The gradients of the weights are then one product over all nodes. docs/kernels/rntn.md tells of heights.
#include "../cells.h"
#include "recurrent.h"
#include "trees.h"

namespace fastdl {
namespace {

constexpr i64 kRows = 3;  // of a height: enough for the weights to be packed

// What is lowest and highest about a node: its gates z[5D], its children's cells, its own.
template <class L>
FASTDL_INLINE TreeLstmUnit<vec> load_unit(i64 D, const float* z, i64 j, L lanes) {
  return {lanes.load(z + j),
          lanes.load(z + D + j),
          lanes.load(z + 2 * D + j),
          lanes.load(z + 3 * D + j),
          lanes.load(z + 4 * D + j),
          vec{},
          vec{}};
}
template <class L>
FASTDL_INLINE void store_unit(i64 D, const TreeLstmUnit<vec>& unit, float* z, i64 j, L lanes) {
  lanes.store(z + j, unit.i);
  lanes.store(z + D + j, unit.l);
  lanes.store(z + 2 * D + j, unit.r);
  lanes.store(z + 3 * D + j, unit.g);
  lanes.store(z + 4 * D + j, unit.o);
}

}  // namespace

i64 tree_lstm_forward_workspace(i64, i64 n, i64 H, i64 D) {
  return recurrent_floats(kRows, H, 2 * D, 5 * D) + n * 2 * D;
}

void tree_lstm_forward(i64 L, i64 n, i64 H, i64 D, const float* leaves, const float* cells, const int64_t* children,
                       const int64_t* ends, const float* w, const float* b, float* work, float* h, float* c,
                       float* gates, void*) {
  const i64 E = 2 * D, G = 5 * D;
  copy_or_clear(L * D, leaves, h);
  copy_or_clear(L * D, cells, c);
  if (n == 0 || D == 0) return;
  const Recurrent weights = make_recurrent(kRows, H, E, G, w, 0, work);
  float* x = work;
  for_heights(H, n, ends, true, [=, &weights](i64 begin, i64 end) {
    gather_children(begin, end, D, h, children, x);
    multiply(weights, end - begin, x + begin * E, 0.0f, gates + begin * G, G);
    for_rows(end - begin, 64 * D, [=](i64 i) {
      const i64 m = begin + i;
      const float *left = c + children[2 * m] * D, *right = c + children[2 * m + 1] * D;
      float *z = gates + m * G, *cell = c + (L + m) * D, *out = h + (L + m) * D;
      for_vectors(0, D, [=](i64 j, auto lanes) {
        TreeLstmUnit<vec> unit = load_unit(D, z, j, lanes);
        if (b) {
          unit.i += lanes.load(b + j);
          unit.l += lanes.load(b + D + j);
          unit.r += lanes.load(b + 2 * D + j);
          unit.g += lanes.load(b + 3 * D + j);
          unit.o += lanes.load(b + 4 * D + j);
        }
        tree_lstm_unit(unit, lanes.load(left + j), lanes.load(right + j));
        store_unit(D, unit, z, j, lanes);
        lanes.store(cell + j, unit.c);
        lanes.store(out + j, unit.h);
      });
    });
  });
}

i64 tree_lstm_backward_workspace(i64 M, i64 n, i64 H, i64 D) {
  return recurrent_floats(kRows, H, 5 * D, 2 * D) + n * 5 * D + 2 * n * 2 * D + 2 * M * D;
}

void tree_lstm_backward(i64 M, i64 n, i64 H, i64 D, const float* h, const float* c, const float* gates,
                        const int64_t* children, const int64_t* ends, const float* w, const float* dh, const float* dc,
                        float* work, float* dleaves, float beta_dleaves, float* dcells, float beta_dcells, float* dw,
                        float beta_dw, float* db, float beta_db, void*) {
  const i64 L = M - n, E = 2 * D, G = 5 * D;
  if (D == 0) return;
  const Recurrent weights = make_recurrent(kRows, H, G, E, w, 1, work);
  float *dz = work, *x = dz + n * G, *dx = x + n * E, *g = dx + n * E, *g_cell = g + M * D;
  copy_or_clear(M * D, dh, g);
  copy_or_clear(M * D, dc, g_cell);
  for_heights(H, n, ends, false, [=, &weights](i64 begin, i64 end) {
    for_rows(end - begin, 64 * D, [=](i64 i) {
      const i64 m = begin + i;
      const float *left = c + children[2 * m] * D, *right = c + children[2 * m + 1] * D;
      const float *z = gates + m * G, *cell = c + (L + m) * D, *own = g + (L + m) * D;
      float *own_cell = g_cell + (L + m) * D, *to_left = dx + m * E, *to_right = to_left + D;
      for_vectors(0, D, [=](i64 j, auto lanes) {
        TreeLstmUnit<vec> unit = load_unit(D, z, j, lanes);
        const vec l = unit.l, r = unit.r;
        unit.c = lanes.load(cell + j);
        vec d = lanes.load(own_cell + j);
        tree_lstm_unit_backward(unit, lanes.load(left + j), lanes.load(right + j), lanes.load(own + j), d);
        store_unit(D, unit, dz + m * G, j, lanes);
        lanes.store(to_left + j, d * l);
        lanes.store(to_right + j, d * r);
      });
    });
    add_to_children(begin, end, D, dx + begin * E, children, g_cell);
    multiply(weights, end - begin, dz + begin * G, 0.0f, dx + begin * E, E);
    add_to_children(begin, end, D, dx + begin * E, children, g);
  });
  const auto put_leaves = [=](const float* from, float beta, float* to) {
    if (!to) return;
    with_beta(beta, [=](auto put) {
      for_elements(L * D, [=](i64 i, auto lanes) { put(lanes, to + i, lanes.load(from + i)); });
    });
  };
  put_leaves(g, beta_dleaves, dleaves);
  put_leaves(g_cell, beta_dcells, dcells);
  if (dw) {
    gather_children(0, n, D, h, children, x);
    gemm_strided(E, G, n, x, E, 1, dz, G, 0, beta_dw, dw, G);
  }
  if (db) sum_columns(n, G, dz, beta_db, db);
}

}  // namespace fastdl
