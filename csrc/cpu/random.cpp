// Random numbers from Philox4x32-10 and what is drawn with them.
//
// A group is 2 kLanes blocks, four words to a block; each half of it is put in stream order by itself:
//
//     lane of c0, c1, c2, c3        4 interleaved vectors, in stream order
//     block permutation      ->     w0 w1 w2 w3 of block 0 | of block 1 | ...
//
// The lanes hold the blocks in the order that makes two rounds of unpacking put all words in their places. Even and odd
// lanes are kept apart as 64-bit lanes: the 32 x 32 -> 64 bit product takes the low half and ignores what is above it.
// How it came to be so: docs/kernels/elementwise.md.
#include "../kernels.h"
#include "../philox.h"
#include "loops.h"

namespace fastdl {
namespace {

constexpr i64 kGroup = 8 * kLanes;  // words of a group

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

// Three words at once, where there is an instruction for it.
#if defined(__AVX512F__) && FASTDL_VECTOR_BYTES == 64
constexpr bool kXorsThree = true;
FASTDL_INLINE wide xor3(wide a, wide b, wide c) {
  return (wide)_mm512_ternarylogic_epi64((__m512i)a, (__m512i)b, (__m512i)c, 0x96);
}
#else
constexpr bool kXorsThree = false;
FASTDL_INLINE wide xor3(wide a, wide b, wide c) { return a ^ b ^ c; }
#endif

// What all blocks share, in all lanes: the keys, and the first rounds' words that depend on a block's upper half alone.
//
// Where three words are joined at once, every round takes its keys so. Elsewhere two rounds' keys for a product are one constant:
// the product of every other round takes its round's key into the upper half, which this round uses, and the next round's into
// the lower half, which the next round uses.
struct Keys {
  uint64_t seed;
  bool shared;  // all blocks have the same upper half; else nothing below holds
  wide second, c2, c3;
  wide key0[10], key1[10];  // of the rounds, where three words are joined at once
  wide pair[10];  // elsewhere; [r - 1], [r], r odd: keys 0 and 1 of round r (upper half) and round r + 1 (lower half)
  FASTDL_INLINE Keys(uint64_t seed_, uint64_t first_block, uint64_t last_block) : seed(seed_) {
    const uint64_t high = first_block >> 32;
    shared = high == last_block >> 32;
    uint32_t k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
    const uint64_t product = (high ^ k0) * kPhiloxM0;
    second = wide{} + k1;
    c2 = wide{} + ((product >> 32) ^ (k1 + kPhiloxW1));
    c3 = wide{} + (static_cast<uint32_t>(product) ^ (kXorsThree ? 0 : k1 + 2 * kPhiloxW1));
#pragma GCC unroll 5
    for (int j = 0; j < 10; j += 2) {
      const uint32_t odd0 = k0 + kPhiloxW0, odd1 = k1 + kPhiloxW1;
      const uint32_t next0 = j == 8 ? 0 : odd0 + kPhiloxW0, next1 = j == 8 ? 0 : odd1 + kPhiloxW1;  // no round 10
      if constexpr (kXorsThree) {
        key0[j] = wide{} + k0;
        key1[j] = wide{} + k1;
        key0[j + 1] = wide{} + odd0;
        key1[j + 1] = wide{} + odd1;
      } else {
        pair[j] = wide{} + (static_cast<uint64_t>(odd0) << 32 | next0);
        pair[j + 1] = wide{} + (static_cast<uint64_t>(odd1) << 32 | next1);
      }
      k0 = next0;
      k1 = next1;
    }
  }
};

// even in the even 32-bit lanes, odd in the odd ones.
FASTDL_INLINE uvec zip(wide even, wide odd) {
#if defined(__AVX2__) && FASTDL_VECTOR_BYTES == 32
  return (uvec)_mm256_blend_epi32((__m256i)even, (__m256i)(odd << 32), 0xaa);
#else
  return (uvec)((even & 0xffffffffu) | (odd << 32));
#endif
}

// Blocks on their way through the rounds, one in the low half of every 64-bit lane (what is above it is of no account).
struct Chain {
  wide c0, c1, c2, c3;
  // The first two rounds, of which half is shared.
  FASTDL_INLINE Chain(wide block, const Keys& key) {
    const wide p0 = multiply_low(block, kPhiloxM0);
    const wide p1 = multiply_low((p0 >> 32) ^ key.second, kPhiloxM1);
    c1 = kXorsThree ? p1 : p1 ^ key.pair[0];
    c0 = kXorsThree ? (p1 >> 32) ^ key.key0[1] : c1 >> 32;
    c2 = p0 ^ key.c2;
    c3 = key.c3;
  }
  FASTDL_INLINE void step(const Keys& key, int round) {
    wide p1 = multiply_low(c2, kPhiloxM1), p0 = multiply_low(c0, kPhiloxM0);
    if constexpr (kXorsThree) {
      c0 = xor3(p1 >> 32, c1, key.key0[round]);
      c2 = xor3(p0 >> 32, c3, key.key1[round]);
    } else {
      if (round % 2 == 1) {
        p1 ^= key.pair[round - 1];
        p0 ^= key.pair[round];
      }
      c0 = (p1 >> 32) ^ c1;
      c2 = (p0 >> 32) ^ c3;
    }
    c1 = p1;
    c3 = p0;
  }
};

struct Group {
  uvec c[2][4];
};
// The lane that block i of kLanes has: lane 4 g + j holds block j kLanes/4 + g.
constexpr int lane_of(int i) { return 4 * (i % (kLanes / 4)) + i / (kLanes / 4); }

// Where the blocks' upper halves change, once in 2^34 words.
__attribute__((noinline, cold)) void philox_group_by_blocks(uint64_t seed, uint64_t block, Group* g) {
  for (int i = 0; i < 2 * kLanes; ++i) {
    const Words4 b = philox_block(seed, block + static_cast<uint64_t>(i));
    for (int k = 0; k < 4; ++k) g->c[i / kLanes][k][lane_of(i % kLanes)] = b.w[k];
  }
}

// A round waits long for its product, longer than the machine looks ahead: so four chains go side by side.
FASTDL_INLINE Group philox_group(const Keys& key, uint64_t block) {
  if (!key.shared) {
    Group g;
    philox_group_by_blocks(key.seed, block, &g);
    return g;
  }
  wide even, odd;
#pragma GCC unroll 16
  for (int i = 0; i < kLanes; ++i) {
    const int lane = lane_of(i);
    (lane % 2 == 0 ? even : odd)[lane / 2] = static_cast<uint64_t>(i);
  }
  Chain a(even + block, key), b(odd + block, key);
  Chain c(even + (block + kLanes), key), d(odd + (block + kLanes), key);
#pragma GCC unroll 8
  for (int round = 2; round < 10; ++round) {
    a.step(key, round);
    b.step(key, round);
    c.step(key, round);
    d.step(key, round);
  }
  return {{{zip(a.c0, b.c0), zip(a.c1, b.c1), zip(a.c2, b.c2), zip(a.c3, b.c3)},
           {zip(c.c0, d.c0), zip(c.c1, d.c1), zip(c.c2, d.c2), zip(c.c3, d.c3)}}};
}

// Four vectors, one for each word of a block -> the stream's order.
template <class V>
FASTDL_INLINE void interleave(const V* c, V* out) {
#if FASTDL_VECTOR_BYTES == 16
#define FASTDL_UNPACK(a, b, lo) __builtin_shufflevector(a, b, (lo ? 0 : 2), (lo ? 4 : 6), (lo ? 1 : 3), (lo ? 5 : 7))
#define FASTDL_PAIRS(a, b, lo) __builtin_shufflevector(a, b, (lo ? 0 : 2), (lo ? 1 : 3), (lo ? 4 : 6), (lo ? 5 : 7))
#elif FASTDL_VECTOR_BYTES == 32
#define FASTDL_UNPACK(a, b, lo)                                                                         \
  __builtin_shufflevector(a, b, (lo ? 0 : 2), (lo ? 8 : 10), (lo ? 1 : 3), (lo ? 9 : 11), (lo ? 4 : 6), \
                          (lo ? 12 : 14), (lo ? 5 : 7), (lo ? 13 : 15))
#define FASTDL_PAIRS(a, b, lo)                                                                                        \
  __builtin_shufflevector(a, b, (lo ? 0 : 2), (lo ? 1 : 3), (lo ? 8 : 10), (lo ? 9 : 11), (lo ? 4 : 6), (lo ? 5 : 7), \
                          (lo ? 12 : 14), (lo ? 13 : 15))
#else
#define FASTDL_UNPACK(a, b, lo)                                                                                       \
  __builtin_shufflevector(a, b, (lo ? 0 : 2), (lo ? 16 : 18), (lo ? 1 : 3), (lo ? 17 : 19), (lo ? 4 : 6),             \
                          (lo ? 20 : 22), (lo ? 5 : 7), (lo ? 21 : 23), (lo ? 8 : 10), (lo ? 24 : 26), (lo ? 9 : 11), \
                          (lo ? 25 : 27), (lo ? 12 : 14), (lo ? 28 : 30), (lo ? 13 : 15), (lo ? 29 : 31))
#define FASTDL_PAIRS(a, b, lo)                                                                                        \
  __builtin_shufflevector(a, b, (lo ? 0 : 2), (lo ? 1 : 3), (lo ? 16 : 18), (lo ? 17 : 19), (lo ? 4 : 6),             \
                          (lo ? 5 : 7), (lo ? 20 : 22), (lo ? 21 : 23), (lo ? 8 : 10), (lo ? 9 : 11), (lo ? 24 : 26), \
                          (lo ? 25 : 27), (lo ? 12 : 14), (lo ? 13 : 15), (lo ? 28 : 30), (lo ? 29 : 31))
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
  static FASTDL_INLINE void group(const Keys& key, uint64_t block, uvec* out) {
    const Group g = philox_group(key, block);
    interleave(g.c[0], out);
    interleave(g.c[1], out + 4);
  }
  static FASTDL_INLINE uvec read(const uint32_t* p) { return *reinterpret_cast<const uvec_u*>(p); }
};
struct Uniforms {
  typedef vec V;
  typedef float S;
  static FASTDL_INLINE void group(const Keys& key, uint64_t block, vec* out) {
    uvec w[8];
    Words::group(key, block, w);
#pragma GCC unroll 8
    for (int k = 0; k < 8; ++k) out[k] = uniform_of(w[k]);
  }
  static FASTDL_INLINE vec read(const float* p) { return load(p); }
};
struct Normals {
  typedef vec V;
  typedef float S;
  static FASTDL_INLINE void group(const Keys& key, uint64_t block, vec* out) {
    const Group g = philox_group(key, block);
#pragma GCC unroll 2
    for (int half = 0; half < 2; ++half) {
      const uvec* w = g.c[half];
      const Pair<vec> a = normal_pair(uniform_of(w[0]), uniform_of(w[1]));
      const Pair<vec> b = normal_pair(uniform_of(w[2]), uniform_of(w[3]));
      const vec z[4] = {a.first, a.second, b.first, b.second};
      interleave(z, out + 4 * half);
    }
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
  parallel_for(n + lead, kElementGrain, [=](i64 first, i64 last) {
    const uint64_t base = offset >> 2;
    const Keys key(seed, base + static_cast<uint64_t>(first >> 2), base + static_cast<uint64_t>((last - 1) >> 2));
    const F local = f;
    for (i64 at = first; at < last; at += kGroup) {  // a position counts from the block border before the first element
      V out[8];
      Source::group(key, base + static_cast<uint64_t>(at >> 2), out);
      if (at >= lead && at + kGroup <= last) {
#pragma GCC unroll 8
        for (int k = 0; k < 8; ++k) local(at - lead + k * kLanes, Whole{}, out[k]);
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
