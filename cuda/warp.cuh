// What kernels need below the level of C++: explicit fma, warp and block reductions in a fixed order, asynchronous copies
// into shared memory, and the tensor cores' mma. One meaning on every architecture: what an architecture lacks is either done
// another way (copies) or traps (mma), never left out.
#pragma once
#include "launch.cuh"

namespace fastdl {

constexpr unsigned kFullWarp = 0xffffffffu;

// a b + c with one rounding.
__device__ __forceinline__ float fma(float a, float b, float c) {
#if defined(__CUDACC__)
  return __fmaf_rn(a, b, c);
#else
  return __builtin_fmaf(a, b, c);
#endif
}

// Hides x from the optimiser: what is computed from it inside a loop stays there, instead of waiting in registers outside.
__device__ __forceinline__ void keep_inside(int& x) {
#if defined(__CUDA_ARCH__)
  asm volatile("" : "+r"(x));
#else
  (void)x;
#endif
}

// ------------------------------------------------------------------------------------------------ reductions
// Butterflies: every lane gets the same bits. All 32 lanes must take part.

__device__ __forceinline__ float warp_sum(float x) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) x += __shfl_xor_sync(kFullWarp, x, step);
  return x;
}
// NaN if any lane is NaN.
__device__ __forceinline__ float warp_max(float x) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) {
    const float other = __shfl_xor_sync(kFullWarp, x, step);
    x = x > other || x != x ? x : other;
  }
  return x;
}

// Sum over a block of Threads (a multiple of 32) threads: each warp, then the warps. Every thread gets the result.
// scratch: Threads / 32 floats of shared memory, free again when the function returns.
template <int Threads>
__device__ __forceinline__ float block_sum(float x, float* scratch) {
  static_assert(Threads % 32 == 0 && Threads <= 1024, "whole warps");
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  x = warp_sum(x);
  if (lane == 0) scratch[warp] = x;
  __syncthreads();
  x = warp_sum(lane < Threads / 32 ? scratch[lane] : 0.0f);
  __syncthreads();
  return x;
}
template <int Threads>
__device__ __forceinline__ float block_max(float x, float* scratch) {
  static_assert(Threads % 32 == 0 && Threads <= 1024, "whole warps");
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  x = warp_max(x);
  if (lane == 0) scratch[warp] = x;
  __syncthreads();
  x = warp_max(scratch[lane < Threads / 32 ? lane : 0]);
  __syncthreads();
  return x;
}

// -------------------------------------------------------------------------------------------- asynchronous copies
// Global -> shared. Where `inside` is false, zeros are written and `global` is not read. Before sm_80 the copy is done at
// once, through registers. A thread sees its own copies after copy_async_wait; others after a barrier that follows it.

// 16 bytes, both addresses aligned to 16.
__device__ __forceinline__ void copy_async16(void* shared, const void* global, bool inside) {
#if !defined(__CUDACC__)
  emu::copy_async(shared, global, 16, inside);
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(
                   static_cast<unsigned>(__cvta_generic_to_shared(shared))),
               "l"(__cvta_generic_to_global(global)), "r"(inside ? 16 : 0)
               : "memory");
#else
  // In global's own address space, so that several loads may be on their way before the first store.
  float4 v;
  asm volatile(
      "{ .reg .pred p; setp.ne.s32 p, %5, 0; mov.f32 %0, 0f00000000; mov.f32 %1, 0f00000000; mov.f32 %2, 0f00000000;"
      " mov.f32 %3, 0f00000000; @p ld.global.v4.f32 {%0, %1, %2, %3}, [%4]; }"
      : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w)
      : "l"(__cvta_generic_to_global(global)), "r"(static_cast<int>(inside)));
  *static_cast<float4*>(shared) = v;
#endif
}
// 4 bytes, both addresses aligned to 4.
__device__ __forceinline__ void copy_async4(void* shared, const void* global, bool inside) {
#if !defined(__CUDACC__)
  emu::copy_async(shared, global, 4, inside);
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(
                   static_cast<unsigned>(__cvta_generic_to_shared(shared))),
               "l"(__cvta_generic_to_global(global)), "r"(inside ? 4 : 0)
               : "memory");
