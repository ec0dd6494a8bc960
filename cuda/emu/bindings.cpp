// The emulator's settings, for tests.
#include <pybind11/pybind11.h>

#include <string>

#include "cuda_runtime_api.h"
#include "emulator.h"
#include "gemm.cuh"

namespace py = pybind11;

namespace fastdl {
void bind_cuda(py::module_& m);  // array_cuda.cpp
namespace {

const char* const kOrders[] = {"forward", "reverse", "random"};
const char* const kCopies[] = {"late", "early", "random"};

int place_of(const char* name, const std::string& wanted, const char* const (&words)[3]) {
  for (int i = 0; i < 3; ++i)
    if (wanted == words[i]) return i;
  throw py::value_error(std::string(name) + ": expected " + words[0] + ", " + words[1] + " or " + words[2] + "; got " + wanted);
}

}  // namespace

void bind_emulator(py::module_& m) {
  m.def(
      "emulate",
      [](const std::string& order, const std::string& copies, uint64_t seed, int arch) {
        emu::Settings& s = emu::settings();
        const auto before = py::make_tuple(kOrders[static_cast<int>(s.order)], kCopies[static_cast<int>(s.copies)], s.seed, s.arch);
        s = {static_cast<emu::Order>(place_of("order", order, kOrders)),
             static_cast<emu::Copies>(place_of("copies", copies, kCopies)), seed, arch};
        return before;
      },
      py::arg("order") = "forward", py::arg("copies") = "late", py::arg("seed") = 0, py::arg("arch") = 86,
      "Choose the order of threads, when asynchronous copies land, and the device's architecture; returns what held before.");
  m.def("memory_is_on", [](uintptr_t begin, size_t bytes, int device) {
    emu::memory_is_on(reinterpret_cast<const void*>(begin), bytes, device);
  });
  m.def("take_waits", [] {
    py::list all;
    for (const auto& [who, whom] : emu::take_waits())
      all.append(py::make_tuple(reinterpret_cast<uintptr_t>(who), reinterpret_cast<uintptr_t>(whom)));
    return all;
  });
  m.def(
      "strided_product",
      [](i64 M, i64 N, i64 K, uintptr_t a, i64 lda, bool trans_a, uintptr_t b, i64 ldb, bool trans_b, uintptr_t c, i64 ldc) {
        const auto* x = reinterpret_cast<const float*>(a);
        const auto* y = reinterpret_cast<const float*>(b);
        const Product p = matrix(reinterpret_cast<float*>(c), M, N, K, ldc);
        const KMajor a_rows{x, lda}, b_columns{y, ldb};
        const MNMajor a_columns{x, lda}, b_rows{y, ldb};
        if (trans_a)
          trans_b ? gemm(p, a_columns, b_columns, BiasActivation{}, nullptr) : gemm(p, a_columns, b_rows, BiasActivation{}, nullptr);
        else
          trans_b ? gemm(p, a_rows, b_columns, BiasActivation{}, nullptr) : gemm(p, a_rows, b_rows, BiasActivation{}, nullptr);
        if (const char* error = take_error()) throw std::runtime_error(error);
      },
      "matmul of matrices by their addresses, with rows further apart than an array of that size would have them.");
  m.def("current_device", [] {
    int device = 0;
    cudaGetDevice(&device);
    return device;
  });
#if defined(FASTDL_EMU_CUDA_ARRAYS)
  bind_cuda(m);
#endif
}

}  // namespace fastdl
