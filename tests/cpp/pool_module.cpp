// The pool and the thread pool's settings as a Python module, for tests/cpp/test_pool.py alone.
#include <pybind11/pybind11.h>

#include "pool.h"
#include "threads.h"

namespace py = pybind11;

PYBIND11_MODULE(pool_module, m) {
  m.def("handler", [] { return py::reinterpret_steal<py::object>(fastdl::pool_handler()); });
  m.def("enter", [] {
    PyObject* previous = fastdl::enter();
    if (!previous) throw py::error_already_set();
    return py::reinterpret_steal<py::object>(previous);
  });
  m.def("leave", [](py::object previous) {
    if (fastdl::leave(previous.ptr()) != 0) throw py::error_already_set();
  });
  m.def("statistics", [] {
    const fastdl::PoolStatistics s = fastdl::pool_statistics();
    py::dict d;
    d["bytes_in_use"] = s.bytes_in_use;
    d["bytes_cached"] = s.bytes_cached;
    d["limit_bytes"] = s.limit_bytes;
    d["hits"] = s.hits;
    d["misses"] = s.misses;
    return d;
  });
  m.def("empty_cache", &fastdl::empty_cache);
  m.def("set_pool_limit", &fastdl::set_pool_limit);
}
