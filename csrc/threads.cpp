// Serial stand-in until the pool is merged.
#include "cpu/parallel.h"

#include <cstdlib>
namespace fastdl {
void parallel_run(int64_t n, int64_t grain, RangeBody body, const void* c) {
  for (int64_t b = 0; b < n; b += grain) body(c, b, b + grain < n ? b + grain : n);
}
float* thread_scratch(int slot, size_t floats) {
  static float* p[3];
  static size_t have[3];
  if (have[slot] < floats) {
    free(p[slot]);
    p[slot] = static_cast<float*>(aligned_alloc(64, (floats * 4 + 63) / 64 * 64));
    have[slot] = floats;
  }
  return p[slot];
}
int num_threads() { return 1; }
}  // namespace fastdl
