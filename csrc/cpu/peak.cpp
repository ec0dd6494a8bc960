// Multiply-adds in registers and nothing else: the ceiling against which benchmarks hold the kernels of this target.
#include "parallel.h"
#include "simd.h"
#include "unroll.h"

namespace fastdl {

double multiply_adds(int64_t pieces, int64_t rounds);

// Does rounds x 12 independent multiply-adds of vectors for each piece; returns the number of operations. Twelve chains
// hide the latency of two units and leave room in sixteen registers.
double multiply_adds(int64_t pieces, int64_t rounds) {
  constexpr int kChains = 12;
  parallel_for(pieces, 1, [&](int64_t begin, int64_t end) {
    for (int64_t piece = begin; piece < end; ++piece) {
      vec sums[kChains];
      for (int i = 0; i < kChains; ++i) sums[i] = splat(float(i));
      const vec factor = splat(0.5f), term = splat(1.0f);  // towards 2: no overflow, no subnormal numbers
      for (int64_t r = 0; r < rounds; ++r)
        unrolled<kChains>([&](auto i) FASTDL_INLINED { sums[i] = fma(sums[i], factor, term); });
      vec all = sums[0];
      for (int i = 1; i < kChains; ++i) all = all + sums[i];
      store(thread_scratch(2, kLanes), all);  // somebody wants it
    }
  });
  return 2.0 * kChains * kLanes * double(pieces) * double(rounds);
}

}  // namespace fastdl
