// Pooling. Channels lie next to each other, so a window's elements are vectors of channels:
//
//     x  . . . . . .        one output pixel = size_y * size_x loads a vector of channels, no shuffling
//        . [a b] . .
//        . [c d] . .        y = max(a, b, c, d), where = 0, 1, 2 or 3
//
// A pixel's last vector may reach into the pixels right of it: what it leaves there is overwritten when their turn
// comes. Only where the row (of any array touched) ends sooner than the vector does is part of a vector loaded and stored.
#include "../formulas.h"
#include "../kernels.h"
#include "loops.h"
#include "unroll.h"

namespace fastdl {
namespace {

struct Window {  // the part of an output pixel's window that lies inside the image
  i64 y0, y1, x0, x1;
  i64 top, left;  // where the whole window begins, maybe outside
};

struct Geometry {
  i64 Y, X, C, P, Q, size_y, size_x, stride_y, stride_x, pad_y, pad_x;

  FASTDL_INLINE Window window(i64 p, i64 q) const {
    Window w;
    w.top = p * stride_y - pad_y;
    w.left = q * stride_x - pad_x;
    w.y0 = w.top > 0 ? w.top : 0;
    w.x0 = w.left > 0 ? w.left : 0;
    w.y1 = w.top + size_y < Y ? w.top + size_y : Y;
    w.x1 = w.left + size_x < X ? w.left + size_x : X;
    return w;
  }
  // What for_channels may touch at output pixel q: all to the end of its row, and of the input all from the window's
  // last pixel to the end, which is `size` floats after the image's begin.
  FASTDL_INLINE i64 room(const Window& w, i64 q, i64 size) const {
    const i64 out = (Q - q) * C, in = size - ((w.y1 - 1) * X + w.x1 - 1) * C;
    return out < in ? out : in;
  }
  // Every input pixel lies in exactly one window.
  bool tiles() const {
    return pad_y == 0 && pad_x == 0 && stride_y == size_y && stride_x == size_x && P * size_y == Y && Q * size_x == X;
  }
};

// lanes.count() bytes of 0..255 <-> a vector of integers. GCC 12 takes the way over scalars unless the
// instructions are named.
typedef uint8_t bytes __attribute__((vector_size(kLanes)));
FASTDL_INLINE void store_bytes(uint8_t* p, ivec v, Whole) {
#if defined(__AVX2__) && FASTDL_VECTOR_BYTES == 32
  const __m128i pairs = _mm_packus_epi32(_mm256_castsi256_si128((__m256i)v), _mm256_extracti128_si256((__m256i)v, 1));
  _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_packus_epi16(pairs, pairs));
#elif defined(__SSE4_1__) && FASTDL_VECTOR_BYTES == 16
  const __m128i pairs = _mm_packus_epi32((__m128i)v, (__m128i)v);
  const int four = _mm_cvtsi128_si32(_mm_packus_epi16(pairs, pairs));
  memcpy(p, &four, sizeof four);
#elif defined(__AVX512F__) && FASTDL_VECTOR_BYTES == 64
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8((__m512i)v));
#else
  const bytes b = __builtin_convertvector(v, bytes);
  memcpy(p, &b, sizeof b);
#endif
}
FASTDL_INLINE void store_bytes(uint8_t* p, ivec v, Part part) {
  uint8_t whole[kLanes];
  store_bytes(whole, v, Whole{});
  for (i64 i = 0; i < part.n; ++i) p[i] = whole[i];
}
FASTDL_INLINE ivec load_bytes(const uint8_t* p, Whole) {
#if defined(__AVX2__) && FASTDL_VECTOR_BYTES == 32
  return (ivec)_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
#elif defined(__SSE4_1__) && FASTDL_VECTOR_BYTES == 16
  int four;
  memcpy(&four, p, sizeof four);
  return (ivec)_mm_cvtepu8_epi32(_mm_cvtsi32_si128(four));
#elif defined(__AVX512F__) && FASTDL_VECTOR_BYTES == 64
  return (ivec)_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
#else
  bytes b;
  memcpy(&b, p, sizeof b);
  return __builtin_convertvector(b, ivec);
#endif
}
FASTDL_INLINE ivec load_bytes(const uint8_t* p, Part part) {
  uint8_t whole[kLanes] = {};
  for (i64 i = 0; i < part.n; ++i) whole[i] = p[i];
  return load_bytes(whole, Whole{});
}

