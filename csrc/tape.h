// The tape's inner part: the base of fastdl.Tensor and what happens to it on every operation. What a tensor means and how
// a graph is used stands in python/fastdl/tensor.py; here is only what each operation pays for, several times.
#pragma once

extern "C" {
struct _object;
typedef struct _object PyObject;
}

namespace fastdl {

// Adds to a module: the type `Node`, the functions `record`, `record_kernel` and `use_tape`, the mark `DY`. 0, or -1 with an exception set.
int add_tape(PyObject* module);

}  // namespace fastdl
