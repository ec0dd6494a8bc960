#include "scalars.h"

#include <cstring>
#include <memory>

#include "refusals.h"

namespace fastdl {
namespace {

struct Release {
  void operator()(PyObject* o) const { Py_DECREF(o); }
};
using Owned = std::unique_ptr<PyObject, Release>;

// After a failed conversion: only that the object is of the wrong kind is ours to word. A KeyboardInterrupt, say, goes on.
[[noreturn, gnu::cold]] void refuse_kind(const Argument& a, PyObject* o, const char* expected) {
  if (!PyErr_ExceptionMatches(PyExc_TypeError)) raise_error();
  PyErr_Clear();
  refuse(a, PyExc_TypeError, expected, Py_TYPE(o)->tp_name);
}

// What came is of the right kind; `text` is its str() or repr().
[[noreturn, gnu::cold]] void refuse_value(const Argument& a, const std::string& expected, const Owned& text) {
  const char* got = text ? PyUnicode_AsUTF8(text.get()) : nullptr;
  if (!got) raise_error();
  refuse(a, PyExc_ValueError, expected, got);
}

}  // namespace

double to_real(const Argument& a, PyObject* o) {
  const double value = PyFloat_AsDouble(o);
  if (value == -1 && PyErr_Occurred()) {
    if (PyErr_ExceptionMatches(PyExc_OverflowError)) {
      PyErr_Clear();
      refuse(a, PyExc_ValueError, "a number that a float can hold", "a larger one");
    }
    refuse_kind(a, o, "a number");
  }
  return value;
}

i64 to_integer(const Argument& a, PyObject* o, const char* expected) {
  const Owned index(PyNumber_Index(o));
  if (!index) refuse_kind(a, o, expected);
  int overflow = 0;
  i64 value = PyLong_AsLongLongAndOverflow(index.get(), &overflow);
  if (a.field == 0 || a.field == 1) {  // seeds and offsets are 64 bits without sign
    bool right = value >= 0;
    if (overflow > 0) {
      value = static_cast<i64>(PyLong_AsUnsignedLongLong(index.get()));
      right = !PyErr_Occurred();
      PyErr_Clear();
    }
    if (!right || overflow < 0) refuse_value(a, "an integer from 0 to 2**64 - 1", Owned(PyObject_Str(index.get())));
    return value;
  }
  if (overflow) refuse_value(a, "a 64-bit integer", Owned(PyObject_Str(index.get())));
  return value;
}

i64 to_flag(const Argument& a, PyObject* o) {
  if (o == Py_True || o == Py_False) return o == Py_True;
  if (std::strcmp(Py_TYPE(o)->tp_name, "numpy.bool") == 0) return PyObject_IsTrue(o);
  const i64 value = to_integer(a, o, "True or False");
  if (value != 0 && value != 1) refuse(a, PyExc_ValueError, "True or False", std::to_string(value));
  return value;
}

i64 to_choice(const Argument& a, PyObject* o) {
  const auto& names = a.choices->names;
  if (PyUnicode_Check(o)) {
    for (size_t i = 0; i < names.size(); ++i)
      if (PyUnicode_CompareWithASCIIString(o, names[i]) == 0) return static_cast<i64>(i);
  } else if (PyLong_Check(o)) {
    const i64 value = PyLong_AsLongLong(o);
    if (value >= 0 && value < static_cast<i64>(names.size())) return value;
  }
  PyErr_Clear();
  std::string all;
  for (const char* name : names) all += std::string(all.empty() ? "" : ", ") + name;
  refuse_value(a, "one of " + all, Owned(PyObject_Repr(o)));
}

}  // namespace fastdl
