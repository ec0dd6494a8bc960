// Trees and sequences without alignment: argument lines as in bindings.cpp.
#include "border.h"
#include "kernels.h"

namespace fastdl {

void bind_trees(PyObject* m) {
#define TREES(nodes) " children:i64[n,2]{0.." nodes "<ends} ends:i64[H]{0..n+1} v?[2*D,2*D,D] w[2*D,D]"
  def<rntn_forward, rntn_forward_workspace>(
      m, "rntn_forward", "L n H D; leaves[L,D]" TREES("L+n") " b?[D] work* h>[L+n,D]",
      "A batch of binary trees by a recursive neural tensor network, nodes of one height together.\n\n"
      "    h[leaf] = leaves\n    h[node] = tanh(x^T v x + x w + b),  x = (h[left], h[right])\n\n"
      "Inner nodes are sorted by height; children are rows of h, leaves first, a row the child of one node at most; "
      "ends says before which inner node each height ends. Without v it is a plain recursive network. "
      "Source: Socher et al. (2013).");
  def<rntn_backward, rntn_backward_workspace>(
      m, "rntn_backward",
      "M n H D; h[M,D]" TREES("M")
      " dh[M,D] work* dleaves>?[M-n,D] beta_dleaves:f=0 dv>?[2*D,2*D,D] beta_dv:f=0 dw>?[2*D,D] beta_dw:f=0 db>?[D]"
      " beta_db:f=0; M>=n",
      "Gradients of rntn_forward from the gradient dh at every node, + beta times what the buffers hold.");
#undef TREES
#define TREES(nodes) " children:i64[n,2]{0.." nodes "<ends} ends:i64[H]{0..n+1} w[2*D,5*D]"
  def<tree_lstm_forward, tree_lstm_forward_workspace>(
      m, "tree_lstm_forward",
      "L n H D; leaves[L,D] cells[L,D]" TREES("L+n") " b?[5*D] work* h>[L+n,D] c>[L+n,D] gates>[n,5*D]",
      "A batch of binary trees by a tree LSTM, nodes of one height together.\n\n"
      "    h[leaf], c[leaf] = leaves, cells\n    i l r g o = (h[left], h[right]) w + b\n"
      "    c[node] = sigmoid(i) tanh(g) + sigmoid(l) c[left] + sigmoid(r) c[right],  h[node] = sigmoid(o) "
      "tanh(c[node])\n\n"
      "Trees as in rntn_forward. gates are what the backward pass needs. Source: Tai, Socher & Manning (2015).");
  def<tree_lstm_backward, tree_lstm_backward_workspace>(
      m, "tree_lstm_backward",
      "M n H D; h[M,D] c[M,D] gates[n,5*D]" TREES("M")
      " dh[M,D] dc?[M,D] work* dleaves>?[M-n,D] beta_dleaves:f=0 dcells>?[M-n,D] beta_dcells:f=0 dw>?[2*D,5*D]"
      " beta_dw:f=0 db>?[5*D] beta_db:f=0; M>=n",
      "Gradients of tree_lstm_forward from the gradients dh, dc at every node, + beta times what the buffers hold.");
#undef TREES
#define CTC " labels:i64[N,S]{0..C!blank:label_lengths} lengths:i64[N]{0..T+1} label_lengths:i64[N]{0..S+1}"
  def<ctc_forward, ctc_forward_workspace>(
      m, "ctc_forward", "N T C S; x[N,T,C]" CTC " blank:i=0 work* loss>[N] logp>[N,T,C]; blank>=0, blank<C",
      "Connectionist temporal classification: loss of label sequences whose places in time are not known.\n\n"
      "    loss = -log sum over alignments of prod_t softmax(x_t)[class at t]\n\nIn nats, a value a sample; infinite "
      "where"
      " no alignment exists. Labels may not be blank. Source: Graves et al. (2006).");
  def<ctc_backward, ctc_backward_workspace>(
      m, "ctc_backward", "N T C S; logp[N,T,C]" CTC " dloss[N] blank:i=0 work* dx>[N,T,C] beta:f=0; blank>=0, blank<C",
      "Gradient of ctc_forward for its logits, from its logp, + beta dx; 0 where the loss is infinite.");
#undef CTC
}

}  // namespace fastdl
