// The generic binder: checks the arguments of a call against the kernel's parsed line, makes what was left out, and runs it.
// What a number may be stands in scalars.cpp, what an index may be in indices.cpp, what is said of the rest in refusals.cpp.
#include "border.h"

#include <pybind11/pybind11.h>

#include <cstring>
#include <deque>
#include <stdexcept>
#include <string>
#include <vector>

#include "indices.h"
#include "kernels.h"
#include "refusals.h"
#include "replay.h"
#include "scalars.h"
#include "spec.h"

namespace py = pybind11;

namespace fastdl {
namespace {

constexpr i64 kReleaseAbove = 1 << 16;  // product of the sizes from which on the GIL is let go: about 20 us of work

// Thrown where a host module meets an array of a GPU: another module has the kernel for it.
struct Elsewhere {};

py::object& elsewhere() {
  static py::object* hook = new py::object;  // never destroyed: the interpreter may be gone by then
  return *hook;
}

struct Inside {
  explicit Inside(Session* s) : session(s) { enter(s); }
  ~Inside() { leave(session); }
  Session* session;
};

class Call {
 public:
  explicit Call(const Spec& spec) : spec_(spec) { std::memset(values_, 0, sizeof(Value) * spec.names.size()); }
  ~Call() {
    if (gil_away_)
      return;  // the interpreter is gone and this thread is being ended: what was made goes with the process
    for (PyObject* made : made_) Py_XDECREF(made);
  }

  PyObject* run(PyObject* const* args, Py_ssize_t count, PyObject* keywords) {
    sort_arguments(args, count, keywords);
    scalars();
    for (size_t i = 0; i < spec_.args.size(); ++i)
      if (is_array(i) && given_[i]) take_array(i);
    conditions();
    for (size_t i = 0; i < spec_.args.size(); ++i)
      if (is_array(i) && !given_[i]) make_array(i);
    // Only now are all letters known that index bounds and unbound expressions of given arrays may use.
    for (size_t i = 0; i < spec_.args.size(); ++i)
      if (is_array(i) && arrays_[i].data) check_array(i);
    for (size_t i = 0; i < spec_.args.size(); ++i)
      if (!spec_.args[i].by.empty()) check_by(i);
    check_letters();
    take_scratch();
    check_overlap();
    {
      const Inside inside(&session_);
      fill_slots();
      execute();
    }
    if (Program* program = recording()) record(*program);
    return results();
  }

 private:
  bool is_array(size_t i) const { return spec_.args[i].kind <= Kind::in_out; }
  bool writes(size_t i) const { return spec_.args[i].kind >= Kind::output && spec_.args[i].kind <= Kind::work; }
  bool has_memory(size_t i) const { return spec_.args[i].kind <= Kind::work && arrays_[i].data; }

  void sort_arguments(PyObject* const* args, Py_ssize_t count, PyObject* keywords) {
    const size_t n = spec_.args.size();
    if (static_cast<size_t>(count) > n)
      fail(PyExc_TypeError, "%s: expected at most %zu arguments; got %zd", spec_.name.c_str(), n, count);
    for (size_t i = 0; i < n; ++i) given_[i] = i < static_cast<size_t>(count) ? args[i] : nullptr;
    const Py_ssize_t named = keywords ? PyTuple_GET_SIZE(keywords) : 0;
    for (Py_ssize_t k = 0; k < named; ++k) {
      PyObject* key = PyTuple_GET_ITEM(keywords, k);
      keyword(key, args[count + k]);
    }
  }

  // Out of line: inlined, its loops compete for registers with all the rest, which a small call notices.
  __attribute__((noinline)) void keyword(PyObject* key, PyObject* value) {
    const size_t n = spec_.args.size();
    size_t i = 0;
    while (i < n && spec_.args[i].key != key) ++i;
    if (i == n)
      for (i = 0; i < n && PyUnicode_Compare(spec_.args[i].key, key) != 0;) ++i;
    if (i < n) {
      if (given_[i]) fail(PyExc_TypeError, "%s: got %s twice", spec_.name.c_str(), spec_.args[i].name.c_str());
      given_[i] = value;
    } else if (PyUnicode_CompareWithASCIIString(key, "out") == 0) {
      take_out(value);
    } else if (PyUnicode_CompareWithASCIIString(key, "stream") == 0) {
      take_stream(value);
    } else {
      const char* word = PyUnicode_AsUTF8(key);
      fail(PyExc_TypeError, "%s: unexpected argument %s", spec_.name.c_str(), word ? word : "that is no text");
    }
  }

