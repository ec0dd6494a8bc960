// Data gradient and transposed convolution: the product of the output's gradient with the filters turned round, class by class of
// the stride, or all classes in one. docs/kernels/conv.md has the derivations and the measurements.
#include "../kernels.h"
#include "conv_winograd.h"
#include "unroll.h"

namespace fastdl {
namespace {

// One axis of a class of input pixels that meet the same taps: pixels first, first + stride, ...; tap t of the class is
// filter row (or column) last - t * apart, and reads output row origin + i + t * step for the i-th pixel of the class.
struct AxisClass {
  i64 first, count, taps, last, apart, origin, step;
};

AxisClass axis_class(i64 residue, i64 size, i64 R, i64 stride, i64 pad, i64 dilation) {
  AxisClass a = {residue, residue < size ? (size - 1 - residue) / stride + 1 : 0, 0, 0, 1, 0, 1};
  i64 before = -1;
  for (i64 r = 0; r < R; ++r) {
    if ((residue + pad - r * dilation) % stride != 0) continue;
    ++a.taps;
    if (before >= 0) a.apart = r - before;
    before = a.last = r;
  }
  a.step = a.apart * dilation / stride;
  if (a.step == 0) a.step = 1;  // a single tap
  a.origin = (residue + pad - a.last * dilation) / stride;
  return a;
}

// The filters of a class, turned round: k = (r, s, f), columns are input channels.
struct FiltersTurned {
  const float* w;
  AxisClass y, x;
  i64 S, C, F, f0, Fg;  // C: channels of a group
  template <int W>
  void pack(i64 n, i64 cols, float* out) const {
    for (i64 i = 0; i < y.taps; ++i) {
      for (i64 j = 0; j < x.taps; ++j) {
        const i64 tap = (y.last - i * y.apart) * S + x.last - j * x.apart;
        pack_transposed<W>(w + (tap * C + n) * F + f0, F, cols, Fg, out);
        out += Fg * W;
      }
    }
  }
};

// With few channels a class is a thin product. Then all classes, and `wide` neighbours of each, are columns of one product
// over the union of their taps; taps that a column lacks are zeros. Column ((jy * block_x) + jx) * C + c is input pixel
// (i stride_y + jy - pad_y, i block_x + jx - pad_x), block_x = wide stride_x. Dilation 1, one group.
struct FiltersMerged {
  const float* w;
  i64 R, S, C, F, stride_y, stride_x, wide, taps_y, taps_x;
  template <int W>
  void pack(i64 n, i64 cols, float* out) const {
    const i64 block_x = wide * stride_x;
    for (i64 i = 0; i < taps_y; ++i) {
      for (i64 j = 0; j < taps_x; ++j, out += F * W) {
        for (i64 column = 0; column < W; ++column) {
          const i64 c = (n + column) % C, jx = (n + column) / C % block_x, jy = (n + column) / C / block_x;
          // Output row of tap i: origin + i with origin = -(taps_y - 1); it meets filter row jy - stride_y (origin + i).
          const i64 r = jy + stride_y * (taps_y - 1 - i), s = jx + stride_x * (taps_x - wide - j);
          const bool there = column < cols && r < R && s >= 0 && s < S;
          for (i64 f = 0; f < F; ++f) out[f * W + column] = there ? w[((r * S + s) * C + c) * F + f] : 0.0f;
        }
      }
    }
  }
};

// How the merged product would look, and whether it is the cheaper way.
struct Merge {
  bool better;
  i64 wide, columns, taps_y, taps_x, first_y, first_x, P, Q;
};

// Thin tiles load more for each product.
FASTDL_INLINE double lanes_cost(i64 columns) {
  const i64 rest = columns % kTileCols;
  const double thin = 1.25 * double(kLanes);
  return double(columns - rest) + (rest == 0 ? 0.0 : rest <= kLanes ? thin : double(kTileCols));
}
// Floor of a / b for b > 0.
FASTDL_INLINE i64 floor_of(i64 a, i64 b) { return a >= 0 ? a / b : -((-a + b - 1) / b); }

Merge merge_of(i64 Y, i64 X, i64 C, i64 R, i64 S, i64 stride_y, i64 stride_x, i64 pad_y, i64 pad_x, i64 dilation_y,
               i64 dilation_x, i64 groups) {
  Merge best = {};
  if (groups != 1 || dilation_y != 1 || dilation_x != 1 || C * stride_y * stride_x > kStripFilters || R * S == 0)
    return best;
  double least = double(Y) * double(X) * double(R * S) / double(stride_y * stride_x) * lanes_cost(C);
  for (i64 wide = 1; wide <= 16; wide *= 2) {
    Merge m = {};
    m.wide = wide;
    m.columns = C * stride_y * stride_x * wide;
    if (m.columns > kStripFilters) break;
    m.taps_y = (R - 1) / stride_y + 1;
    m.taps_x = (S - 1) / stride_x + wide;
    m.first_y = floor_of(pad_y, stride_y);
    m.first_x = floor_of(pad_x, stride_x * wide);
    m.P = floor_of(Y - 1 + pad_y, stride_y) - m.first_y + 1;
    m.Q = floor_of(X - 1 + pad_x, stride_x * wide) - m.first_x + 1;
    const double cost = double(m.P) * double(m.Q) * double(m.taps_y * m.taps_x) * lanes_cost(m.columns);
    if (cost < 0.9 * least) {
      least = cost / 0.9;
      best = m;
      best.better = true;
    }
  }
  return best;
}

// ------------------------------------------------------------------------------------------------ taps as columns
// The other way round: t[p, (r, s, c)] = sum over f of dy[p, f] w[r, s, c, f], a plain product with R S C columns, and
// dx[y] = sum over the taps (r, s) of t[p, (r, s)] at the p that meets y under that tap. With few channels the product is several
// times wider than that of a class, and no zeros are multiplied. t of some samples stays in L2.
//
// The taps of a filter row are neighbours in t and in dx, a run of S C floats (with a dilation: of C). Column q of all the rows of
// dy that meet row y of dx is added up in registers and then added to the row once.

constexpr i64 kTapFloats = 65536;

// What the two ways cost, in lanes of fused multiply-adds; the weights are fitted to measurements (docs/kernels/conv.md).
bool taps_better(i64 Y, i64 C, i64 R, i64 S, i64 F, i64 P, i64 Q, i64 stride_y, i64 dilation_x, i64 groups,
                 double other) {
  if (groups != 1 || R * S < 2 || P * Q * R * S * C > kTapFloats || C > kStripFilters) return false;
  const double product = double(P * Q) * double(F) * double(round_up(R * S * C, kTileCols));
  const double writing = 8.0 * double(P * Q) * double(R * S * C);
  const double run = dilation_x == 1 ? double(round_up(S * C, kLanes)) : double(S * round_up(C, kLanes));
  const double adding = 4.0 * double(Y * Q) * run * (double(R) / double(stride_y) + 3.0);
  return product + writing + adding < 0.9 * other;
}

// to[i * to_step + j] += sum over k < rows of from[k][i * from_step + j], i < count, j < lanes, in V vectors. Neighbours overlap in
// `to`, and a load of what was only just stored waits for it, so every `apart`-th of them comes first.
template <int V>
void add_runs(const float* const* from, i64 rows, i64 from_step, i64 count, i64 apart, i64 lanes, float* to,
              i64 to_step) {
  ivec last = {};
  for (i64 j = 0; j < kLanes; ++j) last[j] = j < lanes - (V - 1) * kLanes ? -1 : 0;
  for (i64 first = 0; first < apart; ++first) {
    for (i64 i = first; i < count; i += apart) {
      vec sums[V];
      unrolled<V>([&](auto v) FASTDL_INLINED { sums[v] = vec{}; });
      for (i64 k = 0; k < rows; ++k) {
        const float* const p = from[k] + i * from_step;
        unrolled<V>([&](auto v) FASTDL_INLINED { sums[v] += load(p + v * kLanes); });
      }
      sums[V - 1] = select(last, sums[V - 1], vec{});  // what follows belongs to others, and may be no number
      float* const p = to + i * to_step;
      unrolled<V>([&](auto v) FASTDL_INLINED { store(p + v * kLanes, load(p + v * kLanes) + sums[v]); });
    }
  }
}

void add_runs(const float* const* from, i64 rows, i64 from_step, i64 count, i64 lanes, float* to, i64 to_step) {
  const i64 apart = larger<i64>(1, smaller(count, (lanes + to_step - 1) / to_step));
  switch ((lanes + kLanes - 1) / kLanes) {
    case 1: return add_runs<1>(from, rows, from_step, count, apart, lanes, to, to_step);
    case 2: return add_runs<2>(from, rows, from_step, count, apart, lanes, to, to_step);
    case 3: return add_runs<3>(from, rows, from_step, count, apart, lanes, to, to_step);
    default: return add_runs<4>(from, rows, from_step, count, apart, lanes, to, to_step);
  }
}

void backward_by_taps(i64 N, i64 Y, i64 X, i64 C, i64 R, i64 S, i64 F, i64 P, i64 Q, const float* dy, const float* w,
                      i64 stride_y, i64 stride_x, i64 pad_y, i64 pad_x, i64 dilation_y, i64 dilation_x,
                      const Finish& f) {
  constexpr i64 kRows = 8, kRun = 4 * kLanes;
  const i64 taps = R * S * C, pixels = P * Q, step = stride_x * C;
  // The row of dx as if there were no padding: columns of dy from 0 on meet all of it.
  const i64 before = pad_x * C,
            row_floats = larger((Q - 1) * step + (S - 1) * dilation_x * C + C, before + X * C) + kRun;
  const i64 runs = dilation_x == 1 ? 1 : S, run = dilation_x == 1 ? S * C : C;
  const Grid grid = {N, P, Q, F, Y, 1, R, S, 1, 1, 1, 1, 0, 0};
  const Placement place = {Y, X, C, 0, 0, 0, 1, X, 1, X};
  const i64 samples = larger<i64>(1, kTapFloats / larger<i64>(1, pixels * taps));
  parallel_for(N, samples, [&](i64 begin, i64 end) {
    float* const t = thread_scratch(2, static_cast<size_t>(kTapFloats + kRun + row_floats + X * C + 3 * kLanes));
    float *const row = align(t + kTapFloats + kRun), *const bias = row + row_floats;
    for (i64 i = 0; i < X * C + kLanes; ++i) bias[i] = f.bias && i < X * C ? f.bias[i % C] : 0.0f;
    for (i64 n0 = begin; n0 < end; n0 += samples) {
      const i64 n1 = smaller(n0 + samples, end);
      gemm_strided((n1 - n0) * pixels, taps, F, dy + n0 * pixels * F, F, 0, w, F, 1, 0.0f, t, taps);
      for (i64 g = n0 * Y; g < n1 * Y; ++g) {
        const float* const image = t + (g / Y - n0) * pixels * taps;
        memset(row, 0, static_cast<size_t>(row_floats) * sizeof(float));
        for (i64 r = 0; r < R;) {
          const float* from[kRows];
          i64 rows = 0;
          for (; r < R && rows < kRows; ++r) {
            const i64 down = g % Y + pad_y - r * dilation_y, p = down / stride_y;
            if (down >= 0 && p < P && p * stride_y == down) from[rows++] = image + p * Q * taps + r * S * C;
          }
          if (rows == 0) continue;
          for (i64 j = 0; j < runs * run; j += smaller(kRun, run - j % run)) {
            const float* part[kRows];
            for (i64 k = 0; k < rows; ++k) part[k] = from[k] + j;
            add_runs(part, rows, taps, Q, smaller(kRun, run - j % run),
                     row + (runs == 1 ? j : j / C * dilation_x * C + j % C), step);
          }
        }
        finish_pixels(grid, place, f, row + before, X * C, 0, C, bias, g, g + 1, 0, 1);
      }
    }
  });
}

// Where a filter row fills vectors, its sum over the filter rows r is part of the product already, and t is R times smaller: t[y, q, (s, c)]
// = sum over (r, f) of dy[p, q, f] w[r, s, c, f] at the p that meets row y of dx under r. Rows of dx with the same remainder modulo the
// stride are one product.
struct FilterRows {
  const float* w;
  AxisClass y;
  i64 columns, F;
  template <int W>
  void pack(i64 n, i64 cols, float* out) const {
    for (i64 i = 0; i < y.taps; ++i, out += F * W) {
      pack_transposed<W>(w + ((y.last - i * y.apart) * columns + n) * F, F, cols, F, out);
    }
  }
};

bool rows_better(i64 C, i64 R, i64 S, i64 F, i64 Q) {
  return F >= 16 && Q <= kBlockPixels && S * C <= kStripFilters &&
         10 * R * lanes_of(S * C) <= 11 * round_up(R * S * C, kTileCols);
}

void backward_by_rows(i64 N, i64 Y, i64 X, i64 C, i64 R, i64 S, i64 F, i64 P, i64 Q, const float* dy, const float* w,
                      i64 stride_y, i64 stride_x, i64 pad_y, i64 pad_x, i64 dilation_y, i64 dilation_x, float* packed,
                      const Finish& f) {
  for (i64 i = 0; i < stride_y; ++i) {
    const AxisClass y = axis_class(i, Y, R, stride_y, pad_y, dilation_y);
    if (y.count == 0) continue;
    pack_filters(FilterRows{w, y, S * C, F}, y.taps * F, S * C, packed);
    const Grid grid = {N, P, Q, F, y.count, Q, y.taps, 1, 1, 1, y.step, 1, y.origin, 0};
    const Placement place = {Y, X, C, 0, y.first, -pad_x, stride_y, stride_x, 0, 0, S, dilation_x};
    convolve(grid, dy, 0, F, packed, S * C, place, f);
  }
}

// What the product by classes costs, as above.
double classes_cost(i64 Y, i64 X, i64 C, i64 R, i64 S, i64 F, i64 stride_y, i64 stride_x, const Merge& merge) {
  if (merge.better)
    return double(merge.P * merge.Q) * double(merge.taps_y * merge.taps_x * F) * lanes_cost(merge.columns);
  return double(Y * X) * double(R * S * F) / double(stride_y * stride_x) * lanes_cost(C);
}

// Stride 1 is one class, the flipped filters on dy.
Grid flipped(i64 N, i64 Y, i64 X, i64 R, i64 S, i64 F, i64 P, i64 Q, i64 pad_y, i64 pad_x) {
  return {N, P, Q, F, Y, X, R, S, 1, 1, 1, 1, pad_y - R + 1, pad_x - S + 1};
}
bool by_winograd(const Grid& grid, i64 C, i64 stride_y, i64 stride_x, i64 dilation_y, i64 dilation_x, i64 groups) {
  return groups * stride_y * stride_x * dilation_y * dilation_x == 1 && winograd_pays(grid, C);
}

i64 backward_workspace(i64 Y, i64 X, i64 C, i64 R, i64 S, i64 F, i64 P, i64 Q, i64 stride_y, i64 stride_x, i64 pad_y,
                       i64 pad_x, i64 dilation_y, i64 dilation_x, i64 groups) {
  if (is_depthwise(C, F, groups, R, S)) return depthwise_floats(C, R + 1, S) + kAlignSlack;
  const Grid grid = flipped(1, Y, X, R, S, F, P, Q, pad_y, pad_x);
  if (by_winograd(grid, C, stride_y, stride_x, dilation_y, dilation_x, groups))
    return winograd_floats(F, C) + kAlignSlack;
  const Merge merge = merge_of(Y, X, C, R, S, stride_y, stride_x, pad_y, pad_x, dilation_y, dilation_x, groups);
  const double cost = classes_cost(Y, X, C, R, S, F, stride_y, stride_x, merge);
  if (taps_better(Y, C, R, S, F, P, Q, stride_y, dilation_x, groups, cost))
    return rows_better(C, R, S, F, Q) ? packed_floats(R * F, S * C) + kAlignSlack : 0;
  if (merge.better) return packed_floats(merge.taps_y * merge.taps_x * F, merge.columns) + kAlignSlack;
  return packed_floats(R * S * (F / groups), C / groups) + kAlignSlack;
}

void backward(i64 N, i64 Y, i64 X, i64 C, i64 R, i64 S, i64 F, i64 P, i64 Q, const float* dy, const float* w,
              i64 stride_y, i64 stride_x, i64 pad_y, i64 pad_x, i64 dilation_y, i64 dilation_x, i64 groups, float* work,
              const Finish& f) {
  if (C == 0) return;
  float* packed = align(work);
  const Grid whole = flipped(N, Y, X, R, S, F, P, Q, pad_y, pad_x);
  if (by_winograd(whole, C, stride_y, stride_x, dilation_y, dilation_x, groups)) {
    const AxisClass y = axis_class(0, Y, R, 1, pad_y, 1), x = axis_class(0, X, S, 1, pad_x, 1);
    winograd_transform(FiltersTurned{w, y, x, S, C, F, 0, F}, F, C, packed);
    return winograd_convolve(whole, dy, packed, C, Placement{Y, X, C, 0, 0, 0, 1, 1, 0, 0}, f);
  }
  const Merge merge = merge_of(Y, X, C, R, S, stride_y, stride_x, pad_y, pad_x, dilation_y, dilation_x, groups);
  const double cost = classes_cost(Y, X, C, R, S, F, stride_y, stride_x, merge);
  if (taps_better(Y, C, R, S, F, P, Q, stride_y, dilation_x, groups, cost)) {
    if (rows_better(C, R, S, F, Q)) {
      return backward_by_rows(N, Y, X, C, R, S, F, P, Q, dy, w, stride_y, stride_x, pad_y, pad_x, dilation_y,
                              dilation_x, packed, f);
    }
    backward_by_taps(N, Y, X, C, R, S, F, P, Q, dy, w, stride_y, stride_x, pad_y, pad_x, dilation_y, dilation_x, f);
    return;
  }
  if (merge.better) {
    const FiltersMerged filters = {w, R, S, C, F, stride_y, stride_x, merge.wide, merge.taps_y, merge.taps_x};
    pack_filters(filters, merge.taps_y * merge.taps_x * F, merge.columns, packed);
    const Grid grid = {N,
                       P,
                       Q,
                       F,
                       merge.P,
                       merge.Q,
                       merge.taps_y,
                       merge.taps_x,
                       1,
                       merge.wide,
                       1,
                       1,
                       merge.first_y - (merge.taps_y - 1),
                       merge.first_x * merge.wide - (merge.taps_x - merge.wide)};
    const i64 block_x = stride_x * merge.wide;
    const Placement place = {
        Y,        X,       C,        0,      merge.first_y * stride_y - pad_y, merge.first_x * block_x - pad_x,
        stride_y, block_x, stride_y, block_x};
    convolve(grid, dy, 0, F, packed, merge.columns, place, f);
    return;
  }
  const i64 Cg = C / groups, Fg = F / groups;
  const bool depthwise = is_depthwise(C, F, groups, R, S);
  for (i64 i = 0; i < stride_y; ++i) {
    const AxisClass y = axis_class(i, Y, R, stride_y, pad_y, dilation_y);
    for (i64 j = 0; j < stride_x; ++j) {
      const AxisClass x = axis_class(j, X, S, stride_x, pad_x, dilation_x);
      if (y.count == 0 || x.count == 0) continue;
      const Grid grid = {N, P, Q, F, y.count, x.count, y.taps, x.taps, 1, 1, y.step, x.step, y.origin, x.origin};
      const Placement place = {Y, X, C, 0, y.first, x.first, stride_y, stride_x, 0, 0};
      if (depthwise) {
        pack_depthwise(w, S, C, y.taps, x.taps, y.last, x.last, y.apart, x.apart, packed);
        convolve_depthwise(grid, dy, packed, place, f);
        continue;
      }
      for (i64 g = 0; g < groups; ++g) {
        const FiltersTurned filters = {w, y, x, S, Cg, F, g * Fg, Fg};
        pack_filters(filters, y.taps * x.taps * Fg, Cg, packed);
        Placement here = place;
        here.c0 = g * Cg;
        convolve(grid, dy, g * Fg, Fg, packed, Cg, here, f);
      }
    }
  }
}

}  // namespace

// A row is added up as if there were no padding, so that all runs fit.
void finish_runs(const Grid& grid, const Placement& place, const Finish& f, const float* sums, i64 width, i64 columns,
                 i64 g0, i64 g1) {
  constexpr i64 kRun = 4 * kLanes;
  const i64 C = place.C, row_floats = place.X * C, before = -place.first_x * C, step = place.step_x * C;
  const i64 run = place.tap_step == 1 ? columns : C;
  const i64 floats =
      larger((grid.Q - 1) * step + (place.taps - 1) * place.tap_step * C + C, before + row_floats) + kRun;
  float* const row = thread_scratch(1, static_cast<size_t>(floats + row_floats + 2 * kLanes));
  float* const bias = row + floats;
  for (i64 i = 0; i < row_floats + kLanes; ++i) bias[i] = f.bias && i < row_floats ? f.bias[i % C] : 0.0f;
  const Placement whole = {place.Y, place.X, C, 0, place.first_y, 0, place.step_y, place.X, 1, place.X};
  for (i64 g = g0; g < g1; ++g, sums += grid.Q * width) {
    memset(row, 0, static_cast<size_t>(floats) * sizeof(float));
    for (i64 j = 0, lanes; j < columns; j += lanes) {
      lanes = smaller(kRun, run - j % run);
      const float* const from = sums + j;
      add_runs(&from, 1, width, grid.Q, lanes, row + (run == columns ? j : j / C * place.tap_step * C + j % C), step);
    }
    finish_pixels(grid, whole, f, row + before, row_floats, 0, C, bias, g, g + 1, 0, 1);
  }
}

i64 conv2d_backward_data_workspace(i64, i64 Y, i64 X, i64 C, i64 R, i64 S, i64 F, i64 P, i64 Q, i64 stride_y,
                                   i64 stride_x, i64 pad_y, i64 pad_x, i64 dilation_y, i64 dilation_x, i64 groups) {
  return backward_workspace(Y, X, C, R, S, F, P, Q, stride_y, stride_x, pad_y, pad_x, dilation_y, dilation_x, groups);
}

void conv2d_backward_data(i64 N, i64 Y, i64 X, i64 C, i64 R, i64 S, i64 F, i64 P, i64 Q, const float* dy,
                          const float* w, i64 stride_y, i64 stride_x, i64 pad_y, i64 pad_x, i64 dilation_y,
                          i64 dilation_x, i64 groups, float* work, float* dx, float beta, void*) {
  backward(N, Y, X, C, R, S, F, P, Q, dy, w, stride_y, stride_x, pad_y, pad_x, dilation_y, dilation_x, groups, work,
           Finish{nullptr, kNone, 0.0f, beta, dx, nullptr});
}

i64 conv_transpose2d_forward_workspace(i64, i64 Y, i64 X, i64 C, i64 R, i64 S, i64 F, i64 P, i64 Q, i64 stride_y,
                                       i64 stride_x, i64 pad_y, i64 pad_x, i64 dilation_y, i64 dilation_x, i64 groups) {
  return backward_workspace(Y, X, C, R, S, F, P, Q, stride_y, stride_x, pad_y, pad_x, dilation_y, dilation_x, groups);
}

void conv_transpose2d_forward(i64 N, i64 Y, i64 X, i64 C, i64 R, i64 S, i64 F, i64 P, i64 Q, const float* x,
                              const float* w, const float* b, i64 stride_y, i64 stride_x, i64 pad_y, i64 pad_x,
                              i64 dilation_y, i64 dilation_x, i64 groups, int act, float slope, float* work, float* y,
                              float* z, void*) {
  backward(N, Y, X, C, R, S, F, P, Q, x, w, stride_y, stride_x, pad_y, pad_x, dilation_y, dilation_x, groups, work,
           Finish{b, act, slope, 0.0f, y, z});
}

}  // namespace fastdl
