// The module _runtime: what belongs to the process and not to one target. Which targets may run on this CPU, the
// allocator under NumPy's arrays, and the tape.
#include <pybind11/pybind11.h>

#include "cpuid.h"
#include "pool.h"
#include "tape.h"

namespace py = pybind11;

PYBIND11_MODULE(FASTDL_MODULE, m) {
  using namespace fastdl;
  m.doc() = "Targets that this machine may run, the caching allocator and the tape; see fastdl.backend, fastdl.tensor.";
  if (add_tape(m.ptr()) != 0) throw py::error_already_set();
  m.def("runnable_targets", [] {
    py::list targets;
    for (Isa isa : {Isa::kAvx512, Isa::kAvx2, Isa::kBase})
      if (isa <= best_isa()) targets.append(isa_name(isa));
    return targets;
  });
  m.def("cpu_brand", &cpu_brand);
  m.def("pool_enter", [] {
    PyObject* before = enter();
    if (!before) throw py::error_already_set();
    return py::reinterpret_steal<py::object>(before);
  });
  m.def(
      "new_arena",
      [](size_t most) {
        PyObject* capsule = new_arena(most);
        if (!capsule) throw py::error_already_set();
        return py::reinterpret_steal<py::object>(capsule);
      },
      py::arg("most") = SIZE_MAX);
  m.def("arena_enter", [](const py::capsule& arena) {
    PyObject* before = enter_arena(arena.ptr());
    if (!before) throw py::error_already_set();
    return py::reinterpret_steal<py::object>(before);
  });
  m.def("arena_bytes", [](const py::capsule& arena) {
    const size_t bytes = arena_bytes(arena.ptr());
    if (PyErr_Occurred()) throw py::error_already_set();
    return bytes;
  });
  m.def("pool_leave", [](const py::object& previous) {
    if (leave(previous.ptr()) != 0) throw py::error_already_set();
  });
  m.def("pool_enabled", &pool_enabled);
  m.def("empty_cache", &empty_cache);
  m.def("set_pool_limit", &set_pool_limit, py::arg("bytes"));
  m.def("pool_statistics", [] {
    const PoolStatistics s = pool_statistics();
    py::dict d;
    d["bytes_in_use"] = s.bytes_in_use;
    d["bytes_cached"] = s.bytes_cached;
    d["limit_bytes"] = s.limit_bytes;
    d["hits"] = s.hits;
    d["misses"] = s.misses;
    return d;
  });
}