  __attribute__((noinline)) void take_stream(PyObject* value) {
    if (value == Py_None) return;
    if (!PyLong_Check(value))
      fail(PyExc_TypeError, "stream: expected an address, as an integer; got %s", Py_TYPE(value)->tp_name);
    session_.stream = PyLong_AsVoidPtr(value);
    session_.stream_given = true;
    if (PyErr_Occurred()) raise_error();
  }

  // out= stands for the outputs that the kernel returns: an array if there is one, else a tuple.
  void take_out(PyObject* value) {
    if (spec_.outputs == 0) fail(PyExc_TypeError, "%s: unexpected argument out", spec_.name.c_str());
    if (value == Py_None) return;
    const bool tuple = spec_.outputs > 1;
    if (tuple && (!PyTuple_Check(value) || PyTuple_GET_SIZE(value) != spec_.outputs))
      fail(PyExc_TypeError, "out: expected a tuple of %d arrays; got %s", spec_.outputs, Py_TYPE(value)->tp_name);
    Py_ssize_t k = 0;
    for (size_t i = 0; i < spec_.args.size(); ++i) {
      if (!returned(i)) continue;
      if (given_[i]) fail(PyExc_TypeError, "%s: got both %s and out", spec_.name.c_str(), spec_.args[i].name.c_str());
      given_[i] = tuple ? PyTuple_GET_ITEM(value, k++) : value;
    }
  }

  bool returned(size_t i) const {
    const Argument& a = spec_.args[i];
    return a.kind == Kind::output && !(a.optional && a.absent_if_left);
  }

  void scalars() {
    for (size_t i = 0; i < spec_.args.size(); ++i) {
      const Argument& a = spec_.args[i];
      if (a.kind < Kind::integer) continue;
      PyObject* o = given_[i];
      Slot& slot = scalars_[i];
      if (!o) {
        if (!a.has_default)
          fail(PyExc_TypeError, "%s: expected a value for %s; got none", spec_.name.c_str(), a.name.c_str());
        slot = a.initial;
      } else if (a.kind == Kind::real || a.field == 3) {
        slot.f = PyFloat_Check(o) ? PyFloat_AS_DOUBLE(o) : to_real(a, o);
      } else if (a.kind == Kind::choice) {
        slot.i = to_choice(a, o);
      } else if (a.kind == Kind::flag) {
        slot.i = to_flag(a, o);
      } else {
        slot.i = to_integer(a, o);
      }
      if (a.field == 2 && slot.i < 1)
        refuse(a, PyExc_ValueError, "an update's number from 1 on", std::to_string(slot.i));
      if (a.name_id >= 0) {
        const bool real = a.kind == Kind::real;
        values_[a.name_id] = {true, real, real ? 0 : slot.i, real ? slot.f : 0, &a};
      }
    }
  }

  void take_array(size_t i) {
    const Argument& a = spec_.args[i];
    Array& array = arrays_[i];
    if (given_[i] == Py_None) {
      if (!a.optional) refuse_missing(spec_, values_, a, "None");
      array = {};
      return;
    }
    const Refusal why = acquire(given_[i], a.dtype, writes(i), &array, &session_);
    if (why != Refusal::none) turn_away(a, given_[i], why);
    bind(a, array);
  }

  // To the module that may have a kernel for this object, or back to the caller with words.
  [[noreturn, gnu::cold]] void turn_away(const Argument& a, PyObject* object, Refusal why) {
    if (why == Refusal::not_an_array && elsewhere()) {
      // What says that it is no CUDA array just now (a tensor that wants its gradient recorded) knows better why.
      if (py::reinterpret_steal<py::object>(PyObject_GetAttrString(object, "__cuda_array_interface__")))
        throw Elsewhere{};
      if (!PyErr_ExceptionMatches(PyExc_AttributeError)) raise_error();
      PyErr_Clear();
    }
    refuse_array(a, object, why, session_);
  }

