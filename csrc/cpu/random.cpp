// Random numbers from Philox4x32-10 and what is drawn with them.
//
// A group is kLanes blocks, computed together, four words to a block:
//
//     lane of c0, c1, c2, c3        4 interleaved vectors, in stream order
//     block permutation      ->     w0 w1 w2 w3 of block 0 | of block 1 | ...
//
// The lanes hold the blocks in the order that makes two rounds of unpacking put all words in their places. Even and odd lanes
// are kept apart as 64-bit lanes: the 32 x 32 -> 64 bit product takes the low half and ignores what is above it.
#include "../formulas.h"
#include "../kernels.h"
#include "loops.h"

namespace fastdl {
namespace {

constexpr i64 kGroup = 4 * kLanes;  // words of a group

typedef uint64_t wide __attribute__((vector_size(FASTDL_VECTOR_BYTES)));

// Low halves multiplied.
FASTDL_INLINE wide multiply_low(wide a, uint32_t m) {
#if defined(__AVX512F__) && FASTDL_VECTOR_BYTES == 64
  return (wide)_mm512_mul_epu32((__m512i)a, _mm512_set1_epi64(m));
#elif defined(__AVX2__) && FASTDL_VECTOR_BYTES == 32
  return (wide)_mm256_mul_epu32((__m256i)a, _mm256_set1_epi64x(m));
#elif defined(__SSE2__) && FASTDL_VECTOR_BYTES == 16
  return (wide)_mm_mul_epu32((__m128i)a, _mm_set1_epi64x(m));
#else
  return (a & 0xffffffffu) * static_cast<uint64_t>(m);
#endif
}

struct Four {
  wide c0, c1, c2, c3;  // only the low halves of the lanes count
};

// The ten rounds' keys, in all lanes.
struct Keys {
  wide k[20];
  FASTDL_INLINE explicit Keys(uint64_t seed) {
    uint32_t k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
    for (int round = 0; round < 10; ++round) {
      k[2 * round] = wide{} + k0;
      k[2 * round + 1] = wide{} + k1;
      k0 += kPhiloxW0;
      k1 += kPhiloxW1;
    }
  }
};

FASTDL_INLINE Four philox(wide block, const Keys& key) {
  // The first round with c2 = c3 = 0 needs one product.
  wide p0 = multiply_low(block, kPhiloxM0);
  wide c0 = (block >> 32) ^ key.k[0], c1 = wide{}, c2 = (p0 >> 32) ^ key.k[1], c3 = p0;
#pragma GCC unroll 9
  for (int round = 1; round < 10; ++round) {
    p0 = multiply_low(c0, kPhiloxM0);
    const wide p1 = multiply_low(c2, kPhiloxM1);
    c0 = (p1 >> 32) ^ (c1 ^ key.k[2 * round]);
    c2 = (p0 >> 32) ^ (c3 ^ key.k[2 * round + 1]);
    c1 = p1;
    c3 = p0;
  }
  return {c0, c1, c2, c3};
}

struct Group {
  uvec c[4];
};
// even in the even 32-bit lanes, odd in the odd ones.
FASTDL_INLINE uvec zip(wide even, wide odd) {
  return (uvec)((even & 0xffffffffu) | (odd << 32));
}
FASTDL_INLINE Group philox_group(const Keys& key, uint64_t block) {
  wide even, odd;
#pragma GCC unroll 8
  for (int i = 0; i < kLanes / 2; ++i) {  // lane 4 g + j holds block j kLanes/4 + g
    even[i] = static_cast<uint64_t>((2 * i % 4) * (kLanes / 4) + 2 * i / 4);
    odd[i] = static_cast<uint64_t>(((2 * i + 1) % 4) * (kLanes / 4) + (2 * i + 1) / 4);
  }
  const Four a = philox(even + block, key), b = philox(odd + block, key);
  return {{zip(a.c0, b.c0), zip(a.c1, b.c1), zip(a.c2, b.c2), zip(a.c3, b.c3)}};
}

// Four vectors, one for each word of a block -> the stream's order.
template <class V>
FASTDL_INLINE void interleave(const V* c, V* out) {
#if FASTDL_VECTOR_BYTES == 16
#define FASTDL_UNPACK(a, b, lo) \
  __builtin_shufflevector(a, b, (lo ? 0 : 2), (lo ? 4 : 6), (lo ? 1 : 3), (lo ? 5 : 7))
#define FASTDL_PAIRS(a, b, lo) \
  __builtin_shufflevector(a, b, (lo ? 0 : 2), (lo ? 1 : 3), (lo ? 4 : 6), (lo ? 5 : 7))
#elif FASTDL_VECTOR_BYTES == 32
#define FASTDL_UNPACK(a, b, lo)                                                                                       \
  __builtin_shufflevector(a, b, (lo ? 0 : 2), (lo ? 8 : 10), (lo ? 1 : 3), (lo ? 9 : 11), (lo ? 4 : 6), (lo ? 12 : 14), \
                          (lo ? 5 : 7), (lo ? 13 : 15))
#define FASTDL_PAIRS(a, b, lo)                                                                                        \
  __builtin_shufflevector(a, b, (lo ? 0 : 2), (lo ? 1 : 3), (lo ? 8 : 10), (lo ? 9 : 11), (lo ? 4 : 6), (lo ? 5 : 7), \
                          (lo ? 12 : 14), (lo ? 13 : 15))
#else
#define FASTDL_UNPACK(a, b, lo)                                                                                           \
  __builtin_shufflevector(a, b, (lo ? 0 : 2), (lo ? 16 : 18), (lo ? 1 : 3), (lo ? 17 : 19), (lo ? 4 : 6), (lo ? 20 : 22), \
                          (lo ? 5 : 7), (lo ? 21 : 23), (lo ? 8 : 10), (lo ? 24 : 26), (lo ? 9 : 11), (lo ? 25 : 27),     \
                          (lo ? 12 : 14), (lo ? 28 : 30), (lo ? 13 : 15), (lo ? 29 : 31))
#define FASTDL_PAIRS(a, b, lo)                                                                                            \
  __builtin_shufflevector(a, b, (lo ? 0 : 2), (lo ? 1 : 3), (lo ? 16 : 18), (lo ? 17 : 19), (lo ? 4 : 6), (lo ? 5 : 7),   \
                          (lo ? 20 : 22), (lo ? 21 : 23), (lo ? 8 : 10), (lo ? 9 : 11), (lo ? 24 : 26), (lo ? 25 : 27),   \
                          (lo ? 12 : 14), (lo ? 13 : 15), (lo ? 28 : 30), (lo ? 29 : 31))
#endif
  const V t0 = FASTDL_UNPACK(c[0], c[1], true), t1 = FASTDL_UNPACK(c[0], c[1], false);
  const V t2 = FASTDL_UNPACK(c[2], c[3], true), t3 = FASTDL_UNPACK(c[2], c[3], false);
  out[0] = FASTDL_PAIRS(t0, t2, true);
  out[1] = FASTDL_PAIRS(t0, t2, false);
  out[2] = FASTDL_PAIRS(t1, t3, true);
  out[3] = FASTDL_PAIRS(t1, t3, false);
#undef FASTDL_UNPACK
#undef FASTDL_PAIRS
}

FASTDL_INLINE vec uniform_of(uvec word) { return to_float((ivec)(word >> 8)) * 0x1p-24f; }

// What a stream yields for kGroup consecutive positions from a block border on: words, uniforms or normals.
struct Words {
  typedef uvec V;
  typedef uint32_t S;
  static FASTDL_INLINE void group(const Keys& key, uint64_t block, uvec* out) { interleave(philox_group(key, block).c, out); }
  static FASTDL_INLINE uvec read(const uint32_t* p) { return *reinterpret_cast<const uvec_u*>(p); }
};
struct Uniforms {
  typedef vec V;
  typedef float S;
  static FASTDL_INLINE void group(const Keys& key, uint64_t block, vec* out) {
    uvec w[4];
    Words::group(key, block, w);
    for (int k = 0; k < 4; ++k) out[k] = uniform_of(w[k]);
  }
  static FASTDL_INLINE vec read(const float* p) { return load(p); }
};
struct Normals {
  typedef vec V;
  typedef float S;
  static FASTDL_INLINE void group(const Keys& key, uint64_t block, vec* out) {
    const Group g = philox_group(key, block);
    vec z[4];
    for (int k = 0; k < 4; k += 2) {
      const Pair<vec> n = normal_pair(uniform_of(g.c[k]), uniform_of(g.c[k + 1]));
      z[k] = n.first;
      z[k + 1] = n.second;
    }
    interleave(z, out);
  }
  static FASTDL_INLINE vec read(const float* p) { return load(p); }
};

// Calls f(i, lanes, value of element i) for all i in [0, n). Groups begin at block borders; where the first or the last one
// is not wholly wanted, it is read out of a buffer.
template <class Source, class F>
FASTDL_INLINE void draw(i64 n, const StepState* step, const F& f) {
  const uint64_t seed = step->seed, offset = step->offset;
  typedef typename Source::V V;
  typedef typename Source::S S;
  const i64 lead = static_cast<i64>(offset & 3);
  if (n <= 0) return;
  parallel_for(n + lead, kElementGrain, [&](i64 first, i64 last) {
    const Keys key(seed);
    const F local = f;
    const uint64_t base = (offset - static_cast<uint64_t>(lead)) >> 2;
    for (i64 at = first; at < last; at += kGroup) {  // a position counts from the block border before the first element
      V out[4];
      Source::group(key, base + static_cast<uint64_t>(at >> 2), out);
      if (at >= lead && at + kGroup <= last) {
#pragma GCC unroll 4
        for (int k = 0; k < 4; ++k) local(at - lead + k * kLanes, Whole{}, out[k]);
        continue;
      }
      S buffer[kGroup + kLanes] = {};
      memcpy(buffer, out, sizeof out);
      const i64 stop = last - at < kGroup ? last - at : kGroup;
      i64 j = at < lead ? lead - at : 0;
      for (; j + kLanes <= stop; j += kLanes) local(at - lead + j, Whole{}, Source::read(buffer + j));
      if (j < stop) local(at - lead + j, Part{stop - j}, Source::read(buffer + j));
    }
  });
}

// u < p for a p that all elements share: in 24-bit integers, where it is exact. 0 <= p < 1.
FASTDL_INLINE int32_t threshold(float p) { return static_cast<int32_t>(__builtin_ceilf(p * 0x1p24f)); }

template <class Put>
FASTDL_INLINE void dropout(i64 n, const float* x, float p, const StepState* step, float* y, const Put& put) {
  const int32_t below = threshold(p);
  const float scale = 1.0f / (1.0f - p);
  draw<Words>(n, step, [=](i64 i, auto lanes, uvec word) {
    const ivec keep = (ivec)(word >> 8) >= below;
    // A dropped NaN is dropped: the unit was not there.
    put(lanes, y + i, from_bits(bits(lanes.load(x + i) * scale) & keep));
  });
}

}  // namespace

void random_words(i64 n, const StepState* step, uint32_t* y, void*) {
  draw<Words>(n, step, [=](i64 i, auto lanes, uvec word) { lanes.store(reinterpret_cast<float*>(y + i), (vec)word); });
}

void uniform(i64 n, float low, float high, const StepState* step, float* y, void*) {
  const float width = high - low;
  draw<Uniforms>(n, step, [=](i64 i, auto lanes, vec u) { lanes.store(y + i, low + width * u); });
}

void normal(i64 n, float mean, float std, const StepState* step, float* y, void*) {
  draw<Normals>(n, step, [=](i64 i, auto lanes, vec z) { lanes.store(y + i, mean + std * z); });
}

void bernoulli(i64 n, const float* p, const StepState* step, float* y, void*) {
  draw<Uniforms>(n, step, [=](i64 i, auto lanes, vec u) {
    const vec pi = lanes.load(p + i);
    const vec drawn = select(u < pi, splat(1.0f), vec{});
    lanes.store(y + i, select(pi == pi, drawn, pi));
  });
}

void dropout_forward(i64 n, const float* x, float p, const StepState* step, float* y, void*) {
  dropout(n, x, p, step, y, Assign{});
}

void dropout_backward(i64 n, const float* dy, float p, const StepState* step, float* dx, float beta, void*) {
  with_beta(beta, [=](auto put) { dropout(n, dy, p, step, dx, put); });
}

}  // namespace fastdl
