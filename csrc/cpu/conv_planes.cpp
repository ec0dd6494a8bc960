// A grid and few filters: lanes along the pixels of a row instead of along the filters, of which a vector would have too few
// (docs/kernels/conv.md has the counts).
//
//            m .. m + 7  m + 8 .. m + 15      The part of the image a block reads is copied with the zeros of its padding, a plane
//   filter 0 |  8 sums  |    8 sums   |       for each channel and each remainder of row and column modulo the stride: under any
//   filter 1 |          |             |       tap, neighbouring pixels are then neighbours in memory, and so are the rows, a few
//     ..     |          |             |       columns of the padding between them. A step of k: 2 loads of the image and 12 fused
//   filter 5 |          |             |       multiply-adds with weights repeated in all lanes.
//
// Sums run along k as everywhere (one chunk), so which way is taken changes no bit. They leave as planes and are transposed.
//
// The weight gradient reads the same planes, and dy as planes with zeros between the rows: sums of 6 filters and 2 taps, a lane for every
// eighth pixel of a block, each block's added to those before, and the lanes together after some blocks.
#include "conv_planes.h"

#include "../kernels.h"
#include "unroll.h"

namespace fastdl {
namespace {

constexpr i64 kMostFilters = 8, kMostWeights = 1024, kMostWidth = 1024, kMostReach = 64, kPlaneBlock = 512;
constexpr int kMostVecs = 8;

// Layout of a block's planes.
struct Planes {
  i64 rows, blocks;           // of output rows a block has at most; blocks of a sample
  i64 width, height, floats;  // of a plane; rows follow each other without a gap
  i64 count, K;
  i64 offset[kChunk];  // of each step of k

