// What the kernels over trees (rntn.cpp, tree_lstm.cpp) share: heights, and the way between nodes and their children.
#pragma once
#include "loops.h"

namespace fastdl {
namespace {

// Calls f(begin, end) for the inner nodes of each height, lowest first or highest first. What ends[] leaves out counts as
// a height of its own, so every node is visited once whatever it says.
template <class F>
void for_heights(i64 H, i64 n, const int64_t* ends, bool up, const F& f) {
  for (i64 step = 0; step <= H; ++step) {
    const i64 e = up ? step : H - step;
    i64 begin = 0;
    for (i64 i = 0; i < e; ++i) begin = ends[i] > begin ? ends[i] : begin;
    const i64 end = e < H ? ends[e] : n;
    if (begin < end) f(begin, end);
  }
}

// x[m] = (h[left], h[right]), 2 D floats, of the inner nodes [begin, end).
inline void gather_children(i64 begin, i64 end, i64 D, const float* h, const int64_t* children, float* x) {
  for_rows(end - begin, 2 * D, [=](i64 i) {
    const i64 m = begin + i;
    for (i64 side = 0; side < 2; ++side) {
      memcpy(x + (2 * m + side) * D, h + children[m * 2 + side] * D, static_cast<size_t>(D) * sizeof(float));
    }
  });
}

// g[left], g[right] += dx[0], dx[1], ... of the inner nodes [begin, end); one after the other: two nodes may share a child.
inline void add_to_children(i64 begin, i64 end, i64 D, const float* dx, const int64_t* children, float* g) {
  for (i64 m = begin; m < end; ++m) {
    for (i64 side = 0; side < 2; ++side, dx += D) {
      float* to = g + children[m * 2 + side] * D;
      for_vectors(0, D, [=](i64 d, auto lanes) { lanes.store(to + d, lanes.load(to + d) + lanes.load(dx + d)); });
    }
  }
}

}  // namespace
}  // namespace fastdl
