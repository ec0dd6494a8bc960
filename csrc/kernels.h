// THE interface: every kernel of fastdl, declared and documented once. Each target (an instruction set of the CPU, the
// CUDA emulator, CUDA) supplies one definition of each; csrc/bindings.cpp gives them their Python names.
//
// Letters, everywhere the same: N samples, T time steps, I inputs, O outputs, H hidden, C channels, F filters, Y x X image,
// R x S filter, P x Q output image, D embedding width, L rows of a table, n elements or rows (leading axes flattened).
// Arrays are float32 and C-contiguous unless the type says otherwise; images are channels last.
//
//   * Argument order: sizes, inputs, attributes, outputs, stream. `stream` is a cudaStream_t on CUDA and ignored by CPUs.
//   * Outputs never overlap inputs, except where "in place" is said: then an output may be exactly that input.
//   * A gradient output comes with a factor: buffer = new + beta * buffer; with beta == 0 the buffer is not read. Where a
//     gradient may be null, null means "not wanted" and its work is skipped.
//   * Kernels never allocate. Scratch that grows with the sizes is `work`, of `<kernel>_workspace(sizes...)` floats.
//   * What changes from step to step of a training (random offset, learning rate, Adam's t) comes by pointer, in a StepState.
//   * Sums run in an order given by the summed axis alone (chunks of 256, sequential inside, added in order; a reduction of
//     more than 256 chunks sums their sums likewise), never by the batch, the path taken or the number of threads.
//   * NaN goes through every kernel. Sizes may be zero. Indices and labels are trusted here: the border checks
//     those of host arrays.
#pragma once
#include <stdint.h>

