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

constexpr int kMaxDims = 64;  // NumPy's

struct Array {
  void* data;
  int ndim;
  const Py_ssize_t* shape;
};

// What the arrays of one call have in common. Host arrays use no field of it.
struct Session {
  static constexpr int kStreams = 8;
  void* stream = nullptr;                    // the kernel's
  bool stream_given = false;                 // by the caller; else it is the array library's current one
  int device = -1, other = -1, before = -1;  // of the arrays, of one that was refused, to go back to
  int waits = 0;
  void* wait_for[kStreams];  // streams that may still write to the arrays
};

// Why acquire() refused an array; the caller words the error.
enum class Refusal : uint8_t { none, not_an_array, dtype, layout, alignment, read_only, mask, host_memory, device };

// Finds what makes the arrays, as the module loads: finding it lets the GIL go, and of two threads whose first calls come at
// once one would have the GIL and the other the lock of what is found once.
void find_array_library();

// Looks at an array without converting or copying: right dtype in native byte order, C-contiguous, aligned, and writeable if
// asked.
Refusal acquire(PyObject* object, DType dtype, bool writeable, Array* out, Session* session);

// What came, in words, for the error message: "list", "float64", "strides (8, 4)", ...
void describe(PyObject* object, Refusal why, const Session& session, char* text, size_t size);

// "NumPy array" or "CUDA array".
const char* array_kind();

// A new C-contiguous array, not initialised. Null with a Python error set when memory is short.
PyObject* create(DType dtype, int ndim, const Py_ssize_t* shape, Session* session);

// Around the kernel, when all arrays are there: chooses the stream and makes the arrays' GPU current. leave() undoes it.
void enter(Session* session);
void leave(Session* session) noexcept;

// The values of an int64 array, to be checked; null where looking at them would mean a transfer (CUDA).
const int64_t* readable(const Array& array);

}  // namespace fastdl
