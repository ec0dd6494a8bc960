// The module _runtime: what belongs to the process and not to one target. Which targets may run on this CPU, the
// allocator under NumPy's arrays, and the tape. Without pybind11, which would be three quarters of it.
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <string>

#include "cpuid.h"
#include "pool.h"
#include "tape.h"

namespace fastdl {
namespace {

PyObject* runnable_targets(PyObject*, PyObject*) {
  PyObject* targets = PyList_New(0);
  for (Isa isa : {Isa::kAvx512, Isa::kAvx2, Isa::kBase}) {
    if (!targets || isa > best_isa()) continue;
    PyObject* name = PyUnicode_FromString(isa_name(isa));
    if (!name || PyList_Append(targets, name) < 0) Py_CLEAR(targets);
    Py_XDECREF(name);
  }
  return targets;
}

PyObject* brand(PyObject*, PyObject*) {
  try {
    return PyUnicode_FromString(cpu_brand().c_str());
  } catch (const std::bad_alloc&) {
    return PyErr_NoMemory();
  }
}

PyObject* pool_enter(PyObject*, PyObject*) { return enter(); }

PyObject* pool_leave(PyObject*, PyObject* previous) {
  if (leave(previous) != 0) return nullptr;
  Py_RETURN_NONE;
}

PyObject* make_arena(PyObject*, PyObject* const* args, Py_ssize_t count) {
  if (count > 1) return PyErr_Format(PyExc_TypeError, "new_arena: expected at most a number of bytes");
  const size_t most = count == 1 ? PyLong_AsSize_t(args[0]) : SIZE_MAX;
  return count == 1 && PyErr_Occurred() ? nullptr : new_arena(most);
}

PyObject* arena_enter(PyObject*, PyObject* arena) {
  if (!PyCapsule_CheckExact(arena))
    return PyErr_Format(PyExc_TypeError, "arena: expected one of new_arena's; got %s", Py_TYPE(arena)->tp_name);
  return enter_arena(arena);
}

PyObject* bytes_of_arena(PyObject*, PyObject* arena) {
  const size_t bytes = arena_bytes(arena);
  return PyErr_Occurred() ? nullptr : PyLong_FromSize_t(bytes);
}

PyObject* enabled(PyObject*, PyObject*) { return PyBool_FromLong(pool_enabled()); }

PyObject* give_back(PyObject*, PyObject*) {
  empty_cache();
  Py_RETURN_NONE;
}

PyObject* set_limit(PyObject*, PyObject* bytes) {
  const size_t limit = PyLong_AsSize_t(bytes);
  if (PyErr_Occurred()) return nullptr;
  set_pool_limit(limit);
  Py_RETURN_NONE;
}

PyObject* statistics(PyObject*, PyObject*) {
  const PoolStatistics s = pool_statistics();
  return Py_BuildValue("{s:n,s:n,s:n,s:K,s:K}", "bytes_in_use", Py_ssize_t(s.bytes_in_use), "bytes_cached",
                       Py_ssize_t(s.bytes_cached), "limit_bytes", Py_ssize_t(s.limit_bytes), "hits",
                       static_cast<unsigned long long>(s.hits), "misses", static_cast<unsigned long long>(s.misses));
}

PyMethodDef functions[] = {
    {"runnable_targets", runnable_targets, METH_NOARGS, "Names of the targets that this machine may run, best first."},
    {"cpu_brand", brand, METH_NOARGS, "The CPU's name as its maker gives it; empty where the system does not tell."},
    {"pool_enter", pool_enter, METH_NOARGS, "Put the pool under NumPy's arrays; gives what pool_leave wants."},
    {"pool_leave", pool_leave, METH_O, "Put back what was under NumPy's arrays."},
    {"new_arena", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(make_arena)), METH_FASTCALL,
     "new_arena(most)\n--\n\nAn arena; csrc/pool.h."},
    {"arena_enter", arena_enter, METH_O, "As pool_enter, for an arena."},
    {"arena_bytes", bytes_of_arena, METH_O, "Bytes that an arena has taken."},
    {"pool_enabled", enabled, METH_NOARGS, "False if FASTDL_POOL=0."},
    {"empty_cache", give_back, METH_NOARGS, "Give kept blocks back to the system."},
    {"set_pool_limit", set_limit, METH_O, "The most bytes of free blocks that are kept."},
    {"pool_statistics", statistics, METH_NOARGS, "Bytes in use, cached and allowed; hits and misses."},
    {nullptr, nullptr, 0, nullptr},
};

PyModuleDef definition = {PyModuleDef_HEAD_INIT,
                          "_runtime",
                          "Targets that this machine may run, the caching allocator and the tape; see fastdl.backend, "
                          "fastdl.tensor.",
                          -1,
                          functions,
                          nullptr,
                          nullptr,
                          nullptr,
                          nullptr};

}  // namespace
}  // namespace fastdl

PyMODINIT_FUNC PyInit__runtime() {
  PyObject* module = PyModule_Create(&fastdl::definition);
  if (module && fastdl::add_tape(module) != 0) Py_CLEAR(module);
  return module;
}