// `room`: floats from the pixel's first channel on that may be touched, at least C.
template <class F>
FASTDL_INLINE void for_channels(i64 C, i64 room, const F& f) {
  for (i64 c = 0; c < C; c += kLanes) {
    if (c + kLanes <= room) {
      f(c, Whole{});
    } else {
      f(c, Part{C - c});
    }
  }
}

// f(columns, rows), the commonest as constants, so that its loops unroll.
template <class F>
FASTDL_INLINE void with_size(i64 columns, i64 rows, const F& f) {
  if (columns == 2 && rows == 2) {
    f(i64{2}, i64{2});
  } else {
    f(columns, rows);
  }
}

// Where v is larger than best, or the first NaN: best = v, place = here. Of AVX-512's masks GCC 12, left alone, makes vectors, and
// masks of those.
FASTDL_INLINE void take_larger(vec& best, ivec& place, vec v, int32_t here) {
#if defined(__AVX512F__) && FASTDL_VECTOR_BYTES == 64
  const __mmask16 number = _mm512_cmp_ps_mask(best, best, _CMP_ORD_Q);
  const __mmask16 better = _mm512_mask_cmp_ps_mask(number, v, best, _CMP_NLE_UQ);
  best = _mm512_mask_mov_ps(best, better, v);
  place = (ivec)_mm512_mask_mov_epi32((__m512i)place, better, _mm512_set1_epi32(here));
#else
  const ivec better = ~(v <= best) & (best == best);
  best = select(better, v, best);
  place = better ? splat_i(here) : place;
#endif
}

// ---- windows of 2 x 2 over few channels: a vector holds whole pixels ----
//
//     two vectors of a row   a0 a1 b0 b1 c0 c1 d0 d1     of pixels a b c d: windows (a b) and (c d)
//     first, second          a0 a1 c0 c1 | b0 b1 d0 d1   by one permutation each
//
// As many windows as fit go at a time, and always at the same places: the indices are made once. Backward the other way round.

#if defined(__AVX512F__) && FASTDL_VECTOR_BYTES == 64
constexpr bool kPicks = true;
FASTDL_INLINE vec pick(ivec from, vec a) { return (vec)_mm512_permutexvar_ps((__m512i)from, (__m512)a); }
FASTDL_INLINE vec pick(ivec from, vec a, vec b) {
  return (vec)_mm512_permutex2var_ps((__m512)a, (__m512i)from, (__m512)b);
}
#elif defined(__AVX2__) && FASTDL_VECTOR_BYTES == 32
constexpr bool kPicks = true;
FASTDL_INLINE vec pick(ivec from, vec a) { return (vec)_mm256_permutevar8x32_ps((__m256)a, (__m256i)from); }
FASTDL_INLINE vec pick(ivec from, vec a, vec b) { return select(from < kLanes, pick(from, a), pick(from, b)); }
#else
constexpr bool kPicks = false;
FASTDL_INLINE vec pick(ivec, vec a) { return a; }
FASTDL_INLINE vec pick(ivec, vec a, vec) { return a; }
#endif

bool few_channels(const Geometry& g) {
  return kPicks && g.tiles() && g.size_y == 2 && g.size_x == 2 && g.C >= 1 && 2 * g.C <= kLanes;
}

