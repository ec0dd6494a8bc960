// One Python module for each target; the build sets FASTDL_MODULE to its name and links that target's kernels.
#include <pybind11/pybind11.h>

#include "border.h"
#include "threads.h"

namespace py = pybind11;

#if defined(FASTDL_BIND)
namespace fastdl {
void FASTDL_BIND(py::module_& m);  // what this target has besides
}
#endif

PYBIND11_MODULE(FASTDL_MODULE, m) {
  m.doc() = "The kernels of fastdl, compiled for one target; see fastdl.kernels.";
  fastdl::bind_kernels(m);
#if defined(FASTDL_BIND)
  fastdl::FASTDL_BIND(m);
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
