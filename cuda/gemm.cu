// Plain products, the sums that go with them (parts of K, columns), and the precision of all products.
//
//   add_parts      thread = one element of c: beta c + part 0 + part 1 + ... of the parts that gemm_split left in scratch
//   column_sums    thread = one column of one chunk of 256 rows, ascending; then add_rows (loops.cuh), chunks ascending.
//                  A warp reads 32 neighbouring columns of a row at once.
#include "gemm.cuh"
#include "loops.cuh"

namespace fastdl {

template void gemm(Product, const KMajor&, const MNMajor&, const BiasActivation&, void*);
template void gemm(Product, const KMajor&, const KMajor&, const BiasActivation&, void*);
template void gemm(Product, const MNMajor&, const MNMajor&, const BiasActivation&, void*);
template void gemm(Product, const MNMajor&, const KMajor&, const BiasActivation&, void*);

namespace {

int chosen_precision = kHighest;  // for the process; whoever changes it does so between products

__global__ void __launch_bounds__(256) add_parts_kernel(Product p, const float* work, i64 parts, i64 step) {
  const i64 columns = p.N * p.batch, count = p.M * columns;
  for (i64 i = blockIdx.x * static_cast<i64>(256) + threadIdx.x; i < count; i += static_cast<i64>(gridDim.x) * 256) {
    const i64 m = quotient(i, columns), n = i - m * columns;
    float* const c = p.c + m * p.ldc + n;
    float sum = p.beta == 0.0f ? work[i] : p.beta * *c + work[i];
    for (i64 part = 1; part < parts; ++part) sum += work[part * step + i];
    *c = sum;
  }
}

// y[chunk, C] = sums of that chunk's rows. With one chunk, y is the result: + beta y.
__global__ void __launch_bounds__(kThreads) column_chunks(i64 n, i64 C, i64 rows, const float* x, float beta, float* y) {
  const i64 c = blockIdx.x * static_cast<i64>(kThreads) + threadIdx.x;
  if (c >= C) return;
  const i64 chunks = n > rows ? (n + rows - 1) / rows : 1;
  for (i64 chunk = blockIdx.y; chunk < chunks; chunk += gridDim.y) {
    const float* p = x + chunk * rows * C + c;
    const int count = static_cast<int>(n - chunk * rows < rows ? n - chunk * rows : rows);
    float sum = 0.0f;
#pragma unroll 8
    for (int i = 0; i < count; ++i) sum += p[i * C];
    float* const out = y + chunk * C + c;
    *out = beta == 0.0f ? sum : beta * *out + sum;
  }
}

}  // namespace

void set_matmul_precision(int precision) { chosen_precision = precision; }
int matmul_precision() { return chosen_precision; }
int device_matmul_precision() {
  return chosen_precision == kHighest || !device_has_tensor_cores() ? kHighest : chosen_precision;
}

void add_parts(const Product& p, const float* work, void* stream) {
  const i64 count = p.M * p.N * p.batch;
  const Split split = split_of(p.M, p.N, p.K, p.batch);
  launch(add_parts_kernel, blocks_for(count, 256), 256, 0, stream, p, work, split.parts, count);
}

void column_sums(i64 n, i64 C, const float* x, float beta, float* work, float* out, void* stream) {
  const unsigned columns = blocks_for(C, kThreads, INT32_MAX);
  const i64 chunks = chunks_of(n);
  const dim3 grid(columns, static_cast<unsigned>(chunks < 65535 ? chunks : 65535));
  const i64 rows = kChunk;
  if (chunks == 1) {
    launch(column_chunks, grid, kThreads, 0, stream, n, C, rows, x, beta, out);
  } else {
    launch(column_chunks, grid, kThreads, 0, stream, n, C, rows, x, 0.0f, work);
    add_rows(chunks, C, work, beta, out, stream);
  }
}

void matmul(i64 B, i64 M, i64 N, i64 K, const float* a, const float* b, int trans_a, int trans_b, float beta, float* c,
            void* stream) {
  Product p = matrix(c, M, N, K, N, beta);
  p.batch = B, p.a_step = M * K, p.b_step = K * N, p.c_step = M * N;
  const KMajor a_rows{a, K}, b_columns{b, K};
  const MNMajor a_columns{a, M}, b_rows{b, N};
  if (trans_a)
    trans_b ? gemm(p, a_columns, b_columns, BiasActivation{}, stream) : gemm(p, a_columns, b_rows, BiasActivation{}, stream);
  else
    trans_b ? gemm(p, a_rows, b_columns, BiasActivation{}, stream) : gemm(p, a_rows, b_rows, BiasActivation{}, stream);
}

}  // namespace fastdl
