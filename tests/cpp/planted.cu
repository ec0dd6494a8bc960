// Kernels with one mistake each, to see that the emulator finds it (tests/test_emulator.py):
//
//   planted BUG [forward|reverse|random [late|early|random]]
//
// prints what was reported, or "wrong result", or "right". Bug "none" must be right in every mode.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "warp.cuh"

using namespace fastdl;

namespace {

enum Bug {
  kNoBug, kNoBarrierAfterLoad, kNoBarrierBeforeLoad, kSharedOverrun, kFarSharedOverrun, kGlobalOverrun, kUninitialised,
  kWeakWait, kNoDoubleBufferBarrier, kDivergentReturn, kTwoBarriers, kArchGuard, kOffByOne, kShuffleMask, kShuffleAsBarrier,
  kShuffleSource, kReductionBarrier, kBlocksRace, kTooManyThreads, kSharedSize, kMisaligned, kLostAtomic, kBugs
};
constexpr const char* kNames[kBugs] = {
    "none", "no_barrier_after_load", "no_barrier_before_load", "shared_overrun", "far_shared_overrun", "global_overrun",
    "uninitialised", "weak_wait", "no_double_buffer_barrier", "divergent_return", "two_barriers", "arch_guard", "off_by_one",
    "shuffle_mask", "shuffle_as_barrier", "shuffle_source", "reduction_barrier", "blocks_race", "too_many_threads",
    "shared_size", "misaligned", "lost_atomic"};

// c[n,n] = a b in 16 x 16 tiles, the usual first kernel.
constexpr int kTile = 16;
struct Tiles {
  float a[kTile][kTile], b[kTile][kTile];
};
__global__ void product(int bug, int n, const float* a, const float* b, float* c) {
  Tiles& s = shared_memory<Tiles>();
  const int tx = threadIdx.x, ty = threadIdx.y;
  const int row = blockIdx.y * kTile + ty, column = blockIdx.x * kTile + tx;
  const int last = bug == kOffByOne ? n + 1 : n;
  if (bug == kDivergentReturn && row >= n) return;
  float sum = 0.0f;
  for (int k0 = 0; k0 < n; k0 += kTile) {
    const int k = k0 + tx, l = k0 + ty;
    if (bug != kUninitialised || (row < n && k < n)) s.a[ty][tx] = row < n && k < last ? a[row * n + k] : 0.0f;
    s.b[ty + (bug == kSharedOverrun && ty == 15 && tx == 15)][tx] = (bug == kGlobalOverrun || l < n) && column < n ? b[l * n + column] : 0.0f;
    if (bug == kTwoBarriers && ty < 8)
      __syncthreads();
    else if (bug != kNoBarrierAfterLoad)
      __syncthreads();
    for (int i = 0; i < kTile; ++i) sum = fastdl::fma(s.a[ty][i], s.b[i][tx], sum);
    if (bug != kNoBarrierBeforeLoad) __syncthreads();
  }
  if (bug == kFarSharedOverrun && tx == 0 && ty == 0) (&s.b[0][0])[kTile * kTile + 32] = 1.0f;
  if (row < n && column < n) c[row * n + column] = sum;
}

// y[block] = sum of x[block's 256], 32 values to a stage, two stages in flight.
struct Stages {
  float x[2][32];
  float total[8];
};
__global__ void pipeline(int bug, const float* x, float* y) {
  Stages& s = shared_memory<Stages>();
  const int t = threadIdx.x, from = t ^ 32;  // each reads what the other warp has copied
  const float* mine = x + blockIdx.x * 256;
  const bool copies = t < 32;
  if (copies) copy_async4(reinterpret_cast<char*>(&s.x[0][t]) + (bug == kMisaligned ? 2 : 0), mine + t, true);
  copy_async_commit();
  float sum = 0.0f;
  for (int stage = 0; stage < 8; ++stage) {
    if (copies && stage < 7) copy_async4(&s.x[(stage + 1) % 2][t], mine + (stage + 1) * 32 + t, true);
    copy_async_commit();
    if (bug == kWeakWait)
      copy_async_wait<2>();
    else
      copy_async_wait<1>();
    __syncthreads();
    if (from < 32) sum += s.x[stage % 2][from];
    if (bug != kNoDoubleBufferBarrier) __syncthreads();
  }
  sum = warp_sum(sum);
  if (t % 32 == 0) s.total[t / 32] = sum;
  if (bug != kReductionBarrier) __syncthreads();
  if (t == 0) y[bug == kBlocksRace ? 0 : blockIdx.x] = s.total[1] + s.total[0];
}

// y[lane] = x of the lane's neighbour, several ways.
__global__ void lanes(int bug, const float* x, float* y, float* count) {
  float* s = reinterpret_cast<float*>(&shared_memory<float[32]>());
  const int lane = threadIdx.x;
  s[lane] = x[lane];
  float next;
  if (bug == kShuffleMask) {
    next = lane < 31 ? __shfl_sync(kFullWarp, x[lane], (lane + 1) % 32) : x[0];
  } else if (bug == kShuffleSource) {
    next = lane < 16 ? __shfl_sync(0xffffu, x[lane], lane + 1) : x[(lane + 1) % 32];
  } else if (bug == kShuffleAsBarrier) {
    __shfl_sync(kFullWarp, lane, 0);  // orders no memory
    next = s[(lane + 1) % 32];
  } else {
    __syncwarp();
    next = s[(lane + 1) % 32];
  }
  y[lane] = next;
  if (bug == kLostAtomic)
    *count += 1.0f;
  else
    atomicAdd(count, 1.0f);
}

// Sixteen rows of ones through the tensor cores, without asking whether there are any.
__global__ void tensor(float* y) {
  float c[4] = {};
  const uint32_t one = to_tf32(1.0f), a[4] = {one, one, one, one}, b[2] = {one, one};
  mma_tf32_16x8x8(c, a, b);
  y[threadIdx.x] = c[0];
}

int failed(const char* what) {
  const char* error = take_error();
  if (error) printf("%s\n", error);
  else printf("%s\n", what);
  return 0;
}

float* numbers(int n) {
  auto* p = static_cast<float*>(malloc(sizeof(float) * n));
  for (int i = 0; i < n; ++i) p[i] = static_cast<float>(i * 7 % 11 - 5);
  return p;
}

}  // namespace