  // Binds the letters that this array shows first. Disagreement is found by check_array, when all letters are known.
  void bind(const Argument& a, const Array& array) {
    const int tail = static_cast<int>(a.dims.size()) - (a.prefix ? 1 : 0);
    const int lead = array.ndim - tail;
    if (a.prefix ? lead < 0 : lead != 0) refuse_axes(spec_, values_, a, array);
    size_t d = 0;
    if (a.prefix) {
      const int letter = a.dims[0].letter;
      if (letter >= 0 && !values_[letter].bound) {
        i64 product = 1;
        for (int k = 0; k < lead; ++k) product *= array.shape[k];
        values_[letter] = {true, false, product, 0, &a};
        prefix_[letter] = {lead, array.shape};
      }
      d = 1;
    }
    for (int k = lead; d < a.dims.size(); ++d, ++k) {
      i64 value = 0;
      const int letter = solve(a.dims[d], values_, array.shape[k], &value);
      if (letter >= 0 && !values_[letter].bound) values_[letter] = {true, false, value, 0, &a};
    }
  }

  void conditions() {
    for (const Condition& c : spec_.conditions) {
      i64 left = 0, right = 0;
      const bool equality = c.relation[0] == '=' || c.relation[0] == ':';
      if (c.subject >= 0 && values_[c.subject].real) {
        compare_real(c);
        continue;
      }
      const bool has_right = evaluate(c.right, values_, &right);
      if (equality && c.left.letter >= 0 && !values_[c.left.letter].bound) {
        if (has_right) {
          if (right < 0) refuse_solution(spec_, c, right);
          values_[c.left.letter] = {true, false, right, 0, nullptr};
        }
        continue;
      }
      if (c.relation[0] == ':' || !has_right || !evaluate(c.left, values_, &left)) continue;
      const bool holds = c.relation[0] == '='   ? left == right
                         : c.relation[0] == '>' ? (c.relation[1] ? left >= right : left > right)
                                                : (c.relation[1] ? left <= right : left < right);
      if (!holds) refuse_condition(spec_, values_, c, left, right);
    }
  }

  void compare_real(const Condition& c) {
    const double left = values_[c.subject].f;
    const double right = static_cast<double>(c.right.ops[0].constant);
    // Written so that NaN holds for nothing.
    const bool holds = c.relation[0] == '>' ? (c.relation[1] ? left >= right : left > right)
                                            : (c.relation[1] ? left <= right : left < right);
    if (!holds) refuse_number(*values_[c.subject].by, c, left);
  }

  // A factor says what to keep of an output; where the output is left out there is nothing to keep.
  void check_factor(const Argument& output) {
    for (size_t i = 0; i < spec_.args.size(); ++i) {
      const Argument& a = spec_.args[i];
      if (a.kind != Kind::real || scalars_[i].f == 0.0) continue;
      if (a.name != "beta" && a.name != "beta_" + output.name && !(spec_.name == "axpby" && a.name == "b")) continue;
      refuse(a, PyExc_ValueError, "0 where " + output.name + " is left out", py::str(py::float_(scalars_[i].f)));
    }
  }

  void make_array(size_t i) {
    const Argument& a = spec_.args[i];
    arrays_[i] = {};
    if (a.absent_if_left) return;
    if (a.kind != Kind::output) refuse_missing(spec_, values_, a, "none");
    check_factor(a);
    Py_ssize_t shape[kMaxDims + kMaxSlots];
    int n = 0;
    for (size_t d = 0; d < a.dims.size(); ++d) {
      if (d == 0 && a.prefix) {
        if (!values_[a.dims[0].letter].bound) refuse_unknown(spec_, values_, a, a.dims[0]);
        const Prefix& p = prefix_[a.dims[0].letter];
        for (int k = 0; k < p.count; ++k) shape[n++] = p.shape[k];
        continue;
      }
      i64 size = 0;
      if (!evaluate(a.dims[d], values_, &size)) refuse_unknown(spec_, values_, a, a.dims[d]);
      if (size < 0) refuse_negative(spec_, values_, a, a.dims[d], size);
      shape[n++] = size;
    }
    if (n > kMaxDims) refuse_many(a, n);
    given_[i] = create(a.dtype, n, shape, &session_);
    if (!given_[i]) raise_error();
    made_[i] = given_[i];
    acquire(given_[i], a.dtype, true, &arrays_[i], &session_);
  }

