// The innermost loops of convolution. One step of k on a tile of 6 x 16 (AVX2): 2 loads of b, 6 broadcasts of the image, 12
// fused multiply-adds; on a thin tile of 8 x 8: 1, 8 and 8.
#include "conv.h"

namespace fastdl {
namespace {

// f(0), f(1), .. f(N - 1), written out before the optimiser sees it: an array indexed so is a set of registers.
template <int I>
struct Constant {
  constexpr operator int() const { return I; }
};
template <int N, int I = 0, class F>
FASTDL_INLINE void unrolled(const F& f) {
  if constexpr (I < N) {
    f(Constant<I>{});
    unrolled<N, I + 1>(f);
  }
}
#define FASTDL_INLINED __attribute__((always_inline))  // for a lambda

// sum = a * b + sum, in the register where it is: left to choose among the three forms of the instruction, GCC moves sums
// about and runs out of registers.
FASTDL_INLINE void add_product(vec& sum, vec a, vec b) {
#if defined(__AVX512F__) && FASTDL_VECTOR_BYTES == 64
  __asm__("vfmadd231ps %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
#elif defined(__FMA__) && FASTDL_VECTOR_BYTES <= 32
  __asm__("vfmadd231ps %2, %1, %0" : "+x"(sum) : "x"(a), "x"(b));
#else
  sum = fma(a, b, sum);
#endif
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
      const vec ar = splat(a(r));
      unrolled<V>([&](auto v) FASTDL_INLINED { add_product(at[r][v], ar, bv[v]); });
    });
  }
  FASTDL_INLINE void end(const ConvTile& t) {
    if (t.cols < V * kLanes) {
      float whole[R][V * kLanes];
      unrolled<R>([&](auto r) FASTDL_INLINED {
        unrolled<V>([&](auto v) FASTDL_INLINED { store(whole[r] + v * kLanes, at[r][v]); });
      });
      for (int r = 0; r < R; ++r) {
        float* c = t.c + r * t.c_step;
        for (i64 j = 0; j < t.cols; ++j) c[j] = t.beta == 0.0f ? whole[r][j] : t.beta * c[j] + whole[r][j];
      }
    } else if (t.beta == 0.0f) {
      unrolled<R>([&](auto r) FASTDL_INLINED {
        unrolled<V>([&](auto v) FASTDL_INLINED { store(t.c + r * t.c_step + v * kLanes, at[r][v]); });
      });
    } else {
      unrolled<R>([&](auto r) FASTDL_INLINED {
        unrolled<V>([&](auto v) FASTDL_INLINED {
          float* c = t.c + r * t.c_step + v * kLanes;
          store(c, t.beta * load(c) + at[r][v]);
        });
      });
    }
  }
};

enum class Form { kAdjacent, kStrided, kUniform };

template <int R, int V, Form kForm>
void conv_tile(const ConvTile& t) {
  Sums<R, V> sums;
  sums.begin();
  const float* b = t.b;
  const i64 b_step = t.b_step, step = t.step;
  const Run *run = t.runs, *const last = t.runs + t.run_count;
  if constexpr (kForm == Form::kUniform) {
    // Three rows to a pointer: what an address can express.
    constexpr int kPointers = (R + 2) / 3;
    for (; run != last; ++run) {
      const float* p[kPointers];
      unrolled<kPointers>([&](auto i) FASTDL_INLINED { p[i] = t.row[0] + run->offset + i * 3 * step; });
      for (i64 k = run->length; k > 0; --k) {
        sums.add(b, [&](auto r) FASTDL_INLINED { return p[r / 3][r % 3 * step]; });
        b += b_step;
        unrolled<kPointers>([&](auto i) FASTDL_INLINED {
          ++p[i];
          __asm__("" : "+r"(p[i]));  // or GCC makes a pointer of every row again
        });
      }
    }
  } else {
    for (; run != last; ++run) {
      const float* row[R];
      unrolled<R>([&](auto r) FASTDL_INLINED { row[r] = t.row[r] + run->offset; });
      const i64 end = kForm == Form::kAdjacent ? run->length : run->length * step;
      for (i64 k = 0; k < end; k += kForm == Form::kAdjacent ? 1 : step) {
        sums.add(b, [&](auto r) FASTDL_INLINED { return row[r][k]; });
        b += b_step;
      }
    }
  }
  sums.end(t);
}

}  // namespace

#define FASTDL_ROWS(V, FORM)                                                                                        \
  nullptr, conv_tile<1, V, FORM>, conv_tile<2, V, FORM>, conv_tile<3, V, FORM>, conv_tile<4, V, FORM>,              \
      conv_tile<5, V, FORM>, conv_tile<6, V, FORM>
#define FASTDL_ROWS_8(V, FORM) FASTDL_ROWS(V, FORM), conv_tile<7, V, FORM>, conv_tile<8, V, FORM>
#if FASTDL_VECTOR_BYTES == 64
#define FASTDL_FULL_ROWS(FORM)                                                                                      \
  FASTDL_ROWS_8(kTileVecs, FORM), conv_tile<9, kTileVecs, FORM>, conv_tile<10, kTileVecs, FORM>,                    \
      conv_tile<11, kTileVecs, FORM>, conv_tile<12, kTileVecs, FORM>, conv_tile<13, kTileVecs, FORM>,               \
      conv_tile<14, kTileVecs, FORM>
#elif defined(__aarch64__)
#define FASTDL_FULL_ROWS(FORM) FASTDL_ROWS_8(kTileVecs, FORM)
#else
#define FASTDL_FULL_ROWS(FORM) FASTDL_ROWS(kTileVecs, FORM)
#endif

const ConvTileFunction conv_full_adjacent[] = {FASTDL_FULL_ROWS(Form::kAdjacent)};
const ConvTileFunction conv_full_strided[] = {FASTDL_FULL_ROWS(Form::kStrided)};
const ConvTileFunction conv_full_uniform[] = {FASTDL_FULL_ROWS(Form::kUniform)};
const ConvTileFunction conv_thin_adjacent[] = {FASTDL_ROWS_8(1, Form::kAdjacent)};
const ConvTileFunction conv_thin_strided[] = {FASTDL_ROWS_8(1, Form::kStrided)};
const ConvTileFunction conv_thin_uniform[] = {FASTDL_ROWS_8(1, Form::kUniform)};
static_assert(sizeof(conv_full_adjacent) == (kTileRows + 1) * sizeof(ConvTileFunction), "one for every number of rows");
static_assert(sizeof(conv_thin_adjacent) == (kThinRows + 1) * sizeof(ConvTileFunction), "one for every number of rows");

}  // namespace fastdl