namespace fastdl {

using i64 = int64_t;

// What a replayed training step reads afresh each time.
struct StepState {
  uint64_t seed;    // Philox key
  uint64_t offset;  // first element of the stream that this call uses
  int64_t t;        // number of this update, from 1 (Adam's bias correction)
  float lr;         // learning rate of this update
};

// Activation of a fused epilogue. "saved" is what its derivative is computed from: the output y, but for gelu the
// pre-activation z.
enum Act { kNone, kRelu, kLeakyRelu, kSigmoid, kTanh, kGelu };
enum Elman { kElmanRelu, kElmanTanh };
enum Unary { kNegate, kAbs, kSquare, kSqrt, kReciprocal, kExp, kLog, kSoftplus, kSin, kCos };
enum Binary { kAdd, kSubtract, kMultiply, kDivide, kMaximum, kMinimum };
enum Reduce { kSum, kMean, kMax, kMin };
// How per-sample losses l with weights s become one number: mean = sum(s l) / sum(s), sum = sum(s l).
enum Reduction { kReduceMean, kReduceSum };
enum Loss { kBinaryCrossEntropy, kSquaredError, kAbsoluteError, kHuber, kHinge };
// Units of a Boltzmann machine, by what is drawn from their input z: 1 with probability sigmoid(z); a normal number of mean z;
// max(0, z + a normal number of variance sigmoid(z)); one of each group with probabilities softmax(z).
enum Unit { kBernoulliUnit, kGaussianUnit, kReluUnit, kSoftmaxUnit };

// What went wrong in this thread's kernels since the last call, in words, or null: a launch that CUDA refused. Kernels return
// nothing, so whoever calls them asks here. Always null on CPUs. The text lives until the thread's next call.
const char* take_error();

// ---------------------------------------------------------------------------------------------------- products

// c[B,M,N] = op(a) op(b) + beta c. op(a) is [M,K]: a is [B,M,K], or [B,K,M] with trans_a; b is [B,K,N], or [B,N,K] with
// trans_b.
void matmul(i64 B, i64 M, i64 N, i64 K, const float* a, const float* b, int trans_a, int trans_b, float beta, float* c,
            void* stream);

// y[N,O] = act(x[N,I] w[I,O] + b[O]). b may be null. z[N,O], if not null, receives the pre-activation.
void dense_forward(i64 N, i64 I, i64 O, const float* x, const float* w, const float* b, int act, float slope, float* y,
                   float* z, void* stream);

// With dz = dy act'(saved):  dx = dz w^T + beta_dx dx,  dw = x^T dz + beta_dw dw,  db = sum_n dz + beta_db db.
// dx, dw, db may be null.
void dense_backward(i64 N, i64 I, i64 O, const float* x, const float* w, const float* saved, const float* dy, int act,
                    float slope, float* work, float* dx, float beta_dx, float* dw, float beta_dw, float* db,
                    float beta_db, void* stream);
i64 dense_backward_workspace(i64 N, i64 I, i64 O, i64 act);

// ------------------------------------------------------------------------------------------------- convolution
// x[N,Y,X,C], filters w[R,S,C/groups,F], y[N,P,Q,F] with P = (Y + 2 pad_y - dilation_y (R-1) - 1) / stride_y + 1.
// Channel block g of C meets filter block g of F. An infinity in an output's field may give NaN instead (conv_winograd.cpp).

// y = act(x * w + b): y[n,p,q,f] = act(b[f] + sum_{r,s,c} x[n, p stride_y + r dilation_y - pad_y, ..., c] w[r,s,c,f]).
void conv2d_forward(i64 N, i64 Y, i64 X, i64 C, i64 R, i64 S, i64 F, i64 P, i64 Q, const float* x, const float* w,
                    const float* b, i64 stride_y, i64 stride_x, i64 pad_y, i64 pad_x, i64 dilation_y, i64 dilation_x,
                    i64 groups, int act, float slope, float* work, float* y, float* z, void* stream);
i64 conv2d_forward_workspace(i64 N, i64 Y, i64 X, i64 C, i64 R, i64 S, i64 F, i64 P, i64 Q, i64 stride_y, i64 stride_x,
                             i64 pad_y, i64 pad_x, i64 dilation_y, i64 dilation_x, i64 groups);

// dx = dy correlated with the filters, + beta dx.
void conv2d_backward_data(i64 N, i64 Y, i64 X, i64 C, i64 R, i64 S, i64 F, i64 P, i64 Q, const float* dy,
                          const float* w, i64 stride_y, i64 stride_x, i64 pad_y, i64 pad_x, i64 dilation_y,
                          i64 dilation_x, i64 groups, float* work, float* dx, float beta, void* stream);
i64 conv2d_backward_data_workspace(i64 N, i64 Y, i64 X, i64 C, i64 R, i64 S, i64 F, i64 P, i64 Q, i64 stride_y,
                                   i64 stride_x, i64 pad_y, i64 pad_x, i64 dilation_y, i64 dilation_x, i64 groups);

// dw = x correlated with dy, + beta_dw dw;  db = sum of dy over samples and pixels, + beta_db db. dw, db may be null.
void conv2d_backward_weight(i64 N, i64 Y, i64 X, i64 C, i64 R, i64 S, i64 F, i64 P, i64 Q, const float* x,
                            const float* dy, i64 stride_y, i64 stride_x, i64 pad_y, i64 pad_x, i64 dilation_y,
                            i64 dilation_x, i64 groups, float* work, float* dw, float beta_dw, float* db, float beta_db,
                            void* stream);
i64 conv2d_backward_weight_workspace(i64 N, i64 Y, i64 X, i64 C, i64 R, i64 S, i64 F, i64 P, i64 Q, i64 stride_y,
                                     i64 stride_x, i64 pad_y, i64 pad_x, i64 dilation_y, i64 dilation_x, i64 groups);

// The transpose of conv2d_forward as a layer of its own: x[N,P,Q,F] -> y[N,Y,X,C] = act(w^T x + b[C]), same filters
// w[R,S,C/groups,F]. Its gradients are conv2d_forward (data) and conv2d_backward_weight with x and dy exchanged.
void conv_transpose2d_forward(i64 N, i64 Y, i64 X, i64 C, i64 R, i64 S, i64 F, i64 P, i64 Q, const float* x,
                              const float* w, const float* b, i64 stride_y, i64 stride_x, i64 pad_y, i64 pad_x,
                              i64 dilation_y, i64 dilation_x, i64 groups, int act, float slope, float* work, float* y,
                              float* z, void* stream);
i64 conv_transpose2d_forward_workspace(i64 N, i64 Y, i64 X, i64 C, i64 R, i64 S, i64 F, i64 P, i64 Q, i64 stride_y,
                                       i64 stride_x, i64 pad_y, i64 pad_x, i64 dilation_y, i64 dilation_x, i64 groups);

// ----------------------------------------------------------------------------------------------------- pooling
// Windows of size_y x size_x, P = (Y + 2 pad_y - size_y) / stride_y + 1; padding never wins a maximum.

// y = maximum of each window; where[N,P,Q,C], if not null, receives its place in the window (row * size_x + column; the
// first of equals; a NaN wins).
void max_pool2d_forward(i64 N, i64 Y, i64 X, i64 C, i64 P, i64 Q, const float* x, i64 size_y, i64 size_x, i64 stride_y,
                        i64 stride_x, i64 pad_y, i64 pad_x, float* y, uint8_t* where, void* stream);
void max_pool2d_backward(i64 N, i64 Y, i64 X, i64 C, i64 P, i64 Q, const uint8_t* where, const float* dy, i64 size_y,
                         i64 size_x, i64 stride_y, i64 stride_x, i64 pad_y, i64 pad_x, float* dx, float beta,
                         void* stream);

// y = mean of each window; count_padding = 0 divides by the pixels inside the image only.
void avg_pool2d_forward(i64 N, i64 Y, i64 X, i64 C, i64 P, i64 Q, const float* x, i64 size_y, i64 size_x, i64 stride_y,
                        i64 stride_x, i64 pad_y, i64 pad_x, int count_padding, float* y, void* stream);
void avg_pool2d_backward(i64 N, i64 Y, i64 X, i64 C, i64 P, i64 Q, const float* dy, i64 size_y, i64 size_x,
                         i64 stride_y, i64 stride_x, i64 pad_y, i64 pad_x, int count_padding, float* dx, float beta,
                         void* stream);

// ----------------------------------------------------------------------------------------------- normalisation

// Training: mean and biased variance of each channel over n rows; y = gamma (x - mean) rstd + shift with rstd =
// 1/sqrt(var + eps); running = (1 - momentum) running + momentum (mean | unbiased variance). gamma, shift, running_mean,
// running_var may be null.
void batch_norm_forward(i64 n, i64 C, const float* x, const float* gamma, const float* shift, float eps, float momentum,
                        float* work, float* running_mean, float* running_var, float* y, float* mean, float* rstd,
                        void* stream);
i64 batch_norm_forward_workspace(i64 n, i64 C);
// Inference: y = gamma (x - mean) / sqrt(var + eps) + shift. gamma, shift may be null.
void batch_norm_inference(i64 n, i64 C, const float* x, const float* gamma, const float* shift, const float* mean,
                          const float* var, float eps, float* y, void* stream);
// mean, rstd: as written by batch_norm_forward. dx, dgamma, dshift may be null.
void batch_norm_backward(i64 n, i64 C, const float* x, const float* gamma, const float* mean, const float* rstd,
                         const float* dy, float* work, float* dx, float beta_dx, float* dgamma, float beta_dgamma,
                         float* dshift, float beta_dshift, void* stream);
i64 batch_norm_backward_workspace(i64 n, i64 C);

// y = gamma (x - mean) rstd + shift, mean and biased variance of each row; mean[n] and rstd[n] are kept for the backward
// pass. gamma, shift may be null.
void layer_norm_forward(i64 n, i64 C, const float* x, const float* gamma, const float* shift, float eps, float* y,
                        float* mean, float* rstd, void* stream);
void layer_norm_backward(i64 n, i64 C, const float* x, const float* gamma, const float* mean, const float* rstd,
                         const float* dy, float* work, float* dx, float beta_dx, float* dgamma, float beta_dgamma,
                         float* dshift, float beta_dshift, void* stream);
i64 layer_norm_backward_workspace(i64 n, i64 C);

// ----------------------------------------------------------------------------------------------- element-wise

// y = act(x), in place allowed.
void activation_forward(i64 n, const float* x, int act, float slope, float* y, void* stream);
// dx = dy act'(saved) + beta dx; dx may be dy in place when beta == 0.
void activation_backward(i64 n, const float* saved, const float* dy, int act, float slope, float* dx, float beta,
                         void* stream);

// y = op(x), in place allowed.
void unary_forward(i64 n, const float* x, int op, float* y, void* stream);
// dx = dy op'(x) + beta dx. abs' is sign, and 0 at 0.
void unary_backward(i64 n, const float* x, const float* dy, int op, float* dx, float beta, void* stream);

// z[L,n] = x[L,n] op y[n]: y is repeated for every leading row; in place on x allowed.
void binary(i64 L, i64 n, const float* x, const float* y, int op, float* z, void* stream);

// y = a x + b y; with b == 0, y is not read.
void axpby(i64 n, float a, const float* x, float b, float* y, void* stream);

// y[A,C] = reduction of x[A,B,C] over B. The sum's order is by B alone. max and min of nothing (B = 0) are -inf and inf,
// mean is NaN.
void reduce_forward(i64 A, i64 B, i64 C, const float* x, int op, float* work, float* y, void* stream);
i64 reduce_forward_workspace(i64 A, i64 B, i64 C, i64 op);
// dx = dy spread back over B (max, min: to the first place that holds y), + beta dx.
void reduce_backward(i64 A, i64 B, i64 C, const float* x, const float* y, const float* dy, int op, float* dx,
                     float beta, void* stream);
// index[A,C] of the first largest element along B (a NaN is largest). B >= 1.
void argmax(i64 A, i64 B, i64 C, const float* x, int64_t* index, void* stream);
// y[0] = sum of x^2.
void sum_squares(i64 n, const float* x, float* work, float* y, void* stream);
i64 sum_squares_workspace(i64 n);

// Columns [at, at + n) of x[L,W] -> y[L,n], y = columns + beta y: a slice, and the gradient of a concatenation.
void get_columns(i64 L, i64 W, i64 n, const float* x, i64 at, float* y, float beta, void* stream);
// x[L,n] -> columns [at, at + n) of y[L,W], columns = x + beta columns: concatenation, and the gradient of a slice.
void put_columns(i64 L, i64 W, i64 n, const float* x, i64 at, float* y, float beta, void* stream);

// ---------------------------------------------------------------------------------------------- softmax, losses

// y = softmax(x) of each row (log_softmax with log = 1); in place allowed.
void softmax_forward(i64 n, i64 C, const float* x, int log, float* y, void* stream);
void softmax_backward(i64 n, i64 C, const float* y, const float* dy, int log, float* dx, float beta, void* stream);

// Cross entropy in nats of softmax(x[n,C]) against integer labels; a label of -1 is not counted. With label smoothing e the
// target is (1-e) one-hot + e/C. weights[n] may be null (all 1). loss[1]: the reduction; rows[n], if not null: each row's
// unweighted loss (0 where ignored); p[n,C], if not null: the probabilities, for the backward pass. With nothing counted the mean is 0.
void softmax_cross_entropy_forward(i64 n, i64 C, const float* x, const int64_t* labels, const float* weights,
                                   float smoothing, int reduction, float* work, float* loss, float* rows, float* p,
                                   void* stream);
i64 softmax_cross_entropy_forward_workspace(i64 n, i64 C, i64 reduction);
// dx = (p - target) times each row's share of the reduction times dloss, + beta dx. dloss has g elements: 1 (gradient of
// `loss`), or n (gradient of `rows`: reduction and weights play no part then).
void softmax_cross_entropy_backward(i64 n, i64 C, i64 g, const float* p, const int64_t* labels, const float* weights,
                                    const float* dloss, float smoothing, int reduction, int by_row, float* work,
                                    float* dx, float beta, void* stream);
i64 softmax_cross_entropy_backward_workspace(i64 n, i64 C, i64 g, i64 reduction, i64 by_row);

// Losses of a prediction x against a target t, element by element; kinds: binary cross entropy on logits
// max(x,0) - x t + log(1 + exp(-|x|)); squared (x-t)^2; absolute |x-t|; Huber d^2/2 if |d| <= delta else delta(|d| -
// delta/2); hinge max(0, 1 - t x) with t in {-1, 1}. weights, elements as above.
void loss_forward(i64 n, const float* x, const float* t, const float* weights, int kind, float delta, int reduction,
                  float* work, float* loss, float* elements, void* stream);
i64 loss_forward_workspace(i64 n, i64 kind, i64 reduction);
void loss_backward(i64 n, i64 g, const float* x, const float* t, const float* weights, const float* dloss, int kind,
                   float delta, int reduction, int by_element, float* work, float* dx, float beta, void* stream);
i64 loss_backward_workspace(i64 n, i64 g, i64 kind, i64 reduction, i64 by_element);

// ------------------------------------------------------------------------------------------------------- trees
// A batch of binary trees, flattened: L leaves, then n inner nodes so that the trees' nodes of one height stand together,
// lowest first. children[n,2] are rows of h[L+n,D]: k < L is leaf k, L + k is inner node k; no row is the child of two. ends[H]
// says before which inner node each height ends, ends[H-1] = n; children stand before their parent's height.

// h[leaf] = leaves[L,D];  h[node] = tanh(x^T v x + x w + b) with x[2D] = (h[left], h[right]), v[2D,2D,D], w[2D,D], b[D]:
// the k-th output is tanh(sum_{ij} x_i v[i,j,k] x_j + sum_i x_i w[i,k] + b[k]). v, b may be null.
void rntn_forward(i64 L, i64 n, i64 H, i64 D, const float* leaves, const int64_t* children, const int64_t* ends,
                  const float* v, const float* w, const float* b, float* work, float* h, void* stream);
i64 rntn_forward_workspace(i64 L, i64 n, i64 H, i64 D);

// From h[M,D] as written by rntn_forward, M = L + n, and its gradient dh[M,D] at every node. With g = the gradient of a node, its own and
// that from its parent, and dz = g (1 - h^2):  dleaves = g of the leaves + beta dleaves,  dv[i,j] = sum_n x_i x_j dz + beta dv,
// dw = sum_n x dz + beta dw,  db = sum_n dz + beta db. dleaves, dv, dw, db may be null; dv needs no v (then v = 0).
void rntn_backward(i64 M, i64 n, i64 H, i64 D, const float* h, const int64_t* children, const int64_t* ends,
                   const float* v, const float* w, const float* dh, float* work, float* dleaves, float beta_dleaves,
                   float* dv, float beta_dv, float* dw, float beta_dw, float* db, float beta_db, void* stream);
i64 rntn_backward_workspace(i64 M, i64 n, i64 H, i64 D);

// Binary tree LSTM. With z[5D] = (h[left], h[right]) w[2D,5D] + b[5D] in five parts in the order i l r g o:
//   c[node] = sigmoid(z_i) tanh(z_g) + sigmoid(z_l) c[left] + sigmoid(z_r) c[right],   h[node] = sigmoid(z_o) tanh(c[node])
// h[leaf], c[leaf] = leaves[L,D], cells[L,D]. gates[n,5D]: i l r g o after their activations. b may be null.
void tree_lstm_forward(i64 L, i64 n, i64 H, i64 D, const float* leaves, const float* cells, const int64_t* children,
                       const int64_t* ends, const float* w, const float* b, float* work, float* h, float* c,
                       float* gates, void* stream);
i64 tree_lstm_forward_workspace(i64 L, i64 n, i64 H, i64 D);
// From h, c[M,D] and gates as written by tree_lstm_forward, M = L + n, and gradients dh, dc[M,D] at every node; dc may be null
// (0). dleaves, dcells, dw, db, each + beta times what it holds, may be null; db needs no b.
void tree_lstm_backward(i64 M, i64 n, i64 H, i64 D, const float* h, const float* c, const float* gates,
                        const int64_t* children, const int64_t* ends, const float* w, const float* dh, const float* dc,
                        float* work, float* dleaves, float beta_dleaves, float* dcells, float beta_dcells, float* dw,
                        float beta_dw, float* db, float beta_db, void* stream);
i64 tree_lstm_backward_workspace(i64 M, i64 n, i64 H, i64 D);

// --------------------------------------------------------------------------------------------------------- CTC
// Sequences without alignment: x[N,T,C] are logits, of sample i the first lengths[i] steps; labels[N,S], the first
// label_lengths[i]; blank is the class of "no label". T, S are the longest of the batch. Labels may not be blank; what stands
// behind a sample's labels is not read, but must be a class.

// loss[N] = -log p(labels | x) in nats, the sum over all alignments (labels with blanks between, steps repeated); infinite
// where none exists (fewer steps than labels plus repeats). logp[N,T,C] = log softmax(x), 0 behind a sample's length.
void ctc_forward(i64 N, i64 T, i64 C, i64 S, const float* x, const int64_t* labels, const int64_t* lengths,
                 const int64_t* label_lengths, i64 blank, float* work, float* loss, float* logp, void* stream);
i64 ctc_forward_workspace(i64 N, i64 T, i64 C, i64 S);
// dx = (softmax(x) - share of the alignments that are at the class then) dloss[N], + beta dx. 0 behind a sample's length,
// and for a sample whose loss is infinite.
void ctc_backward(i64 N, i64 T, i64 C, i64 S, const float* logp, const int64_t* labels, const int64_t* lengths,
                  const int64_t* label_lengths, const float* dloss, i64 blank, float* work, float* dx, float beta,
                  void* stream);
i64 ctc_backward_workspace(i64 N, i64 T, i64 C, i64 S);

// -------------------------------------------------------------------------------------------------- embedding

// y[n,D] = table[index[n]]; 0 <= index < L.
void embedding_forward(i64 n, i64 L, i64 D, const float* table, const int64_t* index, float* y, void* stream);
// dtable = sum of dy[i] into row index[i], in the order of i, + beta dtable.
void embedding_backward(i64 n, i64 L, i64 D, const int64_t* index, const float* dy, float* work, float* dtable,
                        float beta, void* stream);
i64 embedding_backward_workspace(i64 n, i64 L, i64 D);
// y[n,D] = scale * table[index[n]] from bytes: one pass makes a float batch out of stored images.
void gather_u8(i64 n, i64 L, i64 D, const uint8_t* table, const int64_t* index, float scale, float* y, void* stream);

// --------------------------------------------------------------------------------------------------- recurrent
// Sequences x[N,T,I] -> y[N,T,H] with input weights w, recurrent weights u, bias b, first states h0, c0 (null: 0) and last
// states hn, cn. lengths[N], 0 to T, may be null (all T): steps from lengths[n] on do not exist for sequence n; nothing is
// computed there, y and dx are 0 there, hn and cn are those of its last step. reverse = 1 runs every sequence from its last
// step to its first. Biases may be null.
// `gates` (and `cells`) are what the backward pass needs, in packed rows: step by step, the sequences by descending length
// (stable), only those that have the step; with reverse = 1 step 0 is the last of each sequence.

// LSTM. With z = x_t w + h_{t-1} u + b, in four parts of H in the order i f g o:
//   i = sigmoid(z_i + p_i c_{t-1})   f = sigmoid(z_f + p_f c_{t-1})   g = tanh(z_g)   m = f c_{t-1} + i (drop_t g)
//   o = sigmoid(z_o + p_o m)   c_t = keep_c_t c_{t-1} + (1 - keep_c_t) m
//   h_t = y_t = keep_h_t h_{t-1} + (1 - keep_h_t) o tanh(m)
// p: peepholes [3,H] in the order i f o; drop, keep_h, keep_c: [N,T,H], recurrent dropout and zoneout. Null: without.
// gates: i f g o after their activations. cells: c_t.
void lstm_forward(i64 N, i64 T, i64 I, i64 H, const float* x, const float* w, const float* u, const float* b,
                  const float* h0, const float* c0, const int64_t* lengths, const float* p, const float* drop,
                  const float* keep_h, const float* keep_c, int reverse, float* work, float* y, float* hn, float* cn,
                  float* gates, float* cells, void* stream);
i64 lstm_forward_workspace(i64 N, i64 T, i64 I, i64 H, i64 reverse);
// dy, dhn, dcn may be null (0). dx, dw, du, db, dp, dh0, dc0 may be null; db needs no b.
void lstm_backward(i64 N, i64 T, i64 I, i64 H, const float* x, const float* w, const float* u, const float* h0,
                   const float* c0, const int64_t* lengths, const float* p, const float* drop, const float* keep_h,
                   const float* keep_c, const float* y, const float* gates, const float* cells, const float* dy,
                   const float* dhn, const float* dcn, int reverse, float* work, float* dx, float beta_dx, float* dw,
                   float beta_dw, float* du, float beta_du, float* db, float beta_db, float* dp, float beta_dp,
                   float* dh0, float beta_dh0, float* dc0, float beta_dc0, void* stream);
i64 lstm_backward_workspace(i64 N, i64 T, i64 I, i64 H, i64 reverse);

// LSTM with layer normalisation. norm(v) = (v - mean v) / sqrt(var v + eps) over the H units; gain[5,H], b[5,H] in the order
// i f g o c, all else as above:
//   z_k = norm(x_t w_k + h_{t-1} u_k) gain_k + b_k  for the gates k = i f g o,   c_t = sigmoid(z_f) c_{t-1} + sigmoid(z_i) tanh(z_g)
//   h_t = y_t = sigmoid(z_o) tanh(norm(c_t) gain_c + b_c)
// normed[N,T,5H] and scales[N,T,5], in packed rows: the five norms and their 1 / sqrt(var + eps), for the backward pass.
void lstm_norm_forward(i64 N, i64 T, i64 I, i64 H, const float* x, const float* w, const float* u, const float* gain,
                       const float* b, const float* h0, const float* c0, const int64_t* lengths, float eps, int reverse,
                       float* work, float* y, float* hn, float* cn, float* gates, float* cells, float* normed,
                       float* scales, void* stream);
i64 lstm_norm_forward_workspace(i64 N, i64 T, i64 I, i64 H, i64 reverse);
void lstm_norm_backward(i64 N, i64 T, i64 I, i64 H, const float* x, const float* w, const float* u, const float* gain,
                        const float* b, const float* h0, const float* c0, const int64_t* lengths, const float* y,
                        const float* gates, const float* cells, const float* normed, const float* scales,
                        const float* dy, const float* dhn, const float* dcn, int reverse, float* work, float* dx,
                        float beta_dx, float* dw, float beta_dw, float* du, float beta_du, float* dgain,
                        float beta_dgain, float* db, float beta_db, float* dh0, float beta_dh0, float* dc0,
                        float beta_dc0, void* stream);
i64 lstm_norm_backward_workspace(i64 N, i64 T, i64 I, i64 H, i64 reverse);

// One step: x[N,I], h[N,H], c[N,H] -> y, c_new, and gates[N,4H] for the backward pass.
void lstm_cell_forward(i64 N, i64 I, i64 H, const float* x, const float* h, const float* c, const float* w,
                       const float* u, const float* b, float* y, float* c_new, float* gates, void* stream);
void lstm_cell_backward(i64 N, i64 I, i64 H, const float* x, const float* h, const float* c, const float* w,
                        const float* u, const float* gates, const float* c_new, const float* dy, const float* dc_new,
                        float* work, float* dx, float beta_dx, float* dh, float beta_dh, float* dc, float beta_dc,
                        float* dw, float beta_dw, float* du, float beta_du, float* db, float beta_db, void* stream);
i64 lstm_cell_backward_workspace(i64 N, i64 I, i64 H);

// GRU, reset gate after the product. With a = x_t w + b and s = h_{t-1} u, in three parts in the order r z n:
//   r = sigmoid(a_r + s_r)   z = sigmoid(a_z + s_z)   q = s_n + bn   n = tanh(a_n + r q)   h_t = (1 - z) n + z h_{t-1}
// b[3H], bn[H]. gates[N,T,4H]: r z n after their activations, and q.
void gru_forward(i64 N, i64 T, i64 I, i64 H, const float* x, const float* w, const float* u, const float* b,
                 const float* bn, const float* h0, const int64_t* lengths, int reverse, float* work, float* y,
                 float* hn, float* gates, void* stream);
i64 gru_forward_workspace(i64 N, i64 T, i64 I, i64 H, i64 reverse);
void gru_backward(i64 N, i64 T, i64 I, i64 H, const float* x, const float* w, const float* u, const float* h0,
                  const int64_t* lengths, const float* y, const float* gates, const float* dy, const float* dhn,
                  int reverse, float* work, float* dx, float beta_dx, float* dw, float beta_dw, float* du,
                  float beta_du, float* db, float beta_db, float* dbn, float beta_dbn, float* dh0, float beta_dh0,
                  void* stream);
i64 gru_backward_workspace(i64 N, i64 T, i64 I, i64 H, i64 reverse);
void gru_cell_forward(i64 N, i64 I, i64 H, const float* x, const float* h, const float* w, const float* u,
                      const float* b, const float* bn, float* work, float* y, float* gates, void* stream);
i64 gru_cell_forward_workspace(i64 N, i64 I, i64 H);
void gru_cell_backward(i64 N, i64 I, i64 H, const float* x, const float* h, const float* w, const float* u,
                       const float* gates, const float* dy, float* work, float* dx, float beta_dx, float* dh,
                       float beta_dh, float* dw, float beta_dw, float* du, float beta_du, float* db, float beta_db,
                       float* dbn, float beta_dbn, void* stream);
i64 gru_cell_backward_workspace(i64 N, i64 I, i64 H);

// Elman's network: h_t = y_t = act(x_t w + h_{t-1} u + b), act one of Elman. states[N,T,H]: y in packed rows.
void rnn_forward(i64 N, i64 T, i64 I, i64 H, const float* x, const float* w, const float* u, const float* b,
                 const float* h0, const int64_t* lengths, int act, int reverse, float* work, float* y, float* hn,
                 float* states, void* stream);
i64 rnn_forward_workspace(i64 N, i64 T, i64 I, i64 H, i64 act, i64 reverse);
void rnn_backward(i64 N, i64 T, i64 I, i64 H, const float* x, const float* w, const float* u, const float* h0,
                  const int64_t* lengths, const float* states, const float* dy, const float* dhn, int act, int reverse,
                  float* work, float* dx, float beta_dx, float* dw, float beta_dw, float* du, float beta_du, float* db,
                  float beta_db, float* dh0, float beta_dh0, void* stream);
i64 rnn_backward_workspace(i64 N, i64 T, i64 I, i64 H, i64 act, i64 reverse);
void rnn_cell_forward(i64 N, i64 I, i64 H, const float* x, const float* h, const float* w, const float* u,
                      const float* b, int act, float* y, void* stream);
void rnn_cell_backward(i64 N, i64 I, i64 H, const float* x, const float* h, const float* w, const float* u,
                       const float* y, const float* dy, int act, float* work, float* dx, float beta_dx, float* dh,
                       float beta_dh, float* dw, float beta_dw, float* du, float beta_du, float* db, float beta_db,
                       void* stream);
i64 rnn_cell_backward_workspace(i64 N, i64 I, i64 H, i64 act);

// ------------------------------------------------------------------------------------------------- randomness
// Philox4x32-10 (Salmon et al. 2011): element i uses word (offset + i) & 3 of block (offset + i) >> 2 under the key seed.

// The raw 32-bit words.
void random_words(i64 n, const StepState* step, uint32_t* y, void* stream);
// low + (high - low) * u with u = (word >> 8) 2^-24 in [0, 1).
void uniform(i64 n, float low, float high, const StepState* step, float* y, void* stream);
// mean + std * z by Box-Muller on the word pairs (0,1) and (2,3) of a block.
void normal(i64 n, float mean, float std, const StepState* step, float* y, void* stream);
// 1 where u < p, else 0; in place allowed.
void bernoulli(i64 n, const float* p, const StepState* step, float* y, void* stream);
// y = x / (1 - p) where u >= p, else 0: p is the chance of dropping. In place allowed.
void dropout_forward(i64 n, const float* x, float p, const StepState* step, float* y, void* stream);
// dx = dy through the same mask (drawn again, not stored), + beta dx.
void dropout_backward(i64 n, const float* dy, float p, const StepState* step, float* dx, float beta, void* stream);

// ------------------------------------------------------------------------------------------ Boltzmann machines
// N chains (or samples), V visible units v with biases b[V], H hidden units h with biases c[H], weights w[V,H]. Given the one
// layer, the other's units are independent, with inputs
//
//   a_j = g (c_j + sum_i v_i / s_i w_ij)                                of hidden unit j
//   z_i = g (b_i + sum_j w_ij h_j) + (1 - g) base_i                     of visible unit i
//
// s = variance[V] (null: 1) is that of Gaussian visible units; Gaussian hidden ones have variance 1. g = gain[n] (null: 1) is the
// chain's inverse temperature, base[V] (null: 0) the biases of what is left where it is 0. A softmax layer consists of groups
// of `group` neighbours. "Mean" is a unit's expected value.
//
// Draws: unit j of row n takes word j & 3 of block ceil(offset / 4) + n 2^38 + (j >> 2), a softmax group that of its first
// unit; normals come from word pairs as in `normal`. A layer uses ceil(width / 4) blocks, the next draw of a call begins after
// it: results are the same for any threads, batch (up to a row's number) and number of steps a call.
//
// A unit that is 0 adds nothing, whatever its weights (NaN and infinity included: they may not be read).

// Hidden units given visible ones. mean[N,H], sample[N,H] may be null.
void gibbs_sample_hidden(i64 N, i64 V, i64 H, const float* v, const float* w, const float* c, const float* gain,
                         const float* variance, int units, i64 group, const StepState* step, float* work, float* mean,
                         float* sample, void* stream);
i64 gibbs_sample_hidden_workspace(i64 N, i64 V, i64 H, i64 units, i64 group);
// Visible units given hidden ones. mean[N,V], sample[N,V] may be null.
void gibbs_sample_visible(i64 N, i64 V, i64 H, const float* h, const float* w, const float* b, const float* base,
                          const float* gain, const float* variance, int units, i64 group, const StepState* step,
                          float* mean, float* sample, void* stream);

// Chains: unless from_hidden, first h is drawn given v; then `steps` times v given h and h given v. Where fixed[N,V] is not 0, v
// stays. Then the statistics of the gradient, with m the mean of h given the last v: with d for `factor`,
//   dw = d (v / s)^T m,  db = d sum_n v / s,  dc = d sum_n m,  dq = d sum_n v^2 / s,  each + beta times itself; may be null.
void gibbs_chain(i64 N, i64 V, i64 H, const float* w, const float* b, const float* c, const float* gain,
                 const float* variance, const uint8_t* fixed, i64 steps, int from_hidden, int visible,
                 i64 visible_group, int hidden, i64 hidden_group, float factor, const StepState* step, float* work,
                 float* v, float* h, float* dw, float* db, float* dc, float* dq, float beta, void* stream);
i64 gibbs_chain_workspace(i64 N, i64 V, i64 H, i64 steps, i64 from_hidden, i64 visible, i64 visible_group, i64 hidden,
                          i64 hidden_group);

// F[N] = -log sum_h exp(-E(v, h)), with A the log partition function of a hidden unit alone:
//   F = -sum_i b_i v_i - sum_j A(a_j), for Gaussian visible units sum_i (v_i - b_i)^2 / (2 s_i) - sum_j A(a_j)
//   A(a) = log(1 + e^a); a^2 / 2; of noisy rectified units the integral of log(1 + e^x) up to a; of a group log sum e^a.
// The terms v log(1/v!) and the like of rectified visible units have no closed form and are left out.
void gibbs_free_energy(i64 N, i64 V, i64 H, const float* v, const float* w, const float* b, const float* c,
                       const float* variance, int visible, int hidden, i64 hidden_group, float* work, float* energy,
                       void* stream);
i64 gibbs_free_energy_workspace(i64 N, i64 V, i64 H, i64 visible, i64 hidden, i64 hidden_group);

// Annealed importance sampling along K inverse temperatures betas: p_k has gain betas[k] for all chains. For k = 1 .. K-1:
// log_ratio[n] += log p_k(v) - log p_{k-1}(v), not normalised; then h given v and v given h under betas[k].
void gibbs_anneal(i64 N, i64 V, i64 H, i64 K, const float* w, const float* b, const float* c, const float* base,
                  const float* variance, const float* betas, int visible, i64 visible_group, int hidden,
                  i64 hidden_group, const StepState* step, float* work, float* v, float* log_ratio, void* stream);
i64 gibbs_anneal_workspace(i64 N, i64 V, i64 H, i64 K, i64 visible, i64 visible_group, i64 hidden, i64 hidden_group);

// Parallel tempering: row t M + m is chain m at inverse temperature betas[t], M = N / T. With U = sum b v / s + sum c h +
// sum v / s w h, the states at t and t + 1, t = parity, parity + 2, ..., change places with probability
// min(1, exp((betas[t] - betas[t + 1]) (U_{t+1} - U_t))). accepted[N]: 1 in both rows of an exchange, else 0. Uniforms: word 0
// of the block that unit 0 of row t M + m would take.
void gibbs_swap(i64 N, i64 V, i64 H, i64 T, const float* w, const float* b, const float* c, const float* variance,
                const float* betas, i64 parity, const StepState* step, float* work, float* v, float* h, float* accepted,
                void* stream);
i64 gibbs_swap_workspace(i64 N, i64 V, i64 H, i64 T, i64 parity);

// ------------------------------------------------------------------------------------------------- optimisers
// One step over one flat vector w of n parameters with gradient g. The weight decay of sgd, rmsprop, adagrad and adam is L2
// (added to g); adam with decoupled = 1 is AdamW.

// v = momentum v + g;  w -= lr v (Nesterov: w -= lr (g + momentum v)). v may be null when momentum is 0.
void sgd(i64 n, const float* g, float momentum, int nesterov, float weight_decay, const StepState* step, float* w,
         float* v, void* stream);
// m = b1 m + (1-b1) g;  v = b2 v + (1-b2) g^2;  w -= lr (m / (1-b1^t)) / (sqrt(v / (1-b2^t)) + eps).
void adam(i64 n, const float* g, float beta1, float beta2, float eps, float weight_decay, int decoupled,
          const StepState* step, float* w, float* m, float* v, void* stream);
// v = rho v + (1-rho) g^2;  w -= lr g / (sqrt(v) + eps).
void rmsprop(i64 n, const float* g, float rho, float eps, float weight_decay, const StepState* step, float* w, float* v,
             void* stream);
// v += g^2;  w -= lr g / (sqrt(v) + eps).
void adagrad(i64 n, const float* g, float eps, float weight_decay, const StepState* step, float* w, float* v,
             void* stream);
// norm[0] = |g|; where it is above max_norm, g *= max_norm / |g|. A norm that is not finite leaves g as it is.
void clip_norm(i64 n, float max_norm, float* work, float* g, float* norm, void* stream);
i64 clip_norm_workspace(i64 n);

// ------------------------------------------------------------------------------------------------ augmentation

// y[n,p,q,c] = x[n] read at (row, column) = matrix[n] (p, q, 1) + field[n,p,q], bilinear; outside the image is `fill`.
// field[N,P,Q,2] may be null.
void warp(i64 N, i64 Y, i64 X, i64 C, i64 P, i64 Q, const float* x, const float* matrix, const float* field, float fill,
          float* y, void* stream);
// The same from bytes, times scale.
void warp_u8(i64 N, i64 Y, i64 X, i64 C, i64 P, i64 Q, const uint8_t* x, const float* matrix, const float* field,
             float fill, float scale, float* y, void* stream);
// Gaussian blur of each image, separable, radius ceil(3 sigma), edges mirrored.
void blur(i64 N, i64 Y, i64 X, i64 C, const float* x, float sigma, float* work, float* y, void* stream);
i64 blur_workspace(i64 N, i64 Y, i64 X, i64 C);

}  // namespace fastdl