  void check_array(size_t i) {
    const Argument& a = spec_.args[i];
    const Array& array = arrays_[i];
    const int tail = static_cast<int>(a.dims.size()) - (a.prefix ? 1 : 0);
    const int lead = array.ndim - tail;
    size_t d = 0;
    bool right = true;
    if (a.prefix) {
      const int letter = a.dims[0].letter;
      const Prefix& p = prefix_[letter];
      if (values_[letter].by != &a) {
        right = p.count == lead;
        for (int k = 0; right && k < lead; ++k) right = p.shape[k] == array.shape[k];
      }
      d = 1;
    }
    for (int k = lead; d < a.dims.size(); ++d, ++k) {
      i64 size = 0;
      if (!evaluate(a.dims[d], values_, &size) || size != array.shape[k]) right = false;
    }
    if (!right) refuse_shape(spec_, values_, prefix_, a, array);
    if (a.bounded && !check_indices(a, values_, array)) raise_error();
  }

  void check_by(size_t i) {
    const Argument& a = spec_.args[i];
    size_t other = 0;
    while (spec_.args[other].name != a.by) ++other;
    if (!check_indices_by(a, values_, arrays_[i], arrays_[other])) raise_error();
  }

  void check_letters() {
    for (int k = 0; k < spec_.sizes; ++k)
      if (!values_[k].bound)
        fail(PyExc_TypeError, "%s: expected an array that gives size %s; got none", spec_.name.c_str(),
             spec_.names[k].c_str());
  }

  i64 bytes(size_t i) const {
    i64 n = dtype_bytes(spec_.args[i].dtype);
    for (int k = 0; k < arrays_[i].ndim; ++k) n *= arrays_[i].shape[k];
    return n;
  }

  void check_overlap() {
    const size_t n = spec_.args.size();
    for (size_t o = 0; o < n; ++o) {
      if (!writes(o) || !has_memory(o) || made_[o]) continue;
      const char* begin = static_cast<const char*>(arrays_[o].data);
      const i64 size = bytes(o);
      for (size_t i = 0; i < n; ++i) {
        if (i == o || !has_memory(i) || made_[i] || (writes(i) && i < o)) continue;
        const char* other = static_cast<const char*>(arrays_[i].data);
        const i64 other_size = bytes(i);
        if (size == 0 || other_size == 0 || begin + size <= other || other + other_size <= begin) continue;
        const bool same = begin == other && size == other_size;
        if (same && spec_.args[o].in_place && !writes(i)) continue;
        refuse(spec_.args[o], PyExc_ValueError, "an array that does not overlap " + spec_.args[i].name,
               same ? "the same memory" : "overlapping memory");
      }
    }
  }

  // The work that the sizes promise is long enough to let the GIL go.
  bool takes_long() const {
    i64 work = 1;
    for (int k = 0; k < spec_.sizes; ++k) {
      work *= values_[k].i;
      if (work > kReleaseAbove || work <= 0) break;
    }
    return work > kReleaseAbove;
  }

