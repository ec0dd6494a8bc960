// The recurrent cells that host and device share, one unit of one sequence: what is done between two products. Written as
// formulas.h is: T = float or vec, the same bits on every target.
#pragma once
#include "formulas.h"

namespace fastdl {
namespace {

// LSTM. i f g o hold the pre-activations and then the gates; c and h the new cell and output.
template <class T>
struct LstmUnit {
  T i, f, g, o, c, h;
};
// What a cell may have besides: peepholes, a factor on the candidate (dropout), shares of the old state kept (zoneout).
template <class T>
struct LstmOptions {
  T peep_i, peep_f, peep_o, drop, keep_h, keep_c;
};
template <class T>
FASTDL_HD void lstm_unit(LstmUnit<T>& u, T c_before) {
  u.i = sigmoid(u.i);
  u.f = sigmoid(u.f);
  u.g = tanh(u.g);
  u.o = sigmoid(u.o);
  u.c = u.f * c_before + u.i * u.g;
  u.h = u.o * tanh(u.c);
}
template <class T>
FASTDL_HD void lstm_unit(LstmUnit<T>& u, T c_before, T h_before, const LstmOptions<T>& with) {
  u.i = sigmoid(u.i + with.peep_i * c_before);
  u.f = sigmoid(u.f + with.peep_f * c_before);
  u.g = tanh(u.g);
  const T fresh = u.f * c_before + u.i * (u.g * with.drop);
  u.o = sigmoid(u.o + with.peep_o * fresh);
  u.c = with.keep_c * c_before + (1.0f - with.keep_c) * fresh;
  u.h = with.keep_h * h_before + (1.0f - with.keep_h) * (u.o * tanh(fresh));
}
// From dh and dc to the gradients of the pre-activations (in u.i u.f u.g u.o) and of the cell before (in dc). u.c, u.h are
// not used by the first; `fresh` is the cell before zoneout.
template <class T>
FASTDL_HD void lstm_unit_backward(LstmUnit<T>& u, T c_before, T dh, T& dc) {
  const T t = tanh(u.c);
  const T d = dc + dh * u.o * tanh_slope(t);
  const T dg = d * u.i, di = d * u.g;
  dc = d * u.f;
  u.o = dh * t * sigmoid_slope(u.o);
  u.i = di * sigmoid_slope(u.i);
  u.f = d * c_before * sigmoid_slope(u.f);
  u.g = dg * tanh_slope(u.g);
}
// Also gives the share of dh that goes straight to the output before.
template <class T>
FASTDL_HD T lstm_unit_backward(LstmUnit<T>& u, T c_before, T dh, T& dc, const LstmOptions<T>& with) {
  const T t = tanh(u.f * c_before + u.i * (u.g * with.drop));
  const T through = dh * (1.0f - with.keep_h);
  const T dzo = through * t * sigmoid_slope(u.o);
  const T d = dc * (1.0f - with.keep_c) + through * u.o * tanh_slope(t) + dzo * with.peep_o;
  const T dg = d * u.i * with.drop, di = d * (u.g * with.drop);
  const T before = dc * with.keep_c + d * u.f;
  u.o = dzo;
  u.i = di * sigmoid_slope(u.i);
  u.f = d * c_before * sigmoid_slope(u.f);
  u.g = dg * tanh_slope(u.g);
  dc = before + u.i * with.peep_i + u.f * with.peep_f;
  return dh * with.keep_h;
}

// A cell whose output looks at another number q than the cell itself (layer normalisation): the cell from pre-activations, and
// back, where u.g, u.i, u.f, u.o are gates and become gradients; dc the cell's, becomes that of the cell before.
template <class T>
FASTDL_HD void lstm_cell_only(LstmUnit<T>& u, T c_before) {
  u.i = sigmoid(u.i);
  u.f = sigmoid(u.f);
  u.g = tanh(u.g);
  u.o = sigmoid(u.o);
  u.c = u.f * c_before + u.i * u.g;
}
template <class T>
FASTDL_HD void lstm_cell_only_backward(LstmUnit<T>& u, T c_before, T& dc) {
  const T d = dc, dg = d * u.i, di = d * u.g;
  dc = d * u.f;
  u.i = di * sigmoid_slope(u.i);
  u.f = d * c_before * sigmoid_slope(u.f);
  u.g = dg * tanh_slope(u.g);
}

// A node of a binary tree LSTM; l, r: what is kept of the cells of its children.
template <class T>
struct TreeLstmUnit {
  T i, l, r, g, o, c, h;
};
template <class T>
FASTDL_HD void tree_lstm_unit(TreeLstmUnit<T>& u, T c_left, T c_right) {
  u.i = sigmoid(u.i);
  u.l = sigmoid(u.l);
  u.r = sigmoid(u.r);
  u.g = tanh(u.g);
  u.o = sigmoid(u.o);
  u.c = (u.i * u.g + u.l * c_left) + u.r * c_right;
  u.h = u.o * tanh(u.c);
}
// From dh and dc to the gradients of the pre-activations (in u.i u.l u.r u.g u.o); dc becomes the whole gradient of u.c.
template <class T>
FASTDL_HD void tree_lstm_unit_backward(TreeLstmUnit<T>& u, T c_left, T c_right, T dh, T& dc) {
  const T t = tanh(u.c);
  const T d = dc + dh * u.o * tanh_slope(t), g = u.g;
  dc = d;
  u.o = dh * t * sigmoid_slope(u.o);
  u.g = d * u.i * tanh_slope(g);
  u.i = d * g * sigmoid_slope(u.i);
  u.l = d * c_left * sigmoid_slope(u.l);
  u.r = d * c_right * sigmoid_slope(u.r);
}

// GRU, reset after the product: r z n hold pre-activations (n the input's share alone) and then the gates, q the recurrent
// share of the candidate.
template <class T>
struct GruUnit {
  T r, z, n, q;
};
template <class T>
FASTDL_HD T gru_unit(GruUnit<T>& u, T h_before) {
  u.r = sigmoid(u.r);
  u.z = sigmoid(u.z);
  u.n = tanh(u.n + u.r * u.q);
  return (1.0f - u.z) * u.n + u.z * h_before;
}
// Gradients of the pre-activations into u (u.q: of the recurrent share); the result is what goes straight to h_before.
template <class T>
FASTDL_HD T gru_unit_backward(GruUnit<T>& u, T h_before, T dh) {
  const T z = u.z, r = u.r;
  const T dn = dh * (1.0f - z) * tanh_slope(u.n);
  u.z = dh * (h_before - u.n) * sigmoid_slope(z);
  u.r = dn * u.q * sigmoid_slope(r);
  u.n = dn;
  u.q = dn * r;
  return dh * z;
}

}  // namespace
}  // namespace fastdl