// store(e, lanes, four vectors of the windows from output e on) for all outputs e of all rows.
template <class Store>
void few_forward(const Geometry& g, i64 N, const float* x, const Store& store) {
  const i64 C = g.C, out = g.Q * C, in = 2 * out, step = kLanes / C * C;
  ivec first = {}, second = {};
  for (int i = 0; i < step; ++i) {
    first[i] = static_cast<int32_t>(i / C * 2 * C + i % C);
    second[i] = first[i] + static_cast<int32_t>(C);
  }
  const float* end = x + N * g.P * 2 * in;
  for_rows(N * g.P, 2 * in, [=](i64 row) {
    for (i64 e = 0; e < out; e += step) {
      vec v[2][2];
      for (int r = 0; r < 2; ++r) {
        const float* p = x + (2 * row + r) * in + 2 * e;
        const i64 left = end - p;
        const vec a = left >= kLanes ? load(p) : load_part(p, left);
        const vec b = left >= 2 * kLanes ? load(p + kLanes) : load_part(p + kLanes, left > kLanes ? left - kLanes : 0);
        v[r][0] = pick(first, a, b);
        v[r][1] = pick(second, a, b);
      }
      if (e + kLanes <= out) {
        store(row * out + e, Whole{}, v);
      } else {
        store(row * out + e, Part{out - e}, v);
      }
    }
  });
}

// dx, all of it: value(e, lanes) and place(e, lanes) of the outputs from e on, where place is row * 2 + column, and kPlaced says that
// only that pixel of a window receives the value.
template <bool kPlaced, class Value, class Place>
void few_backward(const Geometry& g, i64 N, float* dx, const Value& value, const Place& place) {
  const i64 C = g.C, out = g.Q * C, in = 2 * out, step = kLanes / C * C;
  ivec from[2] = {}, column[2] = {};
  for (int i = 0; i < 2 * step; ++i) {
    const i64 pixel = i / C;
    from[i / kLanes][i % kLanes] = static_cast<int32_t>(pixel / 2 * C + i % C);
    column[i / kLanes][i % kLanes] = static_cast<int32_t>(pixel % 2);
  }
  for_rows(N * g.P, 2 * in, [=](i64 row) {
    const auto windows = [=](i64 e, auto lanes) FASTDL_INLINED {
      const vec d = value(row * out + e, lanes);
      const ivec at = place(row * out + e, lanes);
      for (int half = 0; half < 2; ++half) {
        const i64 left = in - 2 * e - half * kLanes;
        if (left <= 0) break;
        const vec v = pick(from[half], d);
        const ivec above = bits(pick(from[half], from_bits(at))) - column[half];
        for (int r = 0; r < 2; ++r) {
          float* to = dx + (2 * row + r) * in + 2 * e + half * kLanes;
          const vec here = kPlaced ? from_bits(bits(v) & (above == 2 * r)) : v;
          if (left >= kLanes) {
            store(to, here);
          } else {
            store_part(to, here, left);
          }
        }
      }
    };
    i64 e = 0;
    for (; e + kLanes <= out; e += step) windows(e, Whole{});
    for (; e < out; e += step) windows(e, Part{out - e});
  });
}

template <bool kWhere>
void max_forward(const Geometry& g, i64 N, const float* x, float* y, uint8_t* where) {
  for_rows(N * g.P, g.Q * g.C * g.size_y * g.size_x, [=](i64 row) {
    const float* image = x + row / g.P * g.Y * g.X * g.C;
    const i64 p = row % g.P;
    for (i64 q = 0; q < g.Q; ++q) {
      const Window w = g.window(p, q);
      const i64 out = (row * g.Q + q) * g.C;
      const int32_t corner = static_cast<int32_t>((w.y0 - w.top) * g.size_x + (w.x0 - w.left));
      const float* pixels = image + (w.y0 * g.X + w.x0) * g.C;
      with_size(w.x1 - w.x0, w.y1 - w.y0, [&](i64 columns, i64 rows) __attribute__((always_inline)) {
        for_channels(g.C, g.room(w, q, x + N * g.Y * g.X * g.C - image), [&](i64 c, auto lanes) {
          const bool any = rows > 0 && columns > 0;  // not so for images of no pixels, but padded
          vec best = any ? lanes.load(pixels + c) : splat(-__builtin_inff());
          ivec place = splat_i(corner);
          for (i64 iy = 0; iy < rows; ++iy) {
            for (i64 ix = 0; ix < columns; ++ix) {
              if (iy == 0 && ix == 0) continue;
              const vec v = lanes.load(pixels + (iy * g.X + ix) * g.C + c);
              if (kWhere) {
                take_larger(best, place, v, corner + static_cast<int32_t>(iy * g.size_x + ix));
              } else {
                best = max_or_nan(best, v);
              }
            }
          }
          lanes.store(y + out + c, best);
          if (kWhere) store_bytes(where + out + c, place, lanes);
        });
      });
    }
  });
}