  __attribute__((noinline)) void record(Program& program) const {
    uint64_t pointers = 0;
    int slot = spec_.sizes, step_slot = -1;
    std::vector<IndexRange> ranges;
    std::vector<Written> written;
    for (size_t i = 0; i < spec_.args.size(); ++i) {
      const Argument& a = spec_.args[i];
      if (a.kind == Kind::step) {
        if (step_slot < 0) step_slot = slot++;
        continue;
      }
      if (a.border_only) continue;
      if (a.kind <= Kind::work && arrays_[i].data) {
        pointers |= uint64_t(1) << slot;
        if (!a.by.empty()) program.give_up();
        const char* const begin = static_cast<const char*>(arrays_[i].data);
        if (writes(i)) written.push_back({begin, begin + bytes(i)});
        if (a.bounded) {
          IndexRange range = {&a, slot, bytes(i) / dtype_bytes(a.dtype), 0, 0};
          evaluate(a.low, values_, &range.low);
          evaluate(a.high, values_, &range.high);
          ranges.push_back(range);
        }
      }
      ++slot;
    }
    program.add(spec_, slots_, pointers, step_slot, step_slot < 0 ? nullptr : &step_, ranges, written, takes_long());
  }

  void fill_slots() {
    Slot* s = slots_;
    for (int k = 0; k < spec_.sizes; ++k) (s++)->i = values_[k].i;
    bool step_done = false;
    for (size_t i = 0; i < spec_.args.size(); ++i) {
      const Argument& a = spec_.args[i];
      if (a.kind == Kind::step) {
        if (a.field == 0) step_.seed = static_cast<uint64_t>(scalars_[i].i);
        if (a.field == 1) step_.offset = static_cast<uint64_t>(scalars_[i].i);
        if (a.field == 2) step_.t = scalars_[i].i;
        if (a.field == 3) step_.lr = static_cast<float>(scalars_[i].f);
        if (!step_done) (s++)->p = &step_;
        step_done = true;
      } else if (a.kind <= Kind::work) {
        (s++)->p = arrays_[i].data;
      } else if (!a.border_only) {
        *s++ = scalars_[i];
      }
    }
    (s++)->p = session_.stream;
  }

  // The kernel's scratch is an array like the others: on their device, apart from them, and waited for.
  void take_scratch() {
    size_t at = 0;
    while (at < spec_.args.size() && spec_.args[at].kind != Kind::work) ++at;
    if (at == spec_.args.size()) return;
    const Argument& a = spec_.args[at];
    Array& array = arrays_[at];
    array = {};
    const i64 wanted = scratch_floats();
    if (given_[at] && given_[at] != Py_None) {
      const Refusal why = acquire(given_[at], DType::float32, true, &array, &session_);
      if (why != Refusal::none) turn_away(a, given_[at], why);
      const i64 size = bytes(at) / dtype_bytes(DType::float32);
      if (size < wanted)
        refuse(a, PyExc_ValueError, "at least " + std::to_string(wanted) + " floats", std::to_string(size));
    } else if (wanted > 0) {
      const Py_ssize_t shape[1] = {wanted};
      made_[at] = create(DType::float32, 1, shape, &session_);
      if (!made_[at]) raise_error();
      acquire(made_[at], DType::float32, true, &array, &session_);
    }
  }

  i64 scratch_floats() const {
    i64 sizes[kMaxSlots];
    int n = 0;
    for (int k = 0; k < spec_.sizes; ++k) sizes[n++] = values_[k].i;
    for (size_t i = 0; i < spec_.args.size(); ++i) {
      const Kind kind = spec_.args[i].kind;
      if ((kind == Kind::integer || kind == Kind::choice || kind == Kind::flag) && !spec_.args[i].border_only)
        sizes[n++] = scalars_[i].i;
    }
    return spec_.workspace(sizes);
  }

  void execute() {
    if (takes_long()) {
      // Not a guard object: if the interpreter ends meanwhile, taking the GIL back ends this thread (a daemon's) by unwinding
      // its stack, which no destructor of a guard would let through.
      PyThreadState* state = PyEval_SaveThread();
      gil_away_ = true;
      spec_.thunk(slots_);
      PyEval_RestoreThread(state);
      gil_away_ = false;
    } else {
      spec_.thunk(slots_);
    }
    if (const char* error = take_error()) fail(PyExc_RuntimeError, "%s: %s", spec_.name.c_str(), error);
  }

  PyObject* hand_over(size_t i) {
    if (!arrays_[i].data && !made_[i] && given_[i] != nullptr && given_[i] == Py_None) Py_RETURN_NONE;
    if (made_[i]) {
      PyObject* o = made_[i];
      made_[i] = nullptr;
      return o;
    }
    Py_INCREF(given_[i]);
    return given_[i];
  }

