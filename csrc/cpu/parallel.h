// parallel_for: the one way in which a CPU kernel uses more than one core. The pool behind it is csrc/threads.cpp.
#pragma once
#include <stddef.h>
#include <stdint.h>

namespace fastdl {

using RangeBody = void (*)(const void* context, int64_t begin, int64_t end);

// Calls body on ranges that cover [0, n) exactly once, on the calling thread and on any helper that is free. Ranges begin
// at multiples of `grain` and hold `grain` items but for the last, so what a range holds never depends on the number of
// threads. The body must not throw. Returns when all ranges are done. n <= grain runs on the caller at once.
void parallel_run(int64_t n, int64_t grain, RangeBody body, const void* context);

// Scratch of at least `floats` floats, 64-byte aligned, that belongs to the calling thread and lives as long as it; a
// later call on the same thread and slot hands out the same memory. Meant for packing buffers of bounded size; scratch that
// grows with the arguments comes from the caller (`<kernel>_workspace`). slot: 0 and 1 for a product's packed a and b, 2 for
// others. Parts of a convolution use all three: what one calls while it holds a slot must not ask for the same.
float* thread_scratch(int slot, size_t floats);

// Threads that a region may use now (>= 1). Only to choose whether splitting pays, never what a result is.
int num_threads();

namespace {
template <class F>
inline void parallel_for(int64_t n, int64_t grain, const F& f) {
  if (n <= 0) return;
  if (n <= grain) {
    f(int64_t(0), n);
    return;
  }
  parallel_run(n, grain, [](const void* c, int64_t b, int64_t e) { (*static_cast<const F*>(c))(b, e); }, &f);
}
}  // namespace
}  // namespace fastdl
