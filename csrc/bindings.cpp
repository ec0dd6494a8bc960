// The Python name and the argument line of every kernel; csrc/border.h explains the lines, csrc/kernels.h the kernels.
#include "kernels.h"

#include "border.h"

namespace fastdl {

void bind_recurrent(PyObject* m);
void bind_trees(PyObject* m);  // bindings_trees.cpp
void bind_gibbs(PyObject* m);  // bindings_gibbs.cpp

namespace {

#define CONV_ATTRIBUTES " stride_y:i=1 stride_x:i=1 pad_y:i=0 pad_x:i=0 dilation_y:i=1 dilation_x:i=1 groups:i=1"
#define CONV_SIZES "N Y X C R S F P Q;"
#define CONV_RANGES                                                                                               \
  " stride_y>=1, stride_x>=1, pad_y>=0, pad_x>=0, dilation_y>=1, dilation_x>=1, groups>=1, stride_y<=2147483647," \
  " stride_x<=2147483647, pad_y<=2147483647, pad_x<=2147483647, dilation_y<=2147483647, dilation_x<=2147483647,"
#define CONV_OUTPUT                                                                            \
  ";" CONV_RANGES                                                                              \
  " Y+2*pad_y>=dilation_y*(R-1)+1, X+2*pad_x>=dilation_x*(S-1)+1,"                             \
  " P=(Y+2*pad_y-dilation_y*(R-1)-1)/stride_y+1, Q=(X+2*pad_x-dilation_x*(S-1)-1)/stride_x+1," \
  " C%groups=0, F%groups=0"
// Going back from P to Y the remainder of the stride is open: given, or out_pad more than the smallest.
#define CONV_INPUT                                                                             \
  ";" CONV_RANGES                                                                              \
  " out_pad_y>=0, out_pad_x>=0, out_pad_y<stride_y+dilation_y, out_pad_x<stride_x+dilation_x," \
  " P>=1, Q>=1,"                                                                               \
  " Y:=(P-1)*stride_y-2*pad_y+dilation_y*(R-1)+1+out_pad_y,"                                   \
  " X:=(Q-1)*stride_x-2*pad_x+dilation_x*(S-1)+1+out_pad_x,"                                   \
  " Y+2*pad_y>=dilation_y*(R-1)+1, X+2*pad_x>=dilation_x*(S-1)+1,"                             \
  " P=(Y+2*pad_y-dilation_y*(R-1)-1)/stride_y+1, Q=(X+2*pad_x-dilation_x*(S-1)-1)/stride_x+1," \
  " C%groups=0, F%groups=0"
#define POOL_ATTRIBUTES " size_y:i=2 size_x:i=2 stride_y:i=2 stride_x:i=2 pad_y:i=0 pad_x:i=0"
#define POOL_OUTPUT                                                                                              \
  "; size_y>=1, size_x>=1, stride_y<=2147483647, stride_x<=2147483647, size_y<=2147483647, size_x<=2147483647, " \
  "stride_y>=1, stride_x>=1, pad_y>=0, pad_x>=0, size_y>2*pad_y-1, size_x>2*pad_x-1,"                            \
  " Y+2*pad_y>=size_y, X+2*pad_x>=size_x, P=(Y+2*pad_y-size_y)/stride_y+1, Q=(X+2*pad_x-size_x)/stride_x+1"

void bind_products(PyObject* m) {
  def<matmul>(
      m, "matmul",
      "B M N K; a[B...,trans_a?K:M,trans_a?M:K] b[B...,trans_b?N:K,trans_b?K:N] trans_a:b=0 trans_b:b=0"
      " beta:f=0 c>[B...,M,N]",
      "Matrix product.\n\n    c = op(a) op(b) + beta c\n\nop transposes the last two axes where trans_a or trans_b"
      " says so; leading axes are a batch. beta needs a given c.");
  def<dense_forward>(m, "dense_forward",
                     "N I O; x[N...,I] w[I,O] b?[O] act:act=none slope:f=0.01 y>[N...,O] z>??[N...,O]; slope>=0",
                     "Dense layer.\n\n    y = act(x w + b)\n\nslope is leaky_relu's. z, if given, receives the"
                     " pre-activation, which gelu's backward pass needs.");
  def<dense_backward, dense_backward_workspace>(
      m, "dense_backward",
      "N I O; x[N...,I] w[I,O] saved[N...,O] dy[N...,O] act:act=none slope:f=0.01 work* dx>?[N...,I] beta_dx:f=0"
      " dw>?[I,O] beta_dw:f=0 db>?[O] beta_db:f=0; slope>=0",
      "Gradients of dense_forward.\n\n    dz = dy act'(saved)\n    dx = dz w^T + beta_dx dx\n    dw = x^T dz + beta_dw "
      "dw\n"
      "    db = sum_n dz + beta_db db\n\nsaved is the layer's output y; for gelu its z.");
}

void bind_convolution(PyObject* m) {
  def<conv2d_forward, conv2d_forward_workspace>(
      m, "conv2d_forward",
      CONV_SIZES " x[N,Y,X,C] w[R,S,C/groups,F] b?[F]" CONV_ATTRIBUTES
                 " act:act=none slope:f=0.01 work* y>[N,P,Q,F] z>??[N,P,Q,F]" CONV_OUTPUT ", slope>=0",
      "Two-dimensional convolution (a correlation, as everywhere in deep learning), channels last.\n\n"
      "    y[n,p,q,f] = act(b[f] + sum_{r,s,c} x[n, p*stride_y + r*dilation_y - pad_y, q*stride_x + s*dilation_x - "
      "pad_x,"
      " c] w[r,s,c,f])\n\nOutside the image x is 0. Source: LeCun et al. (1989).");
  def<conv2d_backward_data, conv2d_backward_data_workspace>(
      m, "conv2d_backward_data",
      CONV_SIZES " dy[N,P,Q,F] w[R,S,C/groups,F]" CONV_ATTRIBUTES
                 " work* dx>[N,Y,X,C] beta:f=0 out_pad_y:i=0! out_pad_x:i=0!" CONV_INPUT,
      "Gradient of conv2d_forward for its input, + beta dx. Where a stride leaves the image's size open, give dx, or"
      " out_pad_y and out_pad_x: how many rows and columns more than the smallest image.");
  def<conv2d_backward_weight, conv2d_backward_weight_workspace>(
      m, "conv2d_backward_weight",
      CONV_SIZES " x[N,Y,X,C] dy[N,P,Q,F]" CONV_ATTRIBUTES
                 " work* dw>?[R,S,C/groups,F] beta_dw:f=0 db>?[F] beta_db:f=0" CONV_OUTPUT,
      "Gradients of conv2d_forward for filters and bias, + beta times what they hold. dw must be given: it has the"
      " filter's size.");
  def<conv_transpose2d_forward, conv_transpose2d_forward_workspace>(
      m, "conv_transpose2d_forward",
      CONV_SIZES " x[N,P,Q,F] w[R,S,C/groups,F] b?[C]" CONV_ATTRIBUTES
                 " act:act=none slope:f=0.01 work* y>[N,Y,X,C] z>??[N,Y,X,C] out_pad_y:i=0! out_pad_x:i=0!" CONV_INPUT
                 ", slope>=0",
      "Transposed convolution: the data gradient of a convolution with these filters, as a layer with bias and"
      " activation.\n\nw[R,S,C/groups,F] has the output channels C before the input channels F.");
}

void bind_pooling(PyObject* m) {
  def<max_pool2d_forward>(m, "max_pool2d_forward",
                          "N Y X C P Q; x[N,Y,X,C]" POOL_ATTRIBUTES " y>[N,P,Q,C] where>??:u8[N,P,Q,C]" POOL_OUTPUT
                          ", size_y*size_x<=256",
                          "Maximum of each window. where, if given, receives the place of the maximum in its window "
                          "(row * size_x + column),"
                          " which the backward pass needs.");
  def<max_pool2d_backward>(m, "max_pool2d_backward",
                           "N Y X C P Q; where:u8[N,P,Q,C] dy[N,P,Q,C]" POOL_ATTRIBUTES
                           " dx>[N,Y,X,C] beta:f=0" POOL_OUTPUT ", size_y*size_x<=256",
                           "Gradient of max_pool2d_forward, + beta dx. dx must be given (it has the image's size).");
  def<avg_pool2d_forward>(m, "avg_pool2d_forward",
                          "N Y X C P Q; x[N,Y,X,C]" POOL_ATTRIBUTES " count_padding:b=1 y>[N,P,Q,C]" POOL_OUTPUT,
                          "Mean of each window; count_padding=False divides by the pixels inside the image only.");
  def<avg_pool2d_backward>(m, "avg_pool2d_backward",
                           "N Y X C P Q; dy[N,P,Q,C]" POOL_ATTRIBUTES
                           " count_padding:b=1 dx>[N,Y,X,C] beta:f=0" POOL_OUTPUT,
                           "Gradient of avg_pool2d_forward, + beta dx. dx must be given (it has the image's size).");
}

void bind_norms(PyObject* m) {
  def<batch_norm_forward, batch_norm_forward_workspace>(
      m, "batch_norm_forward",
      "n C; x[n...,C] gamma?[C] shift?[C] eps:f=1e-5 momentum:f=0.1 work* running_mean&?[C]"
      " running_var&?[C] y>[n...,C] mean>[C] rstd>[C]; eps>=0",
      "Batch normalisation while training: each channel over all its rows.\n\n"
      "    y = gamma (x - mean) rstd + shift,  rstd = 1 / sqrt(var + eps)\n\n"
      "running = (1 - momentum) running + momentum (mean | unbiased var). Source: Ioffe & Szegedy (2015).");
  def<batch_norm_inference>(m, "batch_norm_inference",
                            "n C; x[n...,C] gamma?[C] shift?[C] mean[C] var[C] eps:f=1e-5 y>[n...,C]; eps>=0",
                            "Batch normalisation with given mean and variance.");
  def<batch_norm_backward, batch_norm_backward_workspace>(
      m, "batch_norm_backward",
      "n C; x[n...,C] gamma?[C] mean[C] rstd[C] dy[n...,C] work* dx>?[n...,C] beta_dx:f=0"
      " dgamma>?[C] beta_dgamma:f=0 dshift>?[C] beta_dshift:f=0",
      "Gradients of batch_norm_forward, + beta times what the buffers hold.");
  def<layer_norm_forward>(
      m, "layer_norm_forward",
      "n C; x[n...,C] gamma?[C] shift?[C] eps:f=1e-5 y>[n...,C] mean>[n...] rstd>[n...]; eps>=0",
      "Layer normalisation: each row over its C values.\n\n    y = gamma (x - mean) rstd + shift\n\nSource: Ba, Kiros &"
      " Hinton (2016).");
  def<layer_norm_backward, layer_norm_backward_workspace>(
      m, "layer_norm_backward",
      "n C; x[n...,C] gamma?[C] mean[n...] rstd[n...] dy[n...,C] work* dx>?[n...,C] beta_dx:f=0"
      " dgamma>?[C] beta_dgamma:f=0 dshift>?[C] beta_dshift:f=0",
      "Gradients of layer_norm_forward, + beta times what the buffers hold.");
}

void bind_elementwise(PyObject* m) {
  def<activation_forward>(m, "activation_forward", "n; x[n...] act:act slope:f=0.01 y>~[n...]; slope>=0",
                          "y = act(x). In place allowed.");
  def<activation_backward>(m, "activation_backward",
                           "n; saved[n...] dy[n...] act:act slope:f=0.01 dx>~[n...] beta:f=0; slope>=0",
                           "dx = dy act'(saved) + beta dx; saved is the output y, for gelu the input. dx may be dy when"
                           " beta is 0.");
  def<unary_forward>(m, "unary_forward", "n; x[n...] op:unary y>~[n...]", "y = op(x). In place allowed.");
  def<unary_backward>(m, "unary_backward", "n; x[n...] dy[n...] op:unary dx>~[n...] beta:f=0",
                      "dx = dy op'(x) + beta dx. dx may be dy when beta is 0.");
  def<binary>(m, "binary", "L n; x[L,n] y[n] op:binary z>~[L,n]",
              "z = x op y, y repeated for every leading row of x. In place on x allowed.");
  def<axpby>(m, "axpby", "n; a:f x[n...] b:f y>[n...]", "y = a x + b y; with b = 0, y is not read.");
  def<reduce_forward, reduce_forward_workspace>(m, "reduce_forward", "A B C; x[A,B,C] op:reduce work* y>[A,C]",
                                                "Reduce the middle axis. The order of a sum is given by B alone.");
  def<reduce_backward>(
      m, "reduce_backward", "A B C; x[A,B,C] y[A,C] dy[A,C] op:reduce dx>[A,B,C] beta:f=0",
      "Gradient of reduce_forward, + beta dx; of max and min it goes to the first place that holds y.");
  def<argmax>(m, "argmax", "A B C; x[A,B,C] index>:i64[A,C]; B>=1",
              "Place of the first largest element along the middle axis; a NaN is largest.");
  def<sum_squares, sum_squares_workspace>(m, "sum_squares", "n; x[n...] work* y>[1]", "y = sum of x^2.");
  def<get_columns>(m, "get_columns", "L W n; x[L,W] at:i y>[L,n] beta:f=0; at>=0, at+n<=W",
                   "y = columns [at, at + n) of x, + beta y. y must be given (it says how many).");
  def<put_columns>(m, "put_columns", "L W n; x[L,n] at:i y&[L,W] beta:f=0; at>=0, at+n<=W",
                   "Write x into columns [at, at + n) of y, + beta times what they hold.");
}

void bind_losses(PyObject* m) {
  def<softmax_forward>(m, "softmax_forward", "n C; x[n...,C] log:b=0 y>~[n...,C]",
                       "Softmax of each row, or its logarithm. In place allowed.");
  def<softmax_backward>(m, "softmax_backward", "n C; y[n...,C] dy[n...,C] log:b=0 dx>~[n...,C] beta:f=0",
                        "Gradient of softmax_forward from its output, + beta dx.");
  def<softmax_cross_entropy_forward, softmax_cross_entropy_forward_workspace>(
      m, "softmax_cross_entropy_forward",
      "n C; x[n...,C] labels:i64[n...]{-1..C} weights?[n...] smoothing:f=0 reduction:reduction=mean work* loss>[1]"
      " rows>??[n...] p>??[n...,C]; smoothing>=0, smoothing<=1",
      "Cross entropy of softmax(x) against integer labels, in nats.\n\nLabel -1: not counted. With smoothing e the "
      "target is"
      " (1-e) one-hot + e/C. The mean over nothing is 0. rows, if given, receives each row's own loss; p the "
      "probabilities, which the backward pass"
      " needs.");
  def<softmax_cross_entropy_backward, softmax_cross_entropy_backward_workspace>(
      m, "softmax_cross_entropy_backward",
      "n C g; p[n...,C] labels:i64[n...]{-1..C} weights?[n...] dloss[g] smoothing:f=0 reduction:reduction=mean"
      " by_row:b=0 work* dx>[n...,C] beta:f=0; g=by_row?n:1",
      "Gradient of softmax_cross_entropy_forward, + beta dx. dloss is [1], or with by_row the gradient of each row's "
      "loss.");
  def<loss_forward, loss_forward_workspace>(
      m, "loss_forward",
      "n; x[n...] t[n...] weights?[n...] kind:loss delta:f=1 reduction:reduction=mean work* loss>[1]"
      " elements>??[n...]; delta>0",
      "Loss of a prediction x against a target t, element by element: binary_cross_entropy (x are logits),"
      " squared_error, absolute_error, huber, hinge (t in {-1, 1}). The mean over nothing is 0.");
  def<loss_backward, loss_backward_workspace>(
      m, "loss_backward",
      "n g; x[n...] t[n...] weights?[n...] dloss[g] kind:loss delta:f=1 reduction:reduction=mean"
      " by_element:b=0 work* dx>[n...] beta:f=0; delta>0, g=by_element?n:1",
      "Gradient of loss_forward for x, + beta dx. dloss is [1], or with by_element has an entry for each.");
}

void bind_embedding(PyObject* m) {
  def<embedding_forward>(m, "embedding_forward", "n L D; table[L,D] index:i64[n...]{0..L} y>[n...,D]",
                         "y = table[index].");
  def<embedding_backward, embedding_backward_workspace>(
      m, "embedding_backward", "n L D; index:i64[n...]{0..L} dy[n...,D] work* dtable>[L,D] beta:f=0",
      "Gradient of embedding_forward: each dy is added into its row, in order; + beta dtable. dtable"
      " must be given (it has the table's size).");
  def<gather_u8>(m, "gather_u8", "n L D; table:u8[L,D] index:i64[n...]{0..L} scale:f=1 y>[n...,D]",
                 "y = scale table[index], from bytes.");
}

void bind_random(PyObject* m) {
  def<random_words>(
      m, "random_words", "n; step(seed,offset=0) y>:u32[n...]",
      "Words of Philox4x32-10; element i is word (offset + i) & 3 of block (offset + i) >> 2. y must be given."
      " Source: Salmon, Moraes, Dror & Shaw (2011).");
  def<uniform>(m, "uniform", "n; low:f=0 high:f=1 step(seed,offset=0) y>[n...]",
               "low + (high - low) u with u uniform in [0, 1); rounding may give high itself. y must be given.");
  def<normal>(m, "normal", "n; mean:f=0 std:f=1 step(seed,offset=0) y>[n...]; std>=0",
              "Normal numbers by Box & Muller's method (1958). y must be given.");
  def<bernoulli>(m, "bernoulli", "n; p[n...] step(seed,offset=0) y>~[n...]", "1 with probability p, else 0.");
  def<dropout_forward>(
      m, "dropout_forward", "n; x[n...] p:f step(seed,offset=0) y>~[n...]; p>=0, p<1",
      "Drop each element with probability p and scale the rest by 1 / (1 - p). Source: Srivastava et al."
      " (2014).");
  def<dropout_backward>(m, "dropout_backward", "n; dy[n...] p:f step(seed,offset=0) dx>~[n...] beta:f=0; p>=0, p<1",
                        "dy through the mask that the same seed and offset drew forward, + beta dx.");
}

void bind_optimisers(PyObject* m) {
  def<sgd>(m, "sgd",
           "n; g[n...] momentum:f=0 nesterov:b=0 weight_decay:f=0 step(lr) w&[n...] v&?[n...]; momentum>=0, "
           "weight_decay>=0",
           "v = momentum v + g;  w -= lr v, or with nesterov lr (g + momentum v). weight_decay adds its multiple of w "
           "to g.");
  def<adam>(
      m, "adam",
      "n; g[n...] beta1:f=0.9 beta2:f=0.999 eps:f=1e-8 weight_decay:f=0 decoupled:b=0 step(lr,t) w&[n...] m&[n...]"
      " v&[n...]; beta1>=0, beta1<1, beta2>=0, beta2<1, eps>=0, weight_decay>=0",
      "Adam, or AdamW where decoupled; t counts updates from 1. Source: Kingma & Ba (2015), Loshchilov & Hutter "
      "(2019).");
  def<rmsprop>(m, "rmsprop",
               "n; g[n...] rho:f=0.9 eps:f=1e-8 weight_decay:f=0 step(lr) w&[n...] v&[n...]; rho>=0, rho<1, eps>=0, "
               "weight_decay>=0",
               "v = rho v + (1 - rho) g^2;  w -= lr g / (sqrt(v) + eps). Source: Tieleman & Hinton (2012).");
  def<adagrad>(m, "adagrad",
               "n; g[n...] eps:f=1e-10 weight_decay:f=0 step(lr) w&[n...] v&[n...]; eps>=0, weight_decay>=0",
               "v += g^2;  w -= lr g / (sqrt(v) + eps). Source: Duchi, Hazan & Singer (2011).");
  def<clip_norm, clip_norm_workspace>(
      m, "clip_norm", "n; max_norm:f work* g&[n...] norm>[1]; max_norm>0",
      "norm = |g|; where it is above max_norm, g is scaled down to it. A norm that is not finite leaves g as it is."
      " Source: Pascanu, Mikolov & Bengio (2013).");
}

void bind_augmentation(PyObject* m) {
  def<warp>(
      m, "warp",
      "N Y X C P Q; x[N,Y,X,C] matrix[N,6] field?[N,P,Q,2] fill:f=0 y>[N,P,Q,C]; P:=Y, Q:=X, Y<=16777216, X<=16777216",
      "Read each image at (row, column) = matrix (p, q, 1) + field, bilinear; outside it is fill.");
  def<warp_u8>(m, "warp_u8",
               "N Y X C P Q; x:u8[N,Y,X,C] matrix[N,6] field?[N,P,Q,2] fill:f=0 scale:f=1 y>[N,P,Q,C]; P:=Y, Q:=X, "
               "Y<=16777216, X<=16777216",
               "warp from bytes, times scale.");
  def<blur, blur_workspace>(m, "blur", "N Y X C; x[N,Y,X,C] sigma:f work* y>[N,Y,X,C]; sigma>0, sigma<=85",
                            "Gaussian blur of each image, edges mirrored.");
}

}  // namespace

void bind_kernels(PyObject* m) {
  bind_products(m);
  bind_convolution(m);
  bind_pooling(m);
  bind_norms(m);
  bind_elementwise(m);
  bind_losses(m);
  bind_embedding(m);
  bind_recurrent(m);
  bind_random(m);
  bind_optimisers(m);
  bind_augmentation(m);
  bind_trees(m);
  bind_gibbs(m);
}

}  // namespace fastdl