int main(int argc, char** argv) {
  int bug = kBugs;
  for (int i = 0; i < kBugs; ++i)
    if (argc > 1 && strcmp(argv[1], kNames[i]) == 0) bug = i;
  if (bug == kBugs) {
    for (const char* name : kNames) printf("%s\n", name);
    return 2;
  }
  if (argc > 2) setenv("FASTDL_EMU_ORDER", argv[2], 1);
  if (argc > 3) setenv("FASTDL_EMU_COPIES", argv[3], 1);
  if (bug == kArchGuard) setenv("FASTDL_EMU_ARCH", "75", 1);

  const int n = 37;
  float *a = numbers(n * n), *b = numbers(n * n), *c = numbers(n * n);
  const unsigned tiles = (n + kTile - 1) / kTile;
  const dim3 block = bug == kTooManyThreads ? dim3(33, 33) : dim3(kTile, kTile);
  launch(product, dim3(tiles, tiles), block, bug == kSharedSize ? sizeof(Tiles) - 4 : sizeof(Tiles), nullptr, bug, n, a, b, c);
  const char* error = take_error();
  if (error) return printf("%s\n", error), 0;
  for (int i = 0; i < n; ++i)
    for (int j = 0; j < n; ++j) {
      float sum = 0.0f;
      for (int k = 0; k < n; ++k) sum = fastdl::fma(a[i * n + k], b[k * n + j], sum);
      if (!(c[i * n + j] == sum)) return failed("wrong result");
    }

  const int blocks = 3;
  float *x = numbers(blocks * 256), *y = numbers(blocks), *z = numbers(32);
  launch(pipeline, blocks, 64, sizeof(Stages), nullptr, bug, x, y);
  error = take_error();
  if (error) return printf("%s\n", error), 0;
  for (int i = 0; i < blocks; ++i) {
    float sum = 0.0f;
    for (int k = 0; k < 256; ++k) sum += x[i * 256 + k];
    if (!(y[i] == sum)) return failed("wrong result");
  }

  float* count = numbers(1);
  *count = 0.0f;
  launch(lanes, 1, 32, 32 * sizeof(float), nullptr, bug, x, z, count);
  error = take_error();
  if (error) return printf("%s\n", error), 0;
  if (*count != 32.0f) return failed("wrong result");
  for (int i = 0; i < 32; ++i)
    if (!(z[i] == x[(i + 1) % 32])) return failed("wrong result");

  if (bug == kNoBug || bug == kArchGuard) {
    launch(tensor, 1, 32, 0, nullptr, z);
    error = take_error();
    if (error) return printf("%s\n", error), 0;
    for (int i = 0; i < 32; ++i)
      if (z[i] != 8.0f) return failed("wrong result");
  }
  printf("right\n");
  for (float* p : {a, b, c, x, y, z, count}) free(p);
  return 0;
}
