// A sequence of kernel calls, recorded at the border while it runs for the first time and run again without Python: the
// same kernels on the same memory, with the arrays that change (a batch) and the place in the random stream as arguments.
//
// What a program may not know it does not check: that nothing but kernels writes what its kernels read, and that its memory
// is still there (an arena of csrc/pool.h). python/fastdl/replay.py answers for both.
#pragma once
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <vector>

#include "kernels.h"
#include "spec.h"

namespace fastdl {

// Indices of an array that the border looks at in every call, and so in every replay.
struct IndexRange {
  const Argument* argument;
  int slot;
  i64 count, low, high;
};

// What a call writes.
struct Written {
  const char *begin, *end;
};

class Program {
 public:
  explicit Program(int threads) : threads_(threads) {}

  // A call that was checked and has run. Bit i of `pointers`: slot i is an array, which may be one of the inputs.
  void add(const Spec& spec, const Slot* slots, uint64_t pointers, int step_slot, const StepState* step,
           const std::vector<IndexRange>& ranges, const std::vector<Written>& written, bool takes_long);
  // It has had a call that cannot be replayed.
  void give_up() { whole_ = false; }
  // Whether all random numbers are these elements of this stream: others would be drawn from the same place every time.
  bool draws_from(uint64_t seed, uint64_t start, uint64_t used) const;
  // Ends the recording. False where there is nothing to replay. `copied`: all of the result is wanted of a replay, in an array
  // that it is given.
  bool finish(PyObject* inputs, PyObject* result, bool copied);

  // With these inputs: the result's first element, or the array into which all of it was copied; None where they are not alike
  // those of the recording; null with a Python error.
  PyObject* run(PyObject* const* args, Py_ssize_t count);

 private:
  struct Recorded {
    const Spec* spec;
    size_t first;  // of its slots
    int step_slot;
    uint64_t pointers, offset;
    size_t step;
  };
  struct Use {
    size_t slot;
    i64 bytes;  // from the input's beginning
  };
  struct Input {
    DType dtype;
    std::vector<Py_ssize_t> shape;
    const void* data;
    i64 bytes;
    std::vector<Use> uses;
  };

  static bool describe(PyObject* object, Input* input);
  static bool same(PyObject* object, const Input& input, bool writable, const void** data);
  void put(Input& input, const void* data);
  bool overwritten(const void* data, i64 bytes) const;
  bool check_indices() const;
  void execute() const;

  int threads_;
  bool whole_ = true, takes_long_ = false, running_ = false;
  std::vector<Recorded> calls_;
  std::vector<Slot> slots_;
  std::vector<StepState> steps_;
  std::vector<IndexRange> ranges_;  // their slots counted over all calls
  std::vector<Written> written_;    // of use while it is recorded
  std::vector<Input> inputs_;
  Input result_;
  bool copied_ = false;
};

// Where this thread's calls are recorded; null where they are not.
Program* recording();

// The functions `record` and `recorded` of a module of kernels for host arrays. 0, or -1 with an exception set.
int add_replay(PyObject* module);

}  // namespace fastdl
