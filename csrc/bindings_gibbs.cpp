// The Python names and argument lines of the kernels of Boltzmann machines.
#include "border.h"
#include "kernels.h"

namespace fastdl {

#define LAYERS " visible:unit=bernoulli visible_group:i=1 hidden:unit=bernoulli hidden_group:i=1"
#define GROUPS " visible_group>=1, hidden_group>=1, V%visible_group=0, H%hidden_group=0"

void bind_gibbs(PyObject* m);

void bind_gibbs(PyObject* m) {
  def<gibbs_sample_hidden, gibbs_sample_hidden_workspace>(
      m, "gibbs_sample_hidden",
      "N V H; v[N,V] w[V,H] c[H] gain?[N] variance?[V] units:unit=bernoulli group:i=1 step(seed,offset=0) work*"
      " mean>??[N,H] sample>?[N,H]; group>=1, H%group=0",
      "Half a Gibbs step: hidden units given visible ones.\n\n    a = gain (c + (v / variance) w)\n\nmean: sigmoid(a), "
      "and"
      " its like for other units, if given; sample: drawn, unless it is None. units: bernoulli, gaussian (variance 1), "
      "relu (noisy), softmax (in "
      "groups of"
      " `group` neighbours). Row n draws from offset + n 2^40 on.");
  def<gibbs_sample_visible>(
      m, "gibbs_sample_visible",
      "N V H; h[N,H] w[V,H] b[V] base?[V] gain?[N] variance?[V] units:unit=bernoulli group:i=1 step(seed,offset=0)"
      " mean>??[N,V] sample>?[N,V]; group>=1, V%group=0",
      "Half a Gibbs step: visible units given hidden ones.\n\n    z = gain (b + h w^T) + (1 - gain) base\n\nvariance "
      "is that"
      " of gaussian units, whose mean is z.");
  def<gibbs_chain, gibbs_chain_workspace>(
      m, "gibbs_chain",
      "N V H; w[V,H] b[V] c[H] gain?[N] variance?[V] fixed?:u8[N,V] steps:i from_hidden:b=0" LAYERS
      " factor:f=1 step(seed,offset=0) work* v&[N,V] h&[N,H] dw>??[V,H] db>??[V] dc>??[H] dq>??[V] beta:f=0;"
      " steps>=0, steps<=1000000000," GROUPS,
      "Gibbs chains, and the statistics of the gradient.\n\nUnless from_hidden, h is drawn given v; then `steps` times "
      "v"
      " given h and h given v; where fixed is not 0, v stays. With m the mean of h given the last v:\n\n"
      "    dw = factor (v / variance)^T m + beta dw\n    db = factor sum_n v / variance + beta db\n"
      "    dc = factor sum_n m + beta dc\n    dq = factor sum_n v^2 / variance + beta dq\n\n"
      "Source: Hinton (2002), Tieleman (2008).");
  def<gibbs_free_energy, gibbs_free_energy_workspace>(
      m, "gibbs_free_energy",
      "N V H; v[N,V] w[V,H] b[V] c[H] variance?[V] visible:unit=bernoulli hidden:unit=bernoulli hidden_group:i=1 work*"
      " energy>[N]; hidden_group>=1, H%hidden_group=0",
      "Free energy: minus the logarithm of a visible state's probability, up to log Z.\n\n"
      "    F = -sum b v - sum A(c + (v / variance) w)\n\nA: log(1 + e^a), a^2/2, ..., by the kind of the hidden units; "
      "gaussian"
      " visible units have (v - b)^2 / (2 variance) for -b v.");
  def<gibbs_anneal, gibbs_anneal_workspace>(m, "gibbs_anneal",
                                            "N V H K; w[V,H] b[V] c[H] base?[V] variance?[V] betas[K]" LAYERS
                                            " step(seed,offset=0) work* v&[N,V] log_ratio>[N]; K>=1," GROUPS,
                                            "Annealed importance sampling along the inverse temperatures "
                                            "betas.\n\nlog_ratio: sum of log p_k(v) - log p_{k-1}(v),"
                                            " not normalised; after each, v makes a Gibbs step under p_k. Source: Neal "
                                            "(2001), Salakhutdinov & Murray (2008).");
  def<gibbs_swap, gibbs_swap_workspace>(
      m, "gibbs_swap",
      "N V H T; w[V,H] b[V] c[H] variance?[V] betas[T] parity:i=0 step(seed,offset=0) work* v&[N,V] h&[N,H]"
      " accepted>[N]; T>=1, N%T=0, parity>=0, parity<=1",
      "Exchanges of parallel tempering between neighbouring temperatures.\n\nRow t N/T + m is chain m at betas[t]. "
      "Source:"
      " Swendsen & Wang (1986), Desjardins et al. (2010).");
}

}  // namespace fastdl
