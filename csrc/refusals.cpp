#include "refusals.h"

#include <cstdarg>
#include <cstdio>
#include <cstring>

namespace fastdl {
namespace {

std::string shape_words(const Array& array) {
  std::string s = "[";
  for (int i = 0; i < array.ndim; ++i) s += (i ? "," : "") + std::to_string(array.shape[i]);
  return s + "]";
}

std::string dims_words(const Spec& spec, const Value* values, const Argument& a) {
  std::string s = "[";
  for (size_t d = 0; d < a.dims.size(); ++d) {
    const int chosen = a.dims[d].letter < 0 ? plain_letter(a.dims[d], values) : -1;
    s += (d ? "," : "") + (chosen >= 0 ? spec.names[chosen] : a.dims[d].text);
    if (d == 0 && a.prefix) s += "...";
  }
  return s + "]";
}

}  // namespace

void fail(PyObject* type, const char* format, ...) {
  char text[1024];
  va_list args;
  va_start(args, format);
  vsnprintf(text, sizeof text, format, args);
  va_end(args);
  // What is quoted may be cut in the middle of a character.
  PyObject* words = PyUnicode_DecodeUTF8(text, static_cast<Py_ssize_t>(std::strlen(text)), "replace");
  if (words) PyErr_SetObject(type, words);
  Py_XDECREF(words);
  raise_error();
}

void refuse(const Argument& a, PyObject* type, const std::string& expected, const std::string& got) {
  fail(type, "%s: expected %s; got %s", a.name.c_str(), expected.c_str(), got.c_str());
}

void refuse_array(const Argument& a, PyObject* object, Refusal why, const Session& session) {
  char got[256];
  describe(object, why, session, got, sizeof got);
  const std::string name = dtype_name(a.dtype);
  switch (why) {
    case Refusal::not_an_array: refuse(a, PyExc_TypeError, std::string("a ") + array_kind() + " of " + name, got);
    case Refusal::dtype:
      refuse(a, PyExc_TypeError, name + " in native byte order",
             std::string(got) + " (" + a.name + ".astype(\"" + name + "\") makes one)");
    case Refusal::layout:
      refuse(a, PyExc_TypeError, "a C-contiguous array",
             std::string(got) + " (numpy.ascontiguousarray(" + a.name + ") makes one)");
    case Refusal::alignment:
      refuse(a, PyExc_TypeError, "an aligned array", std::string(got) + " (" + a.name + ".copy() makes one)");
    case Refusal::mask: refuse(a, PyExc_TypeError, "an array without a mask", got);
    case Refusal::host_memory: refuse(a, PyExc_TypeError, "memory of a GPU", got);
    case Refusal::device:
      refuse(a, PyExc_TypeError, "an array on GPU " + std::to_string(session.device) + ", as the others of this call",
             got);
    default: refuse(a, PyExc_ValueError, "a writeable array", got);
  }
}

void refuse_missing(const Spec& spec, const Value* values, const Argument& a, const char* got) {
  refuse(a, PyExc_TypeError, std::string("a ") + array_kind() + " " + dims_words(spec, values, a), got);
}

void refuse_axes(const Spec& spec, const Value* values, const Argument& a, const Array& array) {
  refuse(a, PyExc_ValueError, "shape " + dims_words(spec, values, a), shape_words(array));
}

void refuse_shape(const Spec& spec, const Value* values, const Prefix* prefixes, const Argument& a,
                  const Array& array) {
  std::string known;
  for (const Expr& dim : a.dims) {
    i64 size = 0;
    const int chosen = dim.letter < 0 ? plain_letter(dim, values) : -1;
    const bool known_size = evaluate(dim, values, &size);
    const Argument* by = dim.letter >= 0 ? values[dim.letter].by : chosen >= 0 ? values[chosen].by : nullptr;
    if (!known_size || by == &a || dim.ops[0].code == 'c') continue;
    if (&dim == &a.dims[0] && a.prefix) {
      const Prefix& p = prefixes[dim.letter];
      known += ", " + dim.text + "...=";
      for (int k = 0; k < p.count; ++k) known += (k ? "," : "") + std::to_string(p.shape[k]);
      if (by) known += " from " + by->name;
      continue;
    }
    known += ", " + (chosen >= 0 ? spec.names[chosen] : dim.text) + "=" + std::to_string(size);
    if (by) known += " from " + by->name;
  }
  refuse(a, PyExc_ValueError, "shape " + dims_words(spec, values, a) + known, shape_words(array));
}

void refuse_unknown(const Spec& spec, const Value* values, const Argument& a, const Expr& dim) {
  fail(PyExc_TypeError, "%s: expected an array %s, whose %s does not follow from the other arguments; got none",
       a.name.c_str(), dims_words(spec, values, a).c_str(), dim.text.c_str());
}

void refuse_negative(const Spec& spec, const Value* values, const Argument& a, const Expr& dim, i64 size) {
  refuse(a, PyExc_ValueError, "shape " + dims_words(spec, values, a), std::to_string(size) + " for " + dim.text);
}

void refuse_many(const Argument& a, int axes) {
  refuse(a, PyExc_ValueError, "at most " + std::to_string(kMaxDims) + " axes", std::to_string(axes));
}

void refuse_condition(const Spec& spec, const Value* values, const Condition& c, i64 left, i64 right) {
  const Value& v = values[c.subject];
  const std::string name = v.by ? v.by->name : spec.names[c.subject];
  std::string sizes;
  for (const Expr* e : {&c.left, &c.right})
    for (const Op& op : e->ops)
      if (op.code == 'n' && sizes.find(spec.names[op.name] + "=") == std::string::npos)
        sizes += (sizes.empty() ? "" : ", ") + spec.names[op.name] + "=" + std::to_string(values[op.name].i);
  const bool scalar = v.by && v.by->name_id >= 0 && c.left.letter >= 0;
  if (scalar)
    fail(PyExc_ValueError, "%s: expected %s; got %lld", name.c_str(), c.text.c_str(), static_cast<long long>(left));
  fail(PyExc_ValueError, "%s: expected %s, here %lld; got %lld (%s)", name.c_str(), c.text.c_str(),
       static_cast<long long>(right), static_cast<long long>(left), sizes.c_str());
}

void refuse_number(const Argument& a, const Condition& c, double value) {
  char got[64];
  std::snprintf(got, sizeof got, "%g", value);
  refuse(a, PyExc_ValueError, c.text, got);
}

void refuse_solution(const Spec& spec, const Condition& c, i64 value) {
  fail(PyExc_ValueError, "%s: expected a size of at least 0 from %s; got %lld", spec.names[c.subject].c_str(),
       c.text.c_str(), static_cast<long long>(value));
}

}  // namespace fastdl