// dx = beta dx everywhere: windows then add to it.
void scale(i64 n, float* dx, float beta) {
  if (beta == 1.0f) return;
  if (beta == 0.0f) {
    for_elements(n, [=](i64 i, auto lanes) { lanes.store(dx + i, vec{}); });
  } else {
    for_elements(n, [=](i64 i, auto lanes) { lanes.store(dx + i, beta * lanes.load(dx + i)); });
  }
}

constexpr bool overwrites(Assign) { return true; }
constexpr bool overwrites(Accumulate) { return false; }

// Windows touch only their own image, so a thread takes whole images; where windows tile it, rows of windows.
template <class Put, class Gradient>
FASTDL_INLINE void spread(const Geometry& g, i64 N, float* dx, const Put& put, const Gradient& gradient) {
  // Only stores that ignore what was there may reach right, and only if no earlier vector of the window lies there.
  const bool reaches = overwrites(put) && g.tiles() && g.C < kLanes;
  const auto row_of_windows = [=](i64 row) {
    const i64 p = row % g.P;
    float* image = dx + row / g.P * g.Y * g.X * g.C;
    for (i64 q = 0; q < g.Q; ++q) {
      const Window w = g.window(p, q);
      const i64 out = (row * g.Q + q) * g.C;
      const int32_t corner = static_cast<int32_t>((w.y0 - w.top) * g.size_x + (w.x0 - w.left));
      float* pixels = image + (w.y0 * g.X + w.x0) * g.C;
      with_size(w.x1 - w.x0, w.y1 - w.y0, [&](i64 columns, i64 rows) __attribute__((always_inline)) {
        for_channels(g.C, reaches ? (g.Q - q) * g.C : g.C, [&](i64 c, auto lanes) {
          const auto of_place = gradient(w, out + c, lanes);
          for (i64 iy = 0; iy < rows; ++iy) {
            for (i64 ix = 0; ix < columns; ++ix) {
              const int32_t here = corner + static_cast<int32_t>(iy * g.size_x + ix);
              put(lanes, pixels + (iy * g.X + ix) * g.C + c, of_place(here));
            }
          }
        });
      });
    }
  };
  if (g.tiles()) {
    for_rows(N * g.P, g.Q * g.C * g.size_y * g.size_x, row_of_windows);
  } else {
    for_rows(N, g.P * g.Q * g.C * g.size_y * g.size_x, [=](i64 n) {
      for (i64 p = 0; p < g.P; ++p) row_of_windows(n * g.P + p);
    });
  }
}

template <class Gradient>
FASTDL_INLINE void backward(const Geometry& g, i64 N, float* dx, float beta, const Gradient& gradient) {
  if (g.tiles()) {
    with_beta(beta, [&](auto put) { spread(g, N, dx, put, gradient); });
  } else {
    scale(N * g.Y * g.X * g.C, dx, beta);
    spread(g, N, dx, Accumulate{1.0f}, gradient);
  }
}

FASTDL_INLINE float count_of(const Geometry& g, const Window& w, int count_padding) {
  return static_cast<float>(count_padding ? g.size_y * g.size_x : (w.y1 - w.y0) * (w.x1 - w.x0));
}

}  // namespace

void max_pool2d_forward(i64 N, i64 Y, i64 X, i64 C, i64 P, i64 Q, const float* x, i64 size_y, i64 size_x, i64 stride_y,
                        i64 stride_x, i64 pad_y, i64 pad_x, float* y, uint8_t* where, void*) {
  const Geometry g = {Y, X, C, P, Q, size_y, size_x, stride_y, stride_x, pad_y, pad_x};
  if (few_channels(g)) {
    few_forward(g, N, x, [=](i64 e, auto lanes, const vec(&v)[2][2]) {
      vec best = v[0][0];
      ivec place = {};
      take_larger(best, place, v[0][1], 1);
      take_larger(best, place, v[1][0], 2);
      take_larger(best, place, v[1][1], 3);
      lanes.store(y + e, best);
      if (where) store_bytes(where + e, place, lanes);
    });
  } else if (where != nullptr) {
    max_forward<true>(g, N, x, y, where);
  } else {
    max_forward<false>(g, N, x, y, where);
  }
}