  PyObject* results() {
    if (spec_.outputs == 0) Py_RETURN_NONE;
    PyObject* all = spec_.outputs > 1 ? PyTuple_New(spec_.outputs) : nullptr;
    if (spec_.outputs > 1 && !all) raise_error();
    Py_ssize_t k = 0;
    for (size_t i = 0; i < spec_.args.size(); ++i) {
      if (!returned(i)) continue;
      PyObject* one = hand_over(i);
      if (!all) return one;
      PyTuple_SET_ITEM(all, k++, one);
    }
    return all;
  }

  const Spec& spec_;
  PyObject* given_[kMaxSlots];
  PyObject* made_[kMaxSlots] = {};
  Array arrays_[kMaxSlots];
  Slot scalars_[kMaxSlots];
  Slot slots_[kMaxSlots];
  Value values_[kMaxNames];
  Prefix prefix_[kMaxNames];
  StepState step_{};
  Session session_;
  bool gil_away_ = false;
};

PyObject* call_kernel(PyObject* self, PyObject* const* args, Py_ssize_t count, PyObject* keywords) {
  const auto* spec = static_cast<const Spec*>(PyCapsule_GetPointer(self, nullptr));
  try {
    return Call(*spec).run(args, count, keywords);
  } catch (const Elsewhere&) {
    if (Program* program = recording()) program->give_up();
    PyObject* kernel = PyObject_CallFunction(elsewhere().ptr(), "s", spec->name.c_str());
    if (!kernel) return nullptr;
    PyObject* result = PyObject_Vectorcall(kernel, args, static_cast<size_t>(count), keywords);
    Py_DECREF(kernel);
    return result;
  } catch (py::error_already_set& e) {
    e.restore();
  } catch (const std::overflow_error& e) {
    PyErr_SetString(PyExc_ValueError, e.what());
  } catch (const std::exception& e) {
    PyErr_SetString(PyExc_RuntimeError, e.what());
  }
  return nullptr;
}

}  // namespace

void raise_error() { throw py::error_already_set(); }

void set_elsewhere(PyObject* hook) { elsewhere() = py::reinterpret_borrow<py::object>(hook); }

namespace detail {

void define(PyObject* module, const char* name, const char* text, const char* doc, Thunk thunk, size_t parameters,
            WorkspaceThunk workspace, void* address, void* workspace_address) {
  static std::deque<Spec> specs;  // kernels live as long as the process; a deque keeps their addresses
  Spec& spec = specs.emplace_back();
  spec.name = name;
  spec.text = text;
  spec.thunk = thunk;
  spec.workspace = workspace;
  parse(spec);
  if (static_cast<size_t>(spec.slots) + 1 != parameters)
    throw std::logic_error(spec.name + ": " + std::to_string(spec.slots + 1) + " parameters in its argument line, " +
                           std::to_string(parameters) + " in kernels.h");
  spec.doc = document(spec, doc);
  spec.method = {spec.name.c_str(), reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(call_kernel)),
                 METH_FASTCALL | METH_KEYWORDS, spec.doc.c_str()};
  auto m = py::reinterpret_borrow<py::module_>(module);
  if (!py::hasattr(m, "SPECS")) {
    m.attr("SPECS") = py::dict();
    m.attr("ADDRESSES") = py::dict();
  }
  py::capsule self(&spec, static_cast<const char*>(nullptr));
  py::str module_name = m.attr("__name__");
  py::object function =
      py::reinterpret_steal<py::object>(PyCFunction_NewEx(&spec.method, self.ptr(), module_name.ptr()));
  if (!function) raise_error();
  m.add_object(name, function);
  m.attr("SPECS").cast<py::dict>()[name] = text;
  // For callers below Python: the functions themselves.
  py::dict addresses = m.attr("ADDRESSES");
  addresses[name] = py::capsule(address, "fastdl.kernel");
  if (workspace) addresses[py::str(spec.name + "_workspace")] = py::capsule(workspace_address, "fastdl.kernel");
}

}  // namespace detail
}  // namespace fastdl
