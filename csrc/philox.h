// Philox4x32-10 on host and device: counter-based random words (Salmon, Moraes, Dror & Shaw, "Parallel random numbers: as easy
// as 1, 2, 3", 2011), and the uniforms and normals made of them, written as formulas.h is: the same bits on every target.
//
// The key is the seed; the counter is the block's number, its high 64 bits zero. Element i of a stream (seed, offset) takes
// word (offset + i) & 3 of block (offset + i) >> 2.
#pragma once
#include "formulas.h"

namespace fastdl {
namespace {

struct Words4 {
  uint32_t w[4];
};
constexpr uint32_t kPhiloxM0 = 0xD2511F53u, kPhiloxM1 = 0xCD9E8D57u;  // multipliers
constexpr uint32_t kPhiloxW0 = 0x9E3779B9u, kPhiloxW1 = 0xBB67AE85u;  // what is added to the key after each round

// The ten rounds on any counter and key: Random123's function, which the tests compare with its known answers.
FASTDL_HD Words4 philox_rounds(Words4 counter, uint32_t key0, uint32_t key1) {
  uint32_t c0 = counter.w[0], c1 = counter.w[1], c2 = counter.w[2], c3 = counter.w[3];
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = static_cast<uint64_t>(kPhiloxM0) * c0;
    const uint64_t p1 = static_cast<uint64_t>(kPhiloxM1) * c2;
    c0 = static_cast<uint32_t>(p1 >> 32) ^ c1 ^ key0;
    c1 = static_cast<uint32_t>(p1);
    c2 = static_cast<uint32_t>(p0 >> 32) ^ c3 ^ key1;
    c3 = static_cast<uint32_t>(p0);
    key0 += kPhiloxW0;
    key1 += kPhiloxW1;
  }
  return {{c0, c1, c2, c3}};
}
FASTDL_HD Words4 philox_block(uint64_t seed, uint64_t block) {
  const Words4 counter = {{static_cast<uint32_t>(block), static_cast<uint32_t>(block >> 32), 0u, 0u}};
  return philox_rounds(counter, static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32));
}
FASTDL_HD uint32_t philox_word(uint64_t seed, uint64_t position) {
  return philox_block(seed, position >> 2).w[position & 3];
}

// A word's upper 24 bits as k * 2^-24, k = 0 .. 2^24 - 1: in [0, 1), every value exact.
FASTDL_HD float uniform_from_word(uint32_t word) { return to_float(static_cast<int32_t>(word >> 8)) * 0x1p-24f; }

// Two independent standard normals from two words' uniforms u1, u2 in [0, 1), by Box and Muller (1958): the first is the
// cosine's. u1 is moved to (0, 1], so that its logarithm is finite; the largest value is sqrt(48 ln 2) = 5.77.
template <class T>
struct Pair {
  T first;
  T second;
};
template <class T>
FASTDL_HD Pair<T> normal_pair(T u1, T u2) {
  const T radius = square_root(-2.0f * log_of_normal(u1 + 0x1p-24f));
  const SinCos<T> a = sincos_of_turn(u2);
  return {radius * a.cos, radius * a.sin};
}

// The standard normal of stream position p: positions 2k and 2k + 1 share a pair.
FASTDL_HD float normal_at(uint64_t seed, uint64_t position) {
  const Words4 b = philox_block(seed, position >> 2);
  const int k = static_cast<int>(position & 2);
  const Pair<float> n = normal_pair(uniform_from_word(b.w[k]), uniform_from_word(b.w[k + 1]));
  return (position & 1) ? n.second : n.first;
}

}  // namespace
}  // namespace fastdl
