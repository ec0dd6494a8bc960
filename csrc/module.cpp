// One Python module for each target; the build sets FASTDL_MODULE to its name and links that target's kernels.
#include <pybind11/pybind11.h>

#include "border.h"

PYBIND11_MODULE(FASTDL_MODULE, m) {
  m.doc() = "The kernels of fastdl, compiled for one target; see fastdl.kernels.";
  fastdl::bind_kernels(m);
}
