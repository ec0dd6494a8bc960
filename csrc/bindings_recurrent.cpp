// Python names and argument lines of the recurrent kernels; csrc/border.h explains the lines, csrc/kernels.h the kernels.
#include "border.h"
#include "kernels.h"

namespace fastdl {

#define LENGTHS " lengths?:i64[N]{0..T+1}"
#define SEQUENCES                                                                                                     \
  "\n\nlengths: how many steps each sequence has (all T if None); y is 0 beyond. reverse: from the last step to the " \
  "first."
#define GRADIENTS "\n\nEach is new + beta times what its buffer holds; None: not wanted."

void bind_recurrent(PyObject* m) {
  def<lstm_forward, lstm_forward_workspace>(
      m, "lstm_forward",
      "N T I H; x[N,T,I] w[I,4*H] u[H,4*H] b?[4*H] h0?[N,H] c0?[N,H]" LENGTHS
      " p?[3,H] drop?[N,T,H] keep_h?[N,T,H] keep_c?[N,T,H] reverse:b=0 work* y>[N,T,H] hn>[N,H] cn>[N,H] "
      "gates>[N,T,4*H]"
      " cells>[N,T,H]",
      "Long short-term memory over whole sequences, gates in the order i f g o.\n\n    z = x_t w + h_{t-1} u + b\n"
      "    c_t = sigmoid(z_f) c_{t-1} + sigmoid(z_i) tanh(z_g)\n    y_t = h_t = sigmoid(z_o) tanh(c_t)" SEQUENCES
      " p: peepholes for i, f and o. drop: factor on tanh(z_g) (recurrent dropout); keep_h, keep_c: share of the old "
      "state"
      " that is kept (zoneout). hn, cn: states after each sequence's last step. gates and cells are for lstm_backward."
      " Source: Hochreiter & Schmidhuber (1997).");
  def<lstm_backward, lstm_backward_workspace>(
      m, "lstm_backward",
      "N T I H; x[N,T,I] w[I,4*H] u[H,4*H] h0?[N,H] c0?[N,H]" LENGTHS
      " p?[3,H] drop?[N,T,H] keep_h?[N,T,H] keep_c?[N,T,H] y[N,T,H] gates[N,T,4*H] cells[N,T,H] dy?[N,T,H] dhn?[N,H]"
      " dcn?[N,H] reverse:b=0 work* dx>?[N,T,I] beta_dx:f=0 dw>?[I,4*H] beta_dw:f=0 du>?[H,4*H] beta_du:f=0 db>?[4*H]"
      " beta_db:f=0 dp>?[3,H] beta_dp:f=0 dh0>?[N,H] beta_dh0:f=0 dc0>?[N,H] beta_dc0:f=0",
      "Gradients of lstm_forward." GRADIENTS);
  def<lstm_norm_forward, lstm_norm_forward_workspace>(
      m, "lstm_norm_forward",
      "N T I H; x[N,T,I] w[I,4*H] u[H,4*H] gain[5,H] b[5,H] h0?[N,H] c0?[N,H]" LENGTHS
      " eps:f=1e-5 reverse:b=0 work* y>[N,T,H] hn>[N,H] cn>[N,H] gates>[N,T,4*H] cells>[N,T,H] normed>[N,T,5*H]"
      " scales>[N,T,5]",
      "Long short-term memory with layer normalisation, gates in the order i f g o.\n\n"
      "    z_k = norm(x_t w_k + h_{t-1} u_k) gain_k + b_k\n"
      "    c_t = sigmoid(z_f) c_{t-1} + sigmoid(z_i) tanh(z_g)\n"
      "    y_t = h_t = sigmoid(z_o) tanh(norm(c_t) gain_c + b_c)" SEQUENCES
      " norm(v) = (v - mean) / sqrt(var + eps) over the units. The last four outputs are for lstm_norm_backward. "
      "Source: Ba,"
      " Kiros & Hinton (2016).");
  def<lstm_norm_backward, lstm_norm_backward_workspace>(
      m, "lstm_norm_backward",
      "N T I H; x[N,T,I] w[I,4*H] u[H,4*H] gain[5,H] b[5,H] h0?[N,H] c0?[N,H]" LENGTHS
      " y[N,T,H] gates[N,T,4*H] cells[N,T,H] normed[N,T,5*H] scales[N,T,5] dy?[N,T,H] dhn?[N,H] dcn?[N,H] reverse:b=0"
      " work* dx>?[N,T,I] beta_dx:f=0 dw>?[I,4*H] beta_dw:f=0 du>?[H,4*H] beta_du:f=0 dgain>?[5,H] beta_dgain:f=0"
      " db>?[5,H] beta_db:f=0 dh0>?[N,H] beta_dh0:f=0 dc0>?[N,H] beta_dc0:f=0",
      "Gradients of lstm_norm_forward." GRADIENTS);
  def<lstm_cell_forward>(
      m, "lstm_cell_forward", "N I H; x[N,I] h[N,H] c[N,H] w[I,4*H] u[H,4*H] b?[4*H] y>[N,H] c_new>[N,H] gates>[N,4*H]",
      "One step of lstm_forward: returns the new output, the new cell, and the gates for the backward"
      " pass.");
  def<lstm_cell_backward, lstm_cell_backward_workspace>(
      m, "lstm_cell_backward",
      "N I H; x[N,I] h[N,H] c[N,H] w[I,4*H] u[H,4*H] gates[N,4*H] c_new[N,H] dy?[N,H] dc_new?[N,H] work* dx>?[N,I]"
      " beta_dx:f=0 dh>?[N,H] beta_dh:f=0 dc>?[N,H] beta_dc:f=0 dw>?[I,4*H] beta_dw:f=0 du>?[H,4*H] beta_du:f=0"
      " db>?[4*H] beta_db:f=0",
      "Gradients of lstm_cell_forward." GRADIENTS);
  def<gru_forward, gru_forward_workspace>(
      m, "gru_forward",
      "N T I H; x[N,T,I] w[I,3*H] u[H,3*H] b?[3*H] bn?[H] h0?[N,H]" LENGTHS
      " reverse:b=0 work* y>[N,T,H] hn>[N,H] gates>[N,T,4*H]",
      "Gated recurrent units over whole sequences, gates in the order r z n, reset after the product.\n\n"
      "    a = x_t w + b,  s = h_{t-1} u\n    r = sigmoid(a_r + s_r),  z = sigmoid(a_z + s_z)\n"
      "    n = tanh(a_n + r (s_n + bn))\n    y_t = h_t = (1 - z) n + z h_{t-1}" SEQUENCES
      " hn: state after each sequence's last step. gates are for gru_backward. Source: Cho et al. (2014).");
  def<gru_backward, gru_backward_workspace>(
      m, "gru_backward",
      "N T I H; x[N,T,I] w[I,3*H] u[H,3*H] h0?[N,H]" LENGTHS
      " y[N,T,H] gates[N,T,4*H] dy?[N,T,H] dhn?[N,H] reverse:b=0 work* dx>?[N,T,I] beta_dx:f=0 dw>?[I,3*H] beta_dw:f=0"
      " du>?[H,3*H] beta_du:f=0 db>?[3*H] beta_db:f=0 dbn>?[H] beta_dbn:f=0 dh0>?[N,H] beta_dh0:f=0",
      "Gradients of gru_forward." GRADIENTS);
  def<gru_cell_forward, gru_cell_forward_workspace>(
      m, "gru_cell_forward", "N I H; x[N,I] h[N,H] w[I,3*H] u[H,3*H] b?[3*H] bn?[H] work* y>[N,H] gates>[N,4*H]",
      "One step of gru_forward: returns the new output, and the gates for the backward pass.");
  def<gru_cell_backward, gru_cell_backward_workspace>(
      m, "gru_cell_backward",
      "N I H; x[N,I] h[N,H] w[I,3*H] u[H,3*H] gates[N,4*H] dy[N,H] work* dx>?[N,I] beta_dx:f=0 dh>?[N,H] beta_dh:f=0"
      " dw>?[I,3*H] beta_dw:f=0 du>?[H,3*H] beta_du:f=0 db>?[3*H] beta_db:f=0 dbn>?[H] beta_dbn:f=0",
      "Gradients of gru_cell_forward." GRADIENTS);
  def<rnn_forward, rnn_forward_workspace>(
      m, "rnn_forward",
      "N T I H; x[N,T,I] w[I,H] u[H,H] b?[H] h0?[N,H]" LENGTHS
      " act:elman=tanh reverse:b=0 work* y>[N,T,H] hn>[N,H] states>[N,T,H]",
      "Elman's recurrent network over whole sequences.\n\n    y_t = h_t = act(x_t w + h_{t-1} u + b)" SEQUENCES
      " hn: state after each sequence's last step. states are for rnn_backward. Source: Elman (1990).");
  def<rnn_backward, rnn_backward_workspace>(m, "rnn_backward",
                                            "N T I H; x[N,T,I] w[I,H] u[H,H] h0?[N,H]" LENGTHS
                                            " states[N,T,H] dy?[N,T,H] dhn?[N,H] act:elman=tanh reverse:b=0 work* "
                                            "dx>?[N,T,I] beta_dx:f=0 dw>?[I,H] beta_dw:f=0"
                                            " du>?[H,H] beta_du:f=0 db>?[H] beta_db:f=0 dh0>?[N,H] beta_dh0:f=0",
                                            "Gradients of rnn_forward." GRADIENTS);
  def<rnn_cell_forward>(m, "rnn_cell_forward", "N I H; x[N,I] h[N,H] w[I,H] u[H,H] b?[H] act:elman=tanh y>[N,H]",
                        "One step of rnn_forward.");
  def<rnn_cell_backward, rnn_cell_backward_workspace>(
      m, "rnn_cell_backward",
      "N I H; x[N,I] h[N,H] w[I,H] u[H,H] y[N,H] dy[N,H] act:elman=tanh work* dx>?[N,I] beta_dx:f=0 dh>?[N,H]"
      " beta_dh:f=0 dw>?[I,H] beta_dw:f=0 du>?[H,H] beta_du:f=0 db>?[H] beta_db:f=0",
      "Gradients of rnn_cell_forward." GRADIENTS);
}

}  // namespace fastdl