void max_pool2d_backward(i64 N, i64 Y, i64 X, i64 C, i64 P, i64 Q, const uint8_t* where, const float* dy, i64 size_y,
                         i64 size_x, i64 stride_y, i64 stride_x, i64 pad_y, i64 pad_x, float* dx, float beta, void*) {
  const Geometry g = {Y, X, C, P, Q, size_y, size_x, stride_y, stride_x, pad_y, pad_x};
  if (few_channels(g) && beta == 0.0f) {
    few_backward<true>(
        g, N, dx, [=](i64 e, auto lanes) { return lanes.load(dy + e); },
        [=](i64 e, auto lanes) { return load_bytes(where + e, lanes); });
    return;
  }
  backward(g, N, dx, beta, [=](const Window&, i64 at, auto lanes) {
    const vec d = lanes.load(dy + at);
    const ivec place = load_bytes(where + at, lanes);
    return [=](int32_t here) { return from_bits(bits(d) & (place == here)); };
  });
}

void avg_pool2d_forward(i64 N, i64 Y, i64 X, i64 C, i64 P, i64 Q, const float* x, i64 size_y, i64 size_x, i64 stride_y,
                        i64 stride_x, i64 pad_y, i64 pad_x, int count_padding, float* y, void*) {
  const Geometry g = {Y, X, C, P, Q, size_y, size_x, stride_y, stride_x, pad_y, pad_x};
  if (few_channels(g)) {
    few_forward(g, N, x, [=](i64 e, auto lanes, const vec(&v)[2][2]) {
      lanes.store(y + e, (v[0][0] + v[0][1] + v[1][0] + v[1][1]) / 4.0f);
    });
    return;
  }
  for_rows(N * P, Q * C * size_y * size_x, [=](i64 row) {
    const float* image = x + row / g.P * g.Y * g.X * g.C;
    const i64 p = row % P;
    for (i64 q = 0; q < Q; ++q) {
      const Window w = g.window(p, q);
      const float count = count_of(g, w, count_padding);
      const i64 out = (row * Q + q) * C;
      const float* pixels = image + (w.y0 * X + w.x0) * C;
      with_size(w.x1 - w.x0, w.y1 - w.y0, [&](i64 columns, i64 rows) __attribute__((always_inline)) {
        for_channels(C, g.room(w, q, x + N * Y * X * C - image), [&](i64 c, auto lanes) {
          vec sum = {};
          for (i64 iy = 0; iy < rows; ++iy) {
            for (i64 ix = 0; ix < columns; ++ix) sum += lanes.load(pixels + (iy * X + ix) * C + c);
          }
          lanes.store(y + out + c, sum / count);
        });
      });
    }
  });
}

void avg_pool2d_backward(i64 N, i64 Y, i64 X, i64 C, i64 P, i64 Q, const float* dy, i64 size_y, i64 size_x,
                         i64 stride_y, i64 stride_x, i64 pad_y, i64 pad_x, int count_padding, float* dx, float beta,
                         void*) {
  const Geometry g = {Y, X, C, P, Q, size_y, size_x, stride_y, stride_x, pad_y, pad_x};
  if (few_channels(g) && beta == 0.0f) {
    few_backward<false>(
        g, N, dx, [=](i64 e, auto lanes) { return lanes.load(dy + e) / 4.0f; }, [](i64, auto) { return ivec{}; });
    return;
  }
  backward(g, N, dx, beta, [=](const Window& w, i64 at, auto lanes) {
    const vec d = lanes.load(dy + at) / count_of(g, w, count_padding);
    return [=](int32_t) { return d; };
  });
}

}  // namespace fastdl
