// The innermost loops of convolution. One step of k on a tile of 6 x 16 (AVX2): 2 loads of b, 6 broadcasts of the image, 12
// fused multiply-adds; on a thin tile of 8 x 8: 1, 8 and 8.
#include "../formulas.h"
#include "../kernels.h"
#include "conv.h"
#include "unroll.h"

namespace fastdl {
namespace {

// Where a tile hangs over the edge; not worth code of its own in every tile.
__attribute__((noinline)) vec load_edge(const float* p, i64 lanes) {
  return lanes >= kLanes ? load(p) : load_part(p, larger<i64>(lanes, 0));
}
__attribute__((noinline)) void store_edge(float* p, vec v, i64 lanes) {
  if (lanes >= kLanes) {
    store(p, v);
  } else {
    store_part(p, v, lanes);
  }
}

template <int R, int V>
struct Sums {
  vec at[R][V];

  FASTDL_INLINE void begin() {
    unrolled<R>([&](auto r) FASTDL_INLINED { unrolled<V>([&](auto v) FASTDL_INLINED { at[r][v] = vec{}; }); });
  }
  // Row r's element of the image is a(r), the vectors of b are at b.
  template <class Element>
  FASTDL_INLINE void add(const float* b, const Element& a) {
    vec bv[V];
    unrolled<V>([&](auto v) FASTDL_INLINED { bv[v] = load(b + v * kLanes); });
    unrolled<R>([&](auto r) FASTDL_INLINED {
      if constexpr (V == 1) {
        add_scaled(at[r][0], a(r), bv[0]);
      } else {
        const vec ar = splat(a(r));
        unrolled<V>([&](auto v) FASTDL_INLINED { add_product(at[r][v], ar, bv[v]); });
      }
    });
    unrolled<V>([&](auto v) FASTDL_INLINED { keep(bv[v]); });
  }
  // place(r): where row r of c lies, in steps.
  template <class Place>
  FASTDL_INLINE void end(const ConvTile& t, const float* from, float* c, const Place& place) {
    const i64 c_step = t.c_step;
    if (from) {
      unrolled<R>([&](auto r) FASTDL_INLINED {
        unrolled<V>([&](auto v) FASTDL_INLINED {
          const float* p = from + place(r) * t.from_step + v * kLanes;
          at[r][v] = splat(t.beta) * (t.cols < V * kLanes ? load_edge(p, t.cols - v * kLanes) : load(p)) + at[r][v];
        });
      });
    }
    if (t.bias) {
      vec bias[V];
      unrolled<V>([&](auto v) FASTDL_INLINED { bias[v] = load(t.bias + v * kLanes); });
      unrolled<R>([&](auto r) FASTDL_INLINED { unrolled<V>([&](auto v) FASTDL_INLINED { at[r][v] += bias[v]; }); });
    }
    if (t.act == kRelu) {
      each([](vec z) { return relu(z); });
    } else if (t.act == kLeakyRelu) {
      each([&](vec z) { return leaky_relu(z, splat(t.slope)); });
    }
    if (t.cols < V * kLanes) {
      unrolled<R>([&](auto r) FASTDL_INLINED {
        unrolled<V>([&](auto v) FASTDL_INLINED {
          store_edge(c + place(r) * c_step + v * kLanes, at[r][v], t.cols - v * kLanes);
        });
      });
    } else {
      unrolled<R>([&](auto r) FASTDL_INLINED {
        unrolled<V>([&](auto v) FASTDL_INLINED { store(c + place(r) * c_step + v * kLanes, at[r][v]); });
      });
    }
  }
  template <class F>
  FASTDL_INLINE void each(const F& f) {
    unrolled<R>([&](auto r) FASTDL_INLINED { unrolled<V>([&](auto v) FASTDL_INLINED { at[r][v] = f(at[r][v]); }); });
  }
};

enum class Form { kAdjacent, kScattered, kStrided, kUniform };

template <int R, int V, Form kForm>
void conv_tile(const ConvTile& t) {
  Sums<R, V> sums;
  const i64 b_step = t.b_step, step = t.step;
  constexpr int kUnroll = R < smaller(kTileRows, kThinRows) ? 2 : 4;
  const ConvRun *run = t.runs, *const last = t.runs + t.run_count;
  if constexpr (kForm == Form::kUniform) {
    // Three rows to a pointer: what an address can express.
    constexpr int kPointers = (R + 2) / 3;
    const float *first = t.row[0], *from = t.from;
    float* c = t.c;
    for (i64 i = t.count; i > 0; --i, first += R * step, c += R * t.c_step) {
      sums.begin();
      for (run = t.runs; run != last; ++run) {
        const float* b = t.b + run->k * b_step;
        const float* p[kPointers];
        unrolled<kPointers>([&](auto j) FASTDL_INLINED { p[j] = first + run->offset + j * 3 * step; });
        for (i64 k = run->length; k > 0; --k) {
          sums.add(b, [&](auto r) FASTDL_INLINED -> const float& { return p[r / 3][r % 3 * step]; });
          b += b_step;
          unrolled<kPointers>([&](auto j) FASTDL_INLINED {
            ++p[j];
            __asm__("" : "+r"(p[j]));  // or GCC makes a moving pointer of every row
          });
        }
      }
      sums.end(t, from, c, [](auto r) FASTDL_INLINED { return i64(r); });
      if (from) from += R * t.from_step;
    }
  } else {
    sums.begin();
    for (; run != last; ++run) {
      const float* b = t.b + run->k * b_step;
      const float* row[R];
      unrolled<R>([&](auto r) FASTDL_INLINED { row[r] = t.row[r] + run->offset; });
      // Four steps at a time: the end of a long run is then predicted.
      i64 left = run->length, k = 0;
      for (; left >= kUnroll; left -= kUnroll) {
        __asm__("" : "+r"(k));  // likewise
        unrolled<kUnroll>([&](auto u) FASTDL_INLINED {
          if constexpr (kForm != Form::kStrided) {
            sums.add(b, [&](auto r) FASTDL_INLINED -> const float& { return row[r][k + u]; });
          } else {
            sums.add(b, [&](auto r) FASTDL_INLINED -> const float& { return row[r][k]; });
            k += step;
          }
          b += b_step;
        });
        if constexpr (kForm != Form::kStrided) k += kUnroll;
      }
      for (; left > 0; --left) {
        __asm__("" : "+r"(k));  // likewise
        sums.add(b, [&](auto r) FASTDL_INLINED -> const float& { return row[r][k]; });
        k += kForm != Form::kStrided ? 1 : step;
        b += b_step;
      }
    }
    if constexpr (kForm == Form::kScattered) {
      sums.end(t, t.from, t.c, [&](auto r) FASTDL_INLINED { return t.place[r]; });
    } else {
      sums.end(t, t.from, t.c, [](auto r) FASTDL_INLINED { return i64(r); });
    }
  }
}

}  // namespace

#define FASTDL_ROWS(V, FORM)                                                                           \
  nullptr, conv_tile<1, V, FORM>, conv_tile<2, V, FORM>, conv_tile<3, V, FORM>, conv_tile<4, V, FORM>, \
      conv_tile<5, V, FORM>, conv_tile<6, V, FORM>
#define FASTDL_ROWS_8(V, FORM) FASTDL_ROWS(V, FORM), conv_tile<7, V, FORM>, conv_tile<8, V, FORM>
#if FASTDL_VECTOR_BYTES == 64
#define FASTDL_FULL_ROWS(FORM)                                                                        \
  FASTDL_ROWS_8(kTileVecs, FORM), conv_tile<9, kTileVecs, FORM>, conv_tile<10, kTileVecs, FORM>,      \
      conv_tile<11, kTileVecs, FORM>, conv_tile<12, kTileVecs, FORM>, conv_tile<13, kTileVecs, FORM>, \
      conv_tile<14, kTileVecs, FORM>
#elif defined(__aarch64__)
#define FASTDL_FULL_ROWS(FORM) FASTDL_ROWS_8(kTileVecs, FORM)
#else
#define FASTDL_FULL_ROWS(FORM) FASTDL_ROWS(kTileVecs, FORM)
#endif

const ConvTileFunction conv_full_adjacent[] = {FASTDL_FULL_ROWS(Form::kAdjacent)};
const ConvTileFunction conv_full_scattered[] = {FASTDL_FULL_ROWS(Form::kScattered)};
const ConvTileFunction conv_full_strided[] = {FASTDL_FULL_ROWS(Form::kStrided)};
const ConvTileFunction conv_full_uniform[] = {FASTDL_FULL_ROWS(Form::kUniform)};
const ConvTileFunction conv_thin_adjacent[] = {FASTDL_ROWS_8(1, Form::kAdjacent)};
const ConvTileFunction conv_thin_scattered[] = {FASTDL_ROWS_8(1, Form::kScattered)};
const ConvTileFunction conv_thin_strided[] = {FASTDL_ROWS_8(1, Form::kStrided)};
const ConvTileFunction conv_thin_uniform[] = {FASTDL_ROWS_8(1, Form::kUniform)};
static_assert(sizeof(conv_full_adjacent) == (kTileRows + 1) * sizeof(ConvTileFunction), "one for every number of rows");
static_assert(sizeof(conv_thin_adjacent) == (kThinRows + 1) * sizeof(ConvTileFunction), "one for every number of rows");

}  // namespace fastdl
