// What the border knows of an array, whatever made it. One implementation for host arrays (array_host.cpp: NumPy); a CUDA
// module links another with the same functions.
#pragma once
#include <Python.h>
#include <stdint.h>

namespace fastdl {

using i64 = int64_t;

enum class DType : uint8_t { float32, uint8, int64, uint32 };
const char* dtype_name(DType dtype);
i64 dtype_bytes(DType dtype);

constexpr int kMaxDims = 32;

struct Array {
  void* data;
  int ndim;
  const Py_ssize_t* shape;
};

// Why acquire() refused an array; the caller words the error.
enum class Refusal : uint8_t { none, not_an_array, dtype, layout, read_only };

// Looks at an array without converting or copying: right dtype in native byte order, C-contiguous, aligned, and writeable if
// asked.
Refusal acquire(PyObject* object, DType dtype, bool writeable, Array* out);

// What came, in words, for the error message: "list", "float64", "strides (8, 4)", ...
void describe(PyObject* object, Refusal why, char* text, size_t size);

// "NumPy array" or "CUDA array".
const char* array_kind();

// A new C-contiguous array, not initialised. Null with a Python error set when memory is short.
PyObject* create(DType dtype, int ndim, const Py_ssize_t* shape);

// Whether all of the `count` indices lie in [low, high); on failure *bad is the first that does not. Where checking would
// mean a transfer (CUDA), it always says yes.
bool indices_within(const void* data, i64 count, i64 low, i64 high, i64* bad);

}  // namespace fastdl
