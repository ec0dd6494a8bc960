// One Python module for each target; the build sets FASTDL_MODULE to its name and links that target's kernels.
#include <pybind11/pybind11.h>

#include "array.h"
#include "border.h"
#include "replay.h"
#include "threads.h"

namespace py = pybind11;

#if defined(FASTDL_BIND)  // a target of CUDA's kernels
namespace fastdl {
void FASTDL_BIND(py::module_& m);  // what this target has besides
void set_matmul_precision(int precision);
int matmul_precision();
int device_matmul_precision();
}  // namespace fastdl
#else
namespace fastdl {
double multiply_adds(int64_t pieces, int64_t rounds);  // cpu/peak.cpp
}
#endif

PYBIND11_MODULE(FASTDL_MODULE, m) {
  m.doc() = "The kernels of fastdl, compiled for one target; see fastdl.kernels.";
  fastdl::find_array_library();
  fastdl::bind_kernels(m.ptr());
#if defined(FASTDL_BIND)
  fastdl::FASTDL_BIND(m);
  m.def("set_matmul_precision", &fastdl::set_matmul_precision, py::arg("precision"),
        "How products multiply: 0 fp32, 1 tf32, 2 bf16; fastdl.set_matmul_precision takes words.");
  m.def("matmul_precision", &fastdl::matmul_precision);
  m.def("device_matmul_precision", &fastdl::device_matmul_precision,
        "What comes of it on the current device: 0 where that has no tensor cores for it.");
#else
  if (fastdl::add_replay(m.ptr()) != 0) throw py::error_already_set();
  m.def(
      "set_elsewhere", [](const py::object& hook) { fastdl::set_elsewhere(hook.ptr()); }, py::arg("hook"),
      "hook(name) gives the kernel for arrays of GPUs; calls with such arrays go there.");
  m.def(
      "multiply_adds", &fastdl::multiply_adds, py::arg("pieces"), py::arg("rounds"),
      "Multiply-adds in registers, on all threads; returns how many operations: to be timed, for the machine's peak.");
#endif
  m.def("set_num_threads", &fastdl::set_num_threads, py::arg("threads"));
  m.def("get_num_threads", &fastdl::get_num_threads);
  m.def("num_helpers", &fastdl::num_helpers, "Helper threads started so far.");
  m.def(
      "default_num_threads",
      [] {
        const char* source = nullptr;
        const int count = fastdl::default_num_threads(&source);
        if (count == 0) throw py::value_error(source);
        return py::make_tuple(count, source);
      },
      "The number of threads that holds at first, and where it came from.");
}
