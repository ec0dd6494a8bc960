#include "replay.h"

#include <cstring>
#include <memory>
#include <new>

#include "indices.h"
#include "threads.h"

namespace fastdl {
namespace {

thread_local Program* current = nullptr;

constexpr int kMostInputs = 8;
constexpr DType kInputTypes[] = {DType::float32, DType::int64, DType::uint8};

}  // namespace

Program* recording() { return current; }

void Program::add(const Spec& spec, const Slot* slots, uint64_t pointers, int step_slot, const StepState* step,
                  const std::vector<IndexRange>& ranges, const std::vector<Written>& written, bool takes_long) {
  const size_t first = slots_.size();
  calls_.push_back({&spec, first, step_slot, pointers, step ? step->offset : 0, steps_.size()});
  slots_.insert(slots_.end(), slots, slots + spec.slots + 1);
  if (step) steps_.push_back(*step);
  for (IndexRange range : ranges) {
    range.slot += static_cast<int>(first);
    ranges_.push_back(range);
  }
  written_.insert(written_.end(), written.begin(), written.end());
  takes_long_ = takes_long_ || takes_long;
}

bool Program::draws_from(uint64_t seed, uint64_t start, uint64_t used) const {
  for (const Recorded& call : calls_) {
    if (call.step_slot < 0) continue;
    const StepState& step = steps_[call.step];
    if (step.seed != seed || step.offset - start > used) return false;
  }
  return true;
}

bool Program::overwritten(const void* data, i64 bytes) const {
  const char* begin = static_cast<const char*>(data);
  for (const Written& w : written_)
    if (w.begin < begin + bytes && begin < w.end) return true;
  return false;
}

bool Program::describe(PyObject* object, Input* input) {
  Session session;
  Array array;
  for (DType dtype : kInputTypes) {
    if (acquire(object, dtype, false, &array, &session) != Refusal::none) continue;
    input->dtype = dtype;
    input->shape.assign(array.shape, array.shape + array.ndim);
    input->data = array.data;
    input->bytes = dtype_bytes(dtype);
    for (Py_ssize_t n : input->shape) input->bytes *= n;
    return true;
  }
  return false;
}

bool Program::finish(PyObject* inputs, PyObject* result, bool copied) {
  if (!whole_ || calls_.empty()) return false;
  if (!describe(result, &result_) || result_.dtype != DType::float32) return false;
  copied_ = copied;
  if (copied) {  // one call must have written all of it: it may be an input, or have been there before
    const char* const begin = static_cast<const char*>(result_.data);
    bool made = false;
    for (const Written& w : written_) made = made || (w.begin <= begin && begin + result_.bytes <= w.end);
    if (!made) return false;
    for (const Recorded& call : calls_)
      if (call.step_slot >= 0) return false;  // random numbers: there is no stream whose place would be moved on
  }
  for (Py_ssize_t k = 0; k < PyTuple_GET_SIZE(inputs); ++k) {
    Input input{};
    if (!describe(PyTuple_GET_ITEM(inputs, k), &input)) return false;
    const char* begin = static_cast<const char*>(input.data);
    const i64 bytes = input.bytes;
    for (const Input& other : inputs_) {
      const char* at = static_cast<const char*>(other.data);
      if (at < begin + bytes && begin < at + other.bytes) return false;  // whose the pointers are would be a guess
    }
    if (overwritten(begin, bytes)) return false;
    for (const Recorded& call : calls_)
      for (int i = 0; i < call.spec->slots; ++i) {
        if (!(call.pointers >> i & 1)) continue;
        const char* p = static_cast<const char*>(slots_[call.first + static_cast<size_t>(i)].p);
        if (p >= begin && p < begin + bytes) input.uses.push_back({call.first + static_cast<size_t>(i), p - begin});
      }
    inputs_.push_back(std::move(input));
  }
  for (const IndexRange& range : ranges_)  // those made on the way are not there yet when a replay looks at them
    if (overwritten(slots_[static_cast<size_t>(range.slot)].p, range.count * dtype_bytes(DType::int64))) return false;
  written_ = {};
  for (const Recorded& call : calls_)  // now that they stay where they are
    if (call.step_slot >= 0) slots_[call.first + static_cast<size_t>(call.step_slot)].p = &steps_[call.step];
  return true;
}

bool Program::same(PyObject* object, const Input& input, bool writable, const void** data) {
  Session session;
  Array array;
  if (acquire(object, input.dtype, writable, &array, &session) != Refusal::none) return false;
  if (static_cast<size_t>(array.ndim) != input.shape.size()) return false;
  for (int k = 0; k < array.ndim; ++k)
    if (array.shape[k] != input.shape[static_cast<size_t>(k)]) return false;
  *data = array.data;
  return true;
}

void Program::put(Input& input, const void* data) {
  if (data == input.data) return;
  for (const Use& use : input.uses) slots_[use.slot].p = static_cast<char*>(const_cast<void*>(data)) + use.bytes;
  input.data = data;
}

bool Program::check_indices() const {
  for (const IndexRange& range : ranges_) {
    const auto* p = static_cast<const int64_t*>(slots_[static_cast<size_t>(range.slot)].p);
    if (!check_range(*range.argument, p, range.count, range.low, range.high)) return false;
  }
  return true;
}

void Program::execute() const {
  for (const Recorded& call : calls_) call.spec->thunk(&slots_[call.first]);
}

PyObject* Program::run(PyObject* const* args, Py_ssize_t count) {
  const Py_ssize_t inputs = static_cast<Py_ssize_t>(inputs_.size()), arrays = inputs + copied_;
  if (count != arrays + 1)
    return PyErr_Format(PyExc_TypeError, "expected %zd arrays and an offset; got %zd arguments", arrays, count);
  if (current) current->give_up();  // a recording inside which a program runs
  if (running_ || get_num_threads() != threads_)
    Py_RETURN_NONE;  // another thread runs it, or scratch is of another size
  const void* data[kMostInputs];
  for (Py_ssize_t k = 0; k < inputs; ++k)
    if (!same(args[k], inputs_[static_cast<size_t>(k)], false, &data[k])) Py_RETURN_NONE;
  const void* copy = nullptr;
  if (copied_ && !same(args[inputs], result_, true, &copy)) Py_RETURN_NONE;
  const unsigned long long moved = PyLong_AsUnsignedLongLongMask(args[arrays]);
  if (PyErr_Occurred()) return nullptr;
  for (Py_ssize_t k = 0; k < inputs; ++k) put(inputs_[static_cast<size_t>(k)], data[k]);
  if (!steps_.empty())
    for (const Recorded& call : calls_)
      if (call.step_slot >= 0) steps_[call.step].offset = call.offset + moved;
  if (!check_indices()) return nullptr;
  if (takes_long_) {
    running_ = true;
    PyThreadState* state = PyEval_SaveThread();
    execute();
    PyEval_RestoreThread(state);
    running_ = false;
  } else {
    execute();
  }
  if (const char* error = take_error()) return PyErr_Format(PyExc_RuntimeError, "%s", error);
  if (!copied_) return PyFloat_FromDouble(static_cast<double>(*static_cast<const float*>(result_.data)));
  memcpy(const_cast<void*>(copy), result_.data, static_cast<size_t>(result_.bytes));
  return Py_NewRef(args[inputs]);
}

namespace {

Program* program_of(PyObject* capsule) { return static_cast<Program*>(PyCapsule_GetPointer(capsule, nullptr)); }

PyObject* record(PyObject*, PyObject*) {
  if (current) {
    current->give_up();
    Py_RETURN_FALSE;
  }
  current = new (std::nothrow) Program(get_num_threads());
  if (!current) return PyErr_NoMemory();
  Py_RETURN_TRUE;
}

PyObject* run(PyObject* self, PyObject* const* args, Py_ssize_t count) { return program_of(self)->run(args, count); }

PyMethodDef run_method = {"run", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(run)), METH_FASTCALL,
                          "The recorded calls once more."};

PyObject* recorded(PyObject*, PyObject* const* args, Py_ssize_t count) {
  std::unique_ptr<Program> program(current);
  current = nullptr;
  if (count == 0) Py_RETURN_NONE;
  if ((count != 2 && count != 5 && count != 6) || !PyTuple_Check(args[0]) || PyTuple_GET_SIZE(args[0]) > kMostInputs)
    return PyErr_Format(PyExc_TypeError,
                        "recorded: expected (inputs, result, seed, start, used, copied), inputs a tuple of at most %d "
                        "arrays",
                        kMostInputs);
  uint64_t drawn[3] = {};
  for (Py_ssize_t k = 2; k < count && k < 5; ++k) drawn[k - 2] = PyLong_AsUnsignedLongLongMask(args[k]);
  if (PyErr_Occurred()) return nullptr;
  try {
    if (!program || (count > 2 && !program->draws_from(drawn[0], drawn[1], drawn[2]))) Py_RETURN_NONE;
    if (!program->finish(args[0], args[1], count == 6 && args[5] == Py_True)) Py_RETURN_NONE;
  } catch (const std::bad_alloc&) {
    return PyErr_NoMemory();
  }
  PyObject* capsule = PyCapsule_New(program.get(), nullptr, [](PyObject* self) { delete program_of(self); });
  if (!capsule) return nullptr;
  program.release();
  PyObject* function = PyCFunction_New(&run_method, capsule);
  Py_DECREF(capsule);
  return function;
}

PyMethodDef functions[] = {
    {"record", record, METH_NOARGS,
     "record()\n--\n\nFrom now on calls of kernels in this thread are recorded. False if they were already, in vain "
     "then."},
    {"recorded", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(recorded)), METH_FASTCALL,
     "recorded(inputs, result, seed, start, used, copied)\n--\n\nEnd the recording. run(*inputs, moved) calls the same "
     "kernels with other inputs, offsets of random streams moved on, and gives the first element of result, or None "
     "where inputs are not alike; run(*inputs, out, moved) copies all of it to out, where copied is True. None if it "
     "cannot be replayed, or if random numbers came from elsewhere than this place of this stream (which may be left "
     "out); recorded() forgets it."},
    {nullptr, nullptr, 0, nullptr},
};

}  // namespace

int add_replay(PyObject* module) { return PyModule_AddFunctions(module, functions); }

}  // namespace fastdl