  Planes(const Grid& grid, i64 channels) {
    const i64 sy = grid.stride_y, sx = grid.stride_x;
    width = grid.Q + (grid.S - 1) * grid.step_x / sx;
    const i64 most = smaller(grid.P, larger<i64>(1, kPlaneBlock / width));
    blocks = (grid.P + most - 1) / most;
    rows = (grid.P + blocks - 1) / blocks;
    height = rows + (grid.R - 1) * grid.step_y / sy;
    floats = width * height;
    count = channels * sy * sx;
    K = grid.R * grid.S * channels;
    for (i64 k = 0; k < K; ++k) {
      const i64 c = k % channels, r = k / channels / grid.S * grid.step_y, s = k / channels % grid.S * grid.step_x;
      offset[k] = ((c * sy + r % sy) * sx + s % sx) * floats + r / sy * width + s / sx;
    }
  }
  // Tiles reach past the end of what they need.
  i64 image_floats() const { return round_up(count * floats + kMostVecs * kLanes, 16); }
  i64 sums_step() const { return round_up(rows * width, kLanes) + kMostVecs * kLanes; }
};

struct PlaneTile {
  i64 length;  // pixels of a block, and what lies between its rows; a few more are computed
  i64 K;
  const i64* offset;
  const float *image, *weights;
  i64 weight_step;
  const float* bias;  // or null
  int act;
  float slope;
  float* sums;  // of filter f at sums + f * step
  i64 step;
};

// F filters, V vectors of pixels at a time.
template <int F, int V>
void plane_sums(const PlaneTile& t) {
  for (i64 m = 0; m < t.length; m += V * kLanes) {
    vec sum[F][V];
    unrolled<F>([&](auto f) FASTDL_INLINED { unrolled<V>([&](auto v) FASTDL_INLINED { sum[f][v] = vec{}; }); });
    const float* w = t.weights;
    for (i64 k = 0; k < t.K; ++k, w += t.weight_step) {
      const float* const p = t.image + m + t.offset[k];
      vec x[V];
      unrolled<V>([&](auto v) FASTDL_INLINED { x[v] = load(p + v * kLanes); });
      unrolled<F>([&](auto f) FASTDL_INLINED {
        const vec wf = load(w + f * kLanes);
        unrolled<V>([&](auto v) FASTDL_INLINED { add_product(sum[f][v], x[v], wf); });
      });
    }
    unrolled<F>([&](auto f) FASTDL_INLINED {
      unrolled<V>([&](auto v) FASTDL_INLINED {
        vec z = sum[f][v];
        if (t.bias) z += splat(t.bias[f]);
        if (t.act == kRelu) z = relu(z);
        if (t.act == kLeakyRelu) z = leaky_relu(z, splat(t.slope));
        store(t.sums + f * t.step + m + v * kLanes, z);
      });
    });
  }
}

// Of the weight gradient: sums[(k * columns + f) * kLanes] for F filters and taps k .. k + T - 1, taps past the last into room for them.
struct WeightTile {
  i64 length, K;
  const i64* offset;
  const float *image, *dy;  // dy of filter f at dy + f * step
  i64 step;
  float* sums;
  i64 columns;
};

template <int F, int T>
void plane_products(const WeightTile& t) {
  for (i64 k = 0; k < t.K; k += T) {
    vec sum[T][F];
    const float* x[T];
    unrolled<T>([&](auto i) FASTDL_INLINED {
      x[i] = t.image + t.offset[smaller<i64>(k + i, t.K - 1)];
      unrolled<F>([&](auto f) FASTDL_INLINED { sum[i][f] = vec{}; });
    });
    const float* dy[F];
    unrolled<F>([&](auto f) FASTDL_INLINED { dy[f] = t.dy + f * t.step; });
    for (i64 m = 0; m < t.length; m += kLanes) {
      vec xv[T];
      unrolled<T>([&](auto i) FASTDL_INLINED { xv[i] = load(x[i] + m); });
      unrolled<F>([&](auto f) FASTDL_INLINED {
        const vec d = load(dy[f] + m);
        unrolled<T>([&](auto i) FASTDL_INLINED { add_product(sum[i][f], xv[i], d); });
      });
      __asm__("" : "+r"(m));  // or GCC makes a moving pointer of every row
    }
    unrolled<T>([&](auto i) FASTDL_INLINED {
      unrolled<F>([&](auto f) FASTDL_INLINED {
        float* const p = t.sums + ((k + i) * t.columns + f) * kLanes;
        store(p, load(p) + sum[i][f]);
      });
    });
  }
}

// By number of filters; 12 sums hide the latency of fma and leave registers for the operands.
constexpr void (*kPlaneSums[])(const PlaneTile&) = {nullptr,          plane_sums<1, 8>, plane_sums<2, 6>,
                                                    plane_sums<3, 4>, plane_sums<4, 3>, plane_sums<5, 2>,
                                                    plane_sums<6, 2>};
constexpr void (*kPlaneProducts[])(const WeightTile&) = {nullptr,
                                                         plane_products<1, 8>,
                                                         plane_products<2, 6>,
                                                         plane_products<3, 4>,
                                                         plane_products<4, 3>,
                                                         plane_products<5, 2>,
                                                         plane_products<6, 2>};
FASTDL_INLINE i64 filters_at_once(i64 columns, i64 from) {
  return columns <= 6 ? columns : from == 0 ? 4 : columns - 4;
}

// Four floats, of which a transpose takes two instructions a row on every target; wider ones pay for crossing halves.
typedef float quad __attribute__((vector_size(16)));
typedef float quad_u __attribute__((vector_size(16), aligned(4), may_alias));

FASTDL_INLINE void transpose_quads(quad (&v)[4]) {
  const quad a = __builtin_shufflevector(v[0], v[1], 0, 4, 1, 5), b = __builtin_shufflevector(v[0], v[1], 2, 6, 3, 7);
  const quad c = __builtin_shufflevector(v[2], v[3], 0, 4, 1, 5), d = __builtin_shufflevector(v[2], v[3], 2, 6, 3, 7);
  v[0] = __builtin_shufflevector(a, c, 0, 1, 4, 5);
  v[1] = __builtin_shufflevector(a, c, 2, 3, 6, 7);
  v[2] = __builtin_shufflevector(b, d, 0, 1, 4, 5);
  v[3] = __builtin_shufflevector(b, d, 2, 3, 6, 7);
}

// out[m * step + j] = sums[j * plane + m] for m < pixels and j < columns, at most 4 G. Quads may spill over a pixel's end, into
// pixels that are written after, but not over `end`.
template <int G>
void put_pixels(const float* sums, i64 plane, i64 pixels, i64 columns, float* out, i64 step, const float* end) {
  i64 m = 0;
  for (; m + 4 <= pixels && out + 3 * step + 4 * G <= end; m += 4, out += 4 * step) {
    quad v[G][4];
    unrolled<G>([&](auto g) FASTDL_INLINED {
      unrolled<4>([&](auto i) FASTDL_INLINED {
        const i64 j = smaller<i64>(g * 4 + i, columns - 1);
        v[g][i] = *reinterpret_cast<const quad_u*>(sums + j * plane + m);
      });
      transpose_quads(v[g]);
    });
    unrolled<4>([&](auto i) FASTDL_INLINED {
      unrolled<G>([&](auto g) FASTDL_INLINED { *reinterpret_cast<quad_u*>(out + i * step + g * 4) = v[g][i]; });
    });
  }
  for (; m < pixels; ++m, out += step) {
    for (i64 j = 0; j < columns; ++j) out[j] = sums[j * plane + m];
  }
}

// The other way: planes[j * plane + m] = in[m * columns + j].
template <int G>
void get_planes(const float* in, i64 pixels, i64 columns, float* planes, i64 plane, const float* end) {
  i64 m = 0;
  for (; m + 4 <= pixels && in + 3 * columns + 4 * G <= end; m += 4, in += 4 * columns) {
    unrolled<G>([&](auto g) FASTDL_INLINED {
      quad v[4];
      unrolled<4>([&](auto i) FASTDL_INLINED { v[i] = *reinterpret_cast<const quad_u*>(in + i * columns + g * 4); });
      transpose_quads(v);
      unrolled<4>([&](auto i) FASTDL_INLINED {
        if (g * 4 + i < columns) *reinterpret_cast<quad_u*>(planes + (g * 4 + i) * plane + m) = v[i];
      });
    });
  }
  for (; m < pixels; ++m, in += columns) {
    for (i64 j = 0; j < columns; ++j) planes[j * plane + m] = in[j];
  }
}

// Rows of the image that output rows p0 .. p1 of sample n read.
void load_planes(const Grid& grid, const Planes& t, const float* image, i64 c0, i64 channels, i64 n, i64 p0, i64 p1,
                 float* out) {
  const i64 sy = grid.stride_y, sx = grid.stride_x;
  memset(out, 0, static_cast<size_t>(channels * sy * sx * t.floats + kMostVecs * kLanes) * sizeof(float));
  const i64 rows = (p1 - 1 - p0) * sy + (grid.R - 1) * grid.step_y + 1, top = p0 * sy + grid.first_y;
  for (i64 h = larger<i64>(0, -top); h < smaller(rows, grid.H - top); ++h) {
    const float* const row = image + (n * grid.H + top + h) * grid.W * grid.C + c0;
    for (i64 x = 0; x < sx; ++x) {
      // Element i of the plane's row is image column first + i sx.
      const i64 first = grid.first_x + x, from = first < 0 ? (-first + sx - 1) / sx : 0;
      const i64 count = smaller(t.width, first < grid.W ? (grid.W - 1 - first) / sx + 1 : 0) - from;
      if (count <= 0) continue;
      float* to = out + ((h % sy) * sx + x) * t.floats + h / sy * t.width + from;
      const float* source = row + (first + from * sx) * grid.C;
      const i64 apart = sx * grid.C;
      if (apart == 1) {
        memcpy(to, source, static_cast<size_t>(count) * sizeof(float));
        continue;
      }
      for (i64 c = 0; c < channels; ++c, to += sy * sx * t.floats) {
        const float* from_c = source + c;
        for (i64 i = 0; i < count; ++i, from_c += apart) to[i] = *from_c;
      }
    }
  }
}

}  // namespace

bool planes_pay(const Grid& grid, i64 channels, i64 columns) {
  const i64 K = grid.R * grid.S * channels, strides = grid.stride_y * grid.stride_x;
  // Taking the channels apart costs about two products of a pixel's.
  const i64 least = channels * strides == 1 ? 4 : 9 * strides;
  return grid.rows() > 0 && grid.Q > 0 && columns <= kMostFilters && grid.R * grid.S >= least && K > 0 && K <= kChunk &&
         K * columns <= kMostWeights && grid.Q + (grid.S - 1) * grid.step_x / grid.stride_x + 1 <= kMostWidth &&
         (grid.R - 1) * grid.step_y <= kMostReach * grid.stride_y;
}

void convolve_planes(const Grid& grid, const float* image, i64 c0, i64 channels, const float* packed, i64 columns,
                     const Placement& place, const Finish& f, bool direct) {
  const Planes t(grid, channels);
  const i64 panel_width = panel_of(columns).width, width = round_up(columns, larger(kLanes, columns > 4 ? 8 : 4));
  const i64 pixels = t.rows * grid.Q, step = direct ? place.C : width;
  float bias[kMostFilters + 2 * kLanes];
  gather_bias(place, f, 0, columns, bias);
  const auto put = columns > 4 ? put_pixels<2> : put_pixels<1>;
  const i64 grain = larger<i64>(1, i64(2e6 / (double(pixels) * double(columns) * double(t.K))));
  parallel_for(grid.N * t.blocks, grain, [&](i64 begin, i64 end) {
    float* const planes = thread_scratch(2, static_cast<size_t>(t.image_floats() + columns * t.sums_step()));
    float* const sums = planes + t.image_floats();
    float* const weights = thread_scratch(1, static_cast<size_t>(t.K * columns * kLanes));
    float* const pixel_sums = direct ? nullptr : thread_scratch(0, static_cast<size_t>(pixels * width));
    for (i64 k = 0; k < t.K; ++k) {
      for (i64 j = 0; j < columns; ++j) store(weights + (k * columns + j) * kLanes, splat(packed[k * panel_width + j]));
    }
    PlaneTile tile = {
        0,       t.K,     t.offset,     planes, nullptr, columns * kLanes, nullptr, direct ? f.act : kNone,
        f.slope, nullptr, t.sums_step()};
    for (i64 i = begin; i < end; ++i) {
      const i64 n = i / t.blocks, p0 = i % t.blocks * t.rows, p1 = smaller(p0 + t.rows, grid.P), g0 = n * grid.P + p0;
      load_planes(grid, t, image, c0, channels, n, p0, p1, planes);
      tile.length = (p1 - p0 - 1) * t.width + grid.Q;
      for (i64 j = 0, some; j < columns; j += some) {
        some = filters_at_once(columns, j);
        tile.weights = weights + j * kLanes;
        tile.bias = direct ? bias + j : nullptr;
        tile.sums = sums + j * tile.step;
        kPlaneSums[some](tile);
      }
      float* out = direct ? f.out + g0 * place.X * place.C + place.c0 : pixel_sums;
      const float* const out_end = out + (p1 - p0) * grid.Q * step;
      for (i64 p = 0; p < p1 - p0; ++p, out += grid.Q * step) {
        put(sums + p * t.width, tile.step, grid.Q, columns, out, step, out_end);
      }
      if (!direct) finish_pixels(grid, place, f, pixel_sums, width, 0, columns, bias, g0, g0 + p1 - p0, 0, grid.Q);
    }
  });
}

namespace {

// Blocks whose sums are added lane by lane.
FASTDL_INLINE i64 group_of(const Grid& grid, const Planes& t) { return larger<i64>(1, 4096 / (t.rows * grid.Q)); }

}  // namespace

i64 planes_weight_groups(const Grid& grid) {
  const Planes t(grid, grid.C);
  return (grid.N * t.blocks - 1) / group_of(grid, t) + 1;
}

void planes_weight(const Grid& grid, const float* image, const float* dy, i64 F, float* sums) {
  const Planes t(grid, grid.C);
  const i64 blocks = grid.N * t.blocks, group = group_of(grid, t), step = t.sums_step(), size = t.K * F;
  const float* const dy_end = dy + grid.rows() * grid.Q * F;
  const auto get = F > 4 ? get_planes<2> : get_planes<1>;
  parallel_for(planes_weight_groups(grid), 1, [&](i64 begin, i64 end) {
    float* const planes = thread_scratch(2, static_cast<size_t>(t.image_floats() + F * step));
    float* const dy_planes = planes + t.image_floats();
    float* const lanes = thread_scratch(1, static_cast<size_t>((t.K + kMostVecs) * F * kLanes));
    memset(dy_planes, 0, static_cast<size_t>(F * step) * sizeof(float));  // of which the gaps between rows stay so
    for (i64 i = begin; i < end; ++i) {
      memset(lanes, 0, static_cast<size_t>((t.K + kMostVecs) * F * kLanes) * sizeof(float));
      for (i64 block = i * group; block < smaller((i + 1) * group, blocks); ++block) {
        const i64 n = block / t.blocks, p0 = block % t.blocks * t.rows, p1 = smaller(p0 + t.rows, grid.P);
        load_planes(grid, t, image, 0, grid.C, n, p0, p1, planes);
        for (i64 p = p0; p < p1; ++p) {
          get(dy + (n * grid.P + p) * grid.Q * F, grid.Q, F, dy_planes + (p - p0) * t.width, step, dy_end);
        }
        const i64 length = (p1 - p0 - 1) * t.width + grid.Q;
        for (i64 f = 0; f < F; ++f) store(dy_planes + f * step + length, vec{});  // not a longer block's rows
        for (i64 f = 0, some; f < F; f += some) {
          some = filters_at_once(F, f);
          kPlaneProducts[some]({length, t.K, t.offset, planes, dy_planes + f * step, step, lanes + f * kLanes, F});
        }
      }
      float* const out = sums + i * size;
      for (i64 j = 0; j < size; ++j) out[j] = sum_lanes(load(lanes + j * kLanes));
    }
  });
}

}  // namespace fastdl
