// Elman's recurrent network: whole sequences and single steps. A step is its product with u into scratch and a pass, a thread
// a unit, forward and backward alike; small ones go by sequences (recurrent.cuh).
#include "recurrent.cuh"

namespace fastdl {
namespace {

// states holds the inputs' share and then the output.
__global__ void forward_kernel(Steps steps, i64 s, i64 H, const float* sums, const float* b, int act, float* h, float* y,
                               float* states) {
  const i64 rows = steps.rows(s);
  for_rows(steps.N, H, [=](i64 i, i64 j) {
    if (i >= rows) return;
    float* z = states + (steps.first(s) + i) * H + j;
    float v = *z + sums[i * H + j];
    if (b) v += b[j];
    v = act == kElmanTanh ? fastdl::tanh(v) : relu(v);
    *z = v;
    y[steps.place(s, i) * H + j] = v;
    if (h) h[i * H + j] = v;
  });
}

// A block a sequence.
__global__ void __launch_bounds__(512) sequence_forward_kernel(Steps steps, i64 H, const float* u, const float* b,
                                                               const float* h0, int act, float* y, float* states) {
  const SequenceMemory m(H, H, 0);
  forward_sequences(steps, m, u, h0, [&](i64 s, i64 i, i64 j) {
    float* z = states + (steps.first(s) + i) * H + j;
    float v = *z + m.step[j];
    if (b) v += b[j];
    v = act == kElmanTanh ? fastdl::tanh(v) : relu(v);
    *z = v;
    y[steps.place(s, i) * H + j] = v;
    m.state[j] = v;
  });
}

__global__ void __launch_bounds__(512)
    sequence_backward_kernel(Steps steps, i64 H, const float* u, const float* states, const float* dy, const float* dhn, int act,
                             int first_too, float* dh, float* dz) {
  const SequenceMemory m(H, H, 0);
  backward_sequences(steps, m, u, first_too, 0.0f, dhn, dh, nullptr, nullptr, [&](i64 s, i64 i, i64 j) {
    const i64 row = steps.first(s) + i;
    float d = m.state[j];
    if (dy) d += dy[steps.place(s, i) * H + j];
    const float out = states[row * H + j];
    d = act == kElmanTanh ? d * tanh_slope(out) : relu_backward(d, out);
    m.step[j] = d;
    dz[row * H + j] = d;
  });
}

__global__ void backward_kernel(Steps steps, i64 s, i64 H, const float* states, const float* dy, const float* dhn, int act,
                                const float* dh, float* dz, float* step) {
  const i64 rows = steps.rows(s), later = steps.rows(s + 1);
  for_rows(steps.N, H, [=](i64 i, i64 j) {
    if (i >= rows) {
      step[i * H + j] = 0.0f;
      return;
    }
    const i64 row = steps.first(s) + i;
    float d = i < later ? dh[i * H + j] : dhn ? dhn[steps.sequence(i) * H + j] : 0.0f;
    if (dy) d += dy[steps.place(s, i) * H + j];
    const float out = states[row * H + j];
    d = act == kElmanTanh ? d * tanh_slope(out) : relu_backward(d, out);
    step[i * H + j] = d;
    if (dz) dz[row * H + j] = d;
  });
}

}  // namespace

i64 rnn_forward_workspace(i64 N, i64 T, i64 I, i64 H, i64, i64) {
  return steps_floats(N, T) + carved(N * T * I) + 3 * carved(N * H);
}

void rnn_forward(i64 N, i64 T, i64 I, i64 H, const float* x, const float* w, const float* u, const float* b,
                 const float* h0, const int64_t* lengths, int act, int reverse, float* work, float* y, float* hn,
                 float* states, void* stream) {
  Carver carver(work);
  const Steps steps = make_steps(N, T, lengths, reverse, carver, stream);
  float *xs = carver.take(N * T * I), *sums = carver.take(N * H);
  float* h[2] = {carver.take(N * H), carver.take(N * H)};
  pack_steps(steps, I, x, false, nullptr, xs, stream);
  gemm(matrix(states, N * T, H, I, H), KMajor{xs, I}, MNMajor{w, H}, BiasActivation{}, stream);
  if (lengths) clear(N * T * H, y, stream);
  if (by_sequences(N, H, H, 0)) {
    launch(sequence_forward_kernel, static_cast<unsigned>(N), sequence_threads(H), sequence_bytes(H, H, 0), stream, steps, H, u,
           b, h0, act, y, states);
  } else {
    clear(N * H, h[0], stream);
    pack_state(steps, H, h0, h[1], stream);
    const RowGrid g(N, H);
    for (i64 s = 0; s < T; ++s) {
      gemm(matrix(sums, N, H, H, H), KMajor{h[(s + 1) & 1], H}, MNMajor{u, H}, BiasActivation{}, stream);
      launch(forward_kernel, g.grid, g.block, 0, stream, steps, s, H, sums, b, act, h[s & 1], y, states);
    }
  }
  last_rows(steps, H, y, false, h0, hn, stream);
}

i64 rnn_backward_workspace(i64 N, i64 T, i64 I, i64 H, i64, i64) {
  return steps_floats(N, T) + carved(N * T * (I > H ? I : H)) + 2 * carved(N * T * H) + 2 * carved(N * H) +
         weights_floats(N * T, I, H, H);
}

void rnn_backward(i64 N, i64 T, i64 I, i64 H, const float* x, const float* w, const float* u, const float* h0,
                  const int64_t* lengths, const float* states, const float* dy, const float* dhn, int act, int reverse,
                  float* work, float* dx, float beta_dx, float* dw, float beta_dw, float* du, float beta_du, float* db,
                  float beta_db, float* dh0, float beta_dh0, void* stream) {
  const i64 rows = N * T;
  Carver carver(work);
  const Steps steps = make_steps(N, T, lengths, reverse, carver, stream);
  float *packed = carver.take(rows * (I > H ? I : H)), *dz = carver.take(rows * H), *y = carver.take(rows * H);
  float *step = carver.take(N * H), *dh = carver.take(N * H), *parts = carver.take(weights_floats(rows, I, H, H));
  if (lengths) clear(rows * H, dz, stream);
  if (by_sequences(N, H, H, 0)) {
    launch(sequence_backward_kernel, static_cast<unsigned>(N), sequence_threads(H), sequence_bytes(H, H, 0), stream, steps, H, u,
           states, dy, dhn, act, dh0 != nullptr, dh, dz);
  } else {
    clear(N * H, dh, stream);
    const RowGrid g(N, H);
    for (i64 s = T - 1; s >= 0; --s) {
      launch(backward_kernel, g.grid, g.block, 0, stream, steps, s, H, states, dy, dhn, act, dh, dz, step);
      if (s > 0 || dh0) gemm(matrix(dh, N, H, H, H), KMajor{step, H}, KMajor{u, H}, BiasActivation{}, stream);
    }
  }
  if (dh0) unpack_state(steps, H, dh, dhn, beta_dh0, dh0, stream);
  if (dw) {
    pack_steps(steps, I, x, false, nullptr, packed, stream);
    gemm_split(matrix(dw, I, H, rows, H, beta_dw), MNMajor{packed, I}, MNMajor{dz, H}, parts, stream);
  }
  if (du) {
    unpack_steps(steps, H, states, 0.0f, y, stream);
    pack_steps(steps, H, y, true, h0, packed, stream);
    gemm_split(matrix(du, H, H, rows, H, beta_du), MNMajor{packed, H}, MNMajor{dz, H}, parts, stream);
  }
  if (db) column_sums(rows, H, dz, beta_db, parts, db, stream);
  if (dx) {
    gemm(matrix(packed, rows, I, H, I), KMajor{dz, H}, KMajor{w, H}, BiasActivation{}, stream);
    unpack_steps(steps, I, packed, beta_dx, dx, stream);
  }
}

void rnn_cell_forward(i64 N, i64 I, i64 H, const float* x, const float* h, const float* w, const float* u, const float* b,
                      int act, float* y, void* stream) {
  gemm(matrix(y, N, H, I, H), KMajor{x, I}, MNMajor{w, H}, BiasActivation{}, stream);
  const BiasActivation end = {b, 0, act == kElmanTanh ? kTanh : kRelu, 0.0f, nullptr};
  gemm(matrix(y, N, H, H, H, 1.0f), KMajor{h, H}, MNMajor{u, H}, end, stream);
}

i64 rnn_cell_backward_workspace(i64 N, i64 I, i64 H, i64) { return 4 + carved(N * H) + weights_floats(N, I, H, H); }

void rnn_cell_backward(i64 N, i64 I, i64 H, const float* x, const float* h, const float* w, const float* u,
                       const float* y, const float* dy, int act, float* work, float* dx, float beta_dx, float* dh,
                       float beta_dh, float* dw, float beta_dw, float* du, float beta_du, float* db, float beta_db,
                       void* stream) {
  const Steps steps = {N, 1, nullptr, nullptr, nullptr, 0};
  Carver carver(work);
  float *dz = carver.take(N * H), *parts = carver.take(weights_floats(N, I, H, H));
  const RowGrid g(N, H);
  launch(backward_kernel, g.grid, g.block, 0, stream, steps, 0, H, y, dy, nullptr, act, nullptr, nullptr, dz);
  if (dx) gemm(matrix(dx, N, I, H, I, beta_dx), KMajor{dz, H}, KMajor{w, H}, BiasActivation{}, stream);
  if (dh) gemm(matrix(dh, N, H, H, H, beta_dh), KMajor{dz, H}, KMajor{u, H}, BiasActivation{}, stream);
  if (dw) gemm_split(matrix(dw, I, H, N, H, beta_dw), MNMajor{x, I}, MNMajor{dz, H}, parts, stream);
  if (du) gemm_split(matrix(du, H, H, N, H, beta_du), MNMajor{h, H}, MNMajor{dz, H}, parts, stream);
  if (db) column_sums(N, H, dz, beta_db, parts, db, stream);
}

}  // namespace fastdl
