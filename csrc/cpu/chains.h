// Four vectors that go through a formula side by side, operation by operation.
//
// e^x is some 26 operations, nearly each of which waits for the one before: 60 cycles and more for a vector. A machine hides that
// by beginning the next vector meanwhile, but only as far as its scheduler looks ahead, which on some is less than one such
// formula. Four chains in turn need no looking ahead. Each lane sees the same operations as alone: the bits are the same.
// Figures: docs/kernels/elementwise.md.
#pragma once
#include "loops.h"

namespace fastdl {
namespace {

template <class V>
struct Two {
  V a, b;
};
using vec4 = Two<Two<vec>>;

// What formulas.h and simd.h do with vectors. The other operand: as many vectors, one for all of them, or a number for all lanes.
#define FASTDL_TWO(op)                                        \
  template <class V, class W>                                 \
  FASTDL_INLINE auto operator op(Two<V> x, Two<W> y) {        \
    return Two<decltype(x.a op y.a)>{x.a op y.a, x.b op y.b}; \
  }                                                           \
  template <class V>                                          \
  FASTDL_INLINE auto operator op(Two<V> x, vec y) {           \
    return Two<decltype(x.a op y)>{x.a op y, x.b op y};       \
  }                                                           \
  template <class V>                                          \
  FASTDL_INLINE auto operator op(Two<V> x, float y) {         \
    return Two<decltype(x.a op y)>{x.a op y, x.b op y};       \
  }                                                           \
  template <class V>                                          \
  FASTDL_INLINE auto operator op(float x, Two<V> y) {         \
    return Two<decltype(x op y.a)>{x op y.a, x op y.b};       \
  }
FASTDL_TWO(+)
FASTDL_TWO(-)
FASTDL_TWO(*)
FASTDL_TWO(/)
FASTDL_TWO(>)
#undef FASTDL_TWO
#define FASTDL_TWO(op)                                \
  template <class V>                                  \
  FASTDL_INLINE Two<V> operator op(Two<V> x, int y) { \
    return {x.a op y, x.b op y};                      \
  }
FASTDL_TWO(+)
FASTDL_TWO(&)
#undef FASTDL_TWO
template <class V>
FASTDL_INLINE Two<V> operator|(Two<V> x, Two<V> y) {
  return {x.a | y.a, x.b | y.b};
}
template <class V>
FASTDL_INLINE Two<V> operator-(Two<V> x) {
  return {-x.a, -x.b};
}
template <class V>
FASTDL_INLINE Two<V>& operator+=(Two<V>& x, Two<V> y) {
  return x = x + y;
}
template <class V>
FASTDL_INLINE auto bits(Two<V> x) {
  return Two<decltype(bits(x.a))>{bits(x.a), bits(x.b)};
}
template <class V>
FASTDL_INLINE auto from_bits(Two<V> x) {
  return Two<decltype(from_bits(x.a))>{from_bits(x.a), from_bits(x.b)};
}
template <class V>
FASTDL_INLINE Two<V> shift_left(Two<V> x, int by) {
  return {shift_left(x.a, by), shift_left(x.b, by)};
}
template <class V>
FASTDL_INLINE Two<V> at_most(Two<V> x, Two<V> high) {
  return {at_most(x.a, high.a), at_most(x.b, high.b)};
}
template <class V>
FASTDL_INLINE Two<V> at_least(Two<V> x, Two<V> low) {
  return {at_least(x.a, low.a), at_least(x.b, low.b)};
}
template <class M, class V>
FASTDL_INLINE Two<V> select(Two<M> mask, Two<V> yes, Two<V> no) {
  return {select(mask.a, yes.a, no.a), select(mask.b, yes.b, no.b)};
}

// Beside Whole and Part of loops.h. What a body calls vec there is `typename L::vector` of its lanes L.
struct Four {
  using vector = vec4;
  FASTDL_INLINE vec4 load(const float* p) const {
    return {{fastdl::load(p), fastdl::load(p + kLanes)}, {fastdl::load(p + 2 * kLanes), fastdl::load(p + 3 * kLanes)}};
  }
  FASTDL_INLINE void store(float* p, vec4 v) const {
    fastdl::store(p, v.a.a);
    fastdl::store(p + kLanes, v.a.b);
    fastdl::store(p + 2 * kLanes, v.b.a);
    fastdl::store(p + 3 * kLanes, v.b.b);
  }
  FASTDL_INLINE vec4 only(vec4 v) const { return v; }
};

constexpr bool kChains = FASTDL_VECTOR_BYTES == 32;

// kLong: whether the body takes long enough; else by single vectors.
template <bool kLong = true, class F>
FASTDL_INLINE void for_chains(i64 begin, i64 end, const F& f) {
  i64 i = begin;
  if constexpr (kChains && kLong) {
    for (; i + 4 * kLanes <= end; i += 4 * kLanes) f(i, Four{});
  }
  for_vectors(i, end, f);
}

}  // namespace
}  // namespace fastdl