#else
  float v;
  asm volatile("{ .reg .pred p; setp.ne.s32 p, %2, 0; mov.f32 %0, 0f00000000; @p ld.global.f32 %0, [%1]; }"
               : "=f"(v)
               : "l"(__cvta_generic_to_global(global)), "r"(static_cast<int>(inside)));
  *static_cast<float*>(shared) = v;
#endif
}
// Closes a group: all copies of this thread since the last commit.
__device__ __forceinline__ void copy_async_commit() {
#if !defined(__CUDACC__)
  emu::copy_async_commit();
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}
// Waits until at most the newest N groups of this thread are still on their way.
template <int N>
__device__ __forceinline__ void copy_async_wait() {
#if !defined(__CUDACC__)
  emu::copy_async_wait(N);
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
#endif
}

// ------------------------------------------------------------------------------------------------- tensor cores
// Fragments as PTX lays them out (mma.m16n8k8, m16n8k16): with g = lane / 4, t = lane % 4,
//   c[0..3]          = C[g][2t], C[g][2t+1], C[g+8][2t], C[g+8][2t+1];
//   tf32  a[0..3]    = A[g][t], A[g+8][t], A[g][t+4], A[g+8][t+4];   b[0..1] = B[t][g], B[t+4][g];
//   bf16  a[0..3]    = pairs A[g][2t..], A[g+8][2t..], A[g][2t+8..], A[g+8][2t+8..];   b[0..1] = pairs B[2t..][g], B[2t+8..][g],
// the lower index of a pair in the lower half. On an architecture without them these functions trap: ask
// device_has_tensor_cores() on the host first. All 32 lanes must take part.

// x rounded to tf32 (10 bits of mantissa; to nearest, ties away from zero), as the bits of a float.
__device__ __forceinline__ uint32_t to_tf32(float x) {
#if !defined(__CUDACC__)
  return emu::to_tf32(x);
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  uint32_t r;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(r) : "f"(x));
  return r;
#else
  __trap();
  return 0;
#endif
}
// Two floats rounded to bf16 (to nearest, ties to even); `low` in the lower half.
__device__ __forceinline__ uint32_t to_bf16x2(float low, float high) {
#if !defined(__CUDACC__)
  return emu::to_bf16x2(low, high);
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  uint32_t r;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
  return r;
#else
  __trap();
  return 0;
#endif
}
// c += a b, A 16x8 (row), B 8x8 (column), C 16x8.
__device__ __forceinline__ void mma_tf32_16x8x8(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
#if !defined(__CUDACC__)
  emu::mma_tf32_16x8x8(c, a, b);
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
  __trap();
#endif
}
// c += a b, A 16x16 (row), B 16x8 (column), C 16x8.
__device__ __forceinline__ void mma_bf16_16x8x16(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
#if !defined(__CUDACC__)
  emu::mma_bf16_16x8x16(c, a, b);
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
  __trap();
#endif
}
// Four 8x8 matrices of 16-bit elements (or 8x4 of 32-bit ones): lane i gives the address of row i % 8 of matrix i / 8, 16
// bytes aligned to 16; r[m] is the 32-bit word lane % 4 of row lane / 4 of matrix m.
__device__ __forceinline__ void load_matrix_x4(uint32_t (&r)[4], const void* shared_row) {
#if !defined(__CUDACC__)
  emu::load_matrix(r, shared_row, false);
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 750
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(static_cast<unsigned>(__cvta_generic_to_shared(shared_row)))
               : "memory");
#else
  __trap();
#endif
}
// The same with each 8x8 matrix of 16-bit elements transposed.
__device__ __forceinline__ void load_matrix_x4_transposed(uint32_t (&r)[4], const void* shared_row) {
#if !defined(__CUDACC__)
  emu::load_matrix(r, shared_row, true);
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 750
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(static_cast<unsigned>(__cvta_generic_to_shared(shared_row)))
               : "memory");
#else
  __trap();
#endif
}

}  // namespace fastdl
