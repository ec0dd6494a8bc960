// CUDA arrays: anything with __cuda_array_interface__ (CuPy, PyTorch, Numba), used where it lies. All arrays of a call are on
// one GPU, which is current while the kernel is launched; the kernel goes onto the caller's stream, after whatever still
// writes to the arrays. The array library that makes outputs is Python's affair (python/fastdl/backend.py).
#include <cuda_runtime_api.h>
#include <pybind11/pybind11.h>

#include <cstdio>
#include <cstring>
#include <memory>
#include <mutex>

#include "array.h"

namespace py = pybind11;

namespace fastdl {

bool device_has_tensor_cores();  // cuda/launch.cuh

namespace {

constexpr const char* kTypes[] = {"<f4", "|u1", "<i8", "<u4"};
constexpr const char* kNames[] = {"float32", "uint8", "int64", "uint32"};
constexpr i64 kBytes[] = {4, 1, 8, 4};
constexpr int kArrays = 128;  // shapes of a call live until as many more were asked for
static_assert(PY_LITTLE_ENDIAN, "CUDA's arrays are little-endian");

// What makes arrays, and says which stream is current.
struct Library {
  py::object make_output = py::none(), current_stream = py::none();
  PyTypeObject* type = nullptr;  // its arrays; null: looked at like all others
  PyObject* dtypes[4] = {};      // NumPy's, in the order of DType
};

// Never freed: at exit the interpreter is gone before it is.
Library& library() {
  static auto* all = new Library;
  return *all;
}

PyObject* key(const char* name) {
  PyObject* made = PyUnicode_InternFromString(name);
  if (!made) throw py::error_already_set();
  return made;
}

void check(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  cudaGetLastError();
  throw std::runtime_error(std::string("CUDA: ") + what + ": " + cudaGetErrorString(error));
}

py::object interface_of(PyObject* object) {
  static PyObject* const name = key("__cuda_array_interface__");
  py::object dict = py::reinterpret_steal<py::object>(PyObject_GetAttr(object, name));
  if (!dict) {
    if (!PyErr_ExceptionMatches(PyExc_AttributeError)) throw py::error_already_set();
    PyErr_Clear();
  }
  if (dict && !PyDict_Check(dict.ptr())) return {};
  return dict;
}

// A field, borrowed; null if it is missing or None.
PyObject* field(const py::object& dict, PyObject* name) {
  PyObject* value = PyDict_GetItemWithError(dict.ptr(), name);
  return value == Py_None ? nullptr : value;
}

Py_ssize_t* room_for_shape() {
  static thread_local const std::unique_ptr<Py_ssize_t[]> all(new Py_ssize_t[kArrays * kMaxDims]);
  static thread_local int next = 0;
  next = (next + 1) % kArrays;
  return all.get() + next * kMaxDims;
}

// Attributes of CuPy's arrays.
struct Attributes {
  PyObject *dtype = key("dtype"), *flags = key("flags"), *contiguous = key("c_contiguous"), *shape = key("shape"),
           *data = key("data"), *ptr = key("ptr"), *device = key("device_id");
};

struct Fields {
  PyObject *shape = key("shape"), *typestr = key("typestr"), *data = key("data"), *strides = key("strides"),
           *mask = key("mask"), *stream = key("stream");
};
const Fields& fields() {
  static const Fields all;
  return all;
}

// The GPU that memory lies on; -1 if it is the host's.
int device_of(const void* p) {
  cudaPointerAttributes attributes;
  check(cudaPointerGetAttributes(&attributes, p), "an array's address");
  return attributes.type == cudaMemoryTypeDevice || attributes.type == cudaMemoryTypeManaged ? attributes.device : -1;
}

// A stream's address; null is the default stream, which the interface calls 1 (cudaStreamLegacy).
void* to_stream(PyObject* number) {
  void* s = PyLong_AsVoidPtr(number);
  if (PyErr_Occurred()) throw py::error_already_set();
  return s == static_cast<void*>(cudaStreamLegacy) ? nullptr : s;
}

// The array's last work may be on another stream than ours. (No stream: nothing to wait for.)
void remember_stream(PyObject* stream, Session* session) {
  void* s = to_stream(stream);
  for (int i = 0; i < session->waits; ++i)
    if (session->wait_for[i] == s) return;
  if (session->waits == Session::kStreams)
    throw std::runtime_error("CUDA: expected arrays from at most " + std::to_string(Session::kStreams) +
                             " streams in one call");
  session->wait_for[session->waits++] = s;
}

void wait_for(const Session& session) {
  cudaEvent_t event = nullptr;
  for (int i = 0; i < session.waits; ++i) {
    if (session.wait_for[i] == session.stream) continue;
    if (!event) check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "an event");
    check(cudaEventRecord(event, static_cast<cudaStream_t>(session.wait_for[i])), "the stream of an array");
    check(cudaStreamWaitEvent(static_cast<cudaStream_t>(session.stream), event, 0), "the stream of the call");
  }
  if (event) cudaEventDestroy(event);  // when it has been reached
}

}  // namespace

const char* dtype_name(DType dtype) { return kNames[static_cast<int>(dtype)]; }
i64 dtype_bytes(DType dtype) { return kBytes[static_cast<int>(dtype)]; }
const char* array_kind() { return "CUDA array"; }

namespace {

long long number_of(PyObject* object, PyObject* name) {
  const py::object value = py::reinterpret_steal<py::object>(PyObject_GetAttr(object, name));
  if (!value) throw py::error_already_set();
  return PyLong_AsLongLong(value.ptr());
}

// An array of the library's own on the current stream, by its attributes: the dictionary of the interface takes CuPy longer to
// make than a small kernel runs. False for whatever is not as it should be: acquire() says what.
bool acquire_own(PyObject* object, DType dtype, Array* out, Session* session) {
  static const Attributes names;
  const Library& own = library();
  if (Py_TYPE(object) != own.type || session->stream_given) return false;
  const auto get = [](PyObject* from, PyObject* name) {
    PyObject* value = PyObject_GetAttr(from, name);
    if (!value) throw py::error_already_set();
    return py::reinterpret_steal<py::object>(value);
  };
  if (get(object, names.dtype).ptr() != own.dtypes[static_cast<int>(dtype)]) return false;
  if (get(get(object, names.flags).ptr(), names.contiguous).ptr() != Py_True) return false;
  const py::object shape = get(object, names.shape);
  if (!PyTuple_Check(shape.ptr()) || PyTuple_GET_SIZE(shape.ptr()) > kMaxDims) return false;
  const Py_ssize_t ndim = PyTuple_GET_SIZE(shape.ptr());
  Py_ssize_t* sizes = room_for_shape();
  i64 count = 1;
  for (Py_ssize_t i = 0; i < ndim; ++i) count *= sizes[i] = PyLong_AsSsize_t(PyTuple_GET_ITEM(shape.ptr(), i));
  if (count <= 0) return false;
  const py::object data = get(object, names.data);
  const int device = static_cast<int>(number_of(data.ptr(), names.device));
  if (session->device >= 0 && session->device != device) return false;
  const long long address = number_of(data.ptr(), names.ptr);
  if (PyErr_Occurred()) throw py::error_already_set();
  if (address % kBytes[static_cast<int>(dtype)]) return false;
  session->device = device;
  *out = {reinterpret_cast<void*>(address), static_cast<int>(ndim), sizes};
  return true;
}

}  // namespace

void find_array_library() {}  // which comes when Python hands it over

Refusal acquire(PyObject* object, DType dtype, bool writeable, Array* out, Session* session) {
  if (acquire_own(object, dtype, out, session)) return Refusal::none;
  const py::object dict = interface_of(object);
  if (!dict) return Refusal::not_an_array;
  const Fields& f = fields();
  PyObject *shape = field(dict, f.shape), *typestr = field(dict, f.typestr), *data = field(dict, f.data);
  if (!shape || !typestr || !data || !PyTuple_Check(shape) || !PyTuple_Check(data) || PyTuple_GET_SIZE(data) != 2)
    return Refusal::not_an_array;
  const i64 bytes = kBytes[static_cast<int>(dtype)];
  const char* type = PyUnicode_Check(typestr) ? PyUnicode_AsUTF8(typestr) : nullptr;
  if (!type) {
    PyErr_Clear();
    return Refusal::not_an_array;
  }
  if (std::strcmp(type, kTypes[static_cast<int>(dtype)]) != 0 &&
      !(dtype == DType::uint8 && std::strcmp(type, "<u1") == 0))
    return Refusal::dtype;
  if (field(dict, f.mask)) return Refusal::mask;

  const Py_ssize_t ndim = PyTuple_GET_SIZE(shape);
  if (ndim > kMaxDims) return Refusal::layout;
  PyObject* const strides = field(dict, f.strides);
  if (strides && (!PyTuple_Check(strides) || PyTuple_GET_SIZE(strides) != ndim)) return Refusal::not_an_array;
  Py_ssize_t* sizes = room_for_shape();
  i64 count = 1;
  for (Py_ssize_t i = 0; i < ndim; ++i) {
    sizes[i] = PyLong_AsSsize_t(PyTuple_GET_ITEM(shape, i));
    if (sizes[i] < 0) {
      PyErr_Clear();
      return Refusal::not_an_array;
    }
    count *= sizes[i];
  }
  if (strides && count > 0) {
    i64 expected = bytes;
    for (Py_ssize_t i = ndim; i-- > 0; expected *= sizes[i])
      if (sizes[i] != 1 && PyLong_AsSsize_t(PyTuple_GET_ITEM(strides, i)) != expected) return Refusal::layout;
  }
  void* address = PyLong_AsVoidPtr(PyTuple_GET_ITEM(data, 0));
  if (PyErr_Occurred()) throw py::error_already_set();
  if (reinterpret_cast<uintptr_t>(address) % static_cast<uintptr_t>(bytes)) return Refusal::alignment;
  if (writeable && PyObject_IsTrue(PyTuple_GET_ITEM(data, 1))) return Refusal::read_only;
  if (count > 0) {
    const int device = device_of(address);
    if (device < 0) return Refusal::host_memory;
    if (session->device < 0) session->device = device;
    if (session->device != device) {
      session->other = device;
      return Refusal::device;
    }
    if (PyObject* stream = field(dict, f.stream)) remember_stream(stream, session);
  } else {
    address = reinterpret_cast<void*>(kBytes[2] * 32);  // no memory, but not left out either
  }
  *out = {address, static_cast<int>(ndim), sizes};
  return Refusal::none;
}

void describe(PyObject* object, Refusal why, const Session& session, char* text, size_t size) {
  switch (why) {
    case Refusal::not_an_array: snprintf(text, size, "%s", Py_TYPE(object)->tp_name); return;
    case Refusal::read_only: snprintf(text, size, "a read-only array"); return;
    case Refusal::alignment: snprintf(text, size, "an address that is not a multiple of the element's size"); return;
    case Refusal::mask: snprintf(text, size, "one with a mask"); return;
    case Refusal::host_memory: snprintf(text, size, "memory of the host"); return;
    case Refusal::device: snprintf(text, size, "GPU %d", session.other); return;
    default: break;
  }
  const py::dict dict = interface_of(object);
  std::string words;
  if (why == Refusal::dtype) {
    words = std::string(py::hasattr(object, "dtype") ? py::str(py::handle(object).attr("dtype"))
                                                     : py::str(dict["typestr"]));
  } else {
    words = dict.contains("strides") ? "strides " + std::string(py::str(dict["strides"])) : "too many axes";
  }
  snprintf(text, size, "%s", words.c_str());
}

PyObject* create(DType dtype, int ndim, const Py_ssize_t* shape, Session* session) {
  const Library& own = library();
  if (own.make_output.is_none())
    throw std::runtime_error("CUDA: expected an array library that makes outputs; got none");
  py::tuple sizes(ndim);
  for (int i = 0; i < ndim; ++i) sizes[static_cast<size_t>(i)] = shape[i];
  const int which = static_cast<int>(dtype);
  const py::object type =
      own.dtypes[which] ? py::reinterpret_borrow<py::object>(own.dtypes[which]) : py::str(kNames[which]);
  const py::object device = session->device < 0 ? py::object(py::none()) : py::int_(session->device);
  const py::object stream =
      session->stream_given ? py::object(py::int_(reinterpret_cast<uintptr_t>(session->stream))) : py::none();
  return own.make_output(sizes, type, device, stream).release().ptr();
}

const int64_t* readable(const Array&) { return nullptr; }

void enter(Session* session) {
  check(cudaGetDevice(&session->before), "the current GPU");
  if (session->device < 0) session->device = session->before;
  if (session->device != session->before) check(cudaSetDevice(session->device), "the arrays' GPU");
  try {
    if (session->stream == static_cast<void*>(cudaStreamLegacy)) session->stream = nullptr;
    if (!session->stream_given && !library().current_stream.is_none())
      session->stream = to_stream(library().current_stream(session->device).ptr());
    wait_for(*session);
  } catch (...) {
    leave(session);
    throw;
  }
}

void leave(Session* session) noexcept {
  if (session->device != session->before) cudaSetDevice(session->before);
}

void bind_cuda(py::module_& m) {
  m.def(
      "set_array_library",
      [](py::object make_output, py::object current_stream, const py::object& type, const py::sequence& dtypes) {
        Library& own = library();
        own.make_output = std::move(make_output);
        own.current_stream = std::move(current_stream);
        own.type = type.is_none() ? nullptr : reinterpret_cast<PyTypeObject*>(type.inc_ref().ptr());
        for (size_t i = 0; i < dtypes.size() && i < 4; ++i) own.dtypes[i] = py::object(dtypes[i]).release().ptr();
      },
      py::arg("make_output"), py::arg("current_stream"), py::arg("type") = py::none(), py::arg("dtypes") = py::tuple(),
      "make_output(shape, dtype, device, stream) makes an array; current_stream(device) is the address of the caller's "
      "stream. Arrays of `type` are taken by the attributes of CuPy's, with NumPy's `dtypes` for float32, uint8, int64 "
      "and uint32.");
  m.def(
      "runtime_version",
      [] {
        int version = 0;
        check(cudaRuntimeGetVersion(&version), "its version");
        return version;
      },
      "CUDA's version that the kernels were built with: 13000 is 13.0.");
  m.def(
      "devices",
      [] {
        int count = 0;
        check(cudaGetDeviceCount(&count), "the GPUs");
        py::list all;
        for (int i = 0; i < count; ++i) {
          int major = 0, minor = 0;
          check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, i), "a GPU");
          check(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, i), "a GPU");
          all.append(py::make_tuple(major, minor));
        }
        return all;
      },
      "(major, minor) compute capability of each GPU; RuntimeError says why there is none.");
  m.def(
      "tensor_cores",
      [](int device) {
        int before = 0;
        check(cudaGetDevice(&before), "the current GPU");
        check(cudaSetDevice(device), "a GPU");
        const bool has = device_has_tensor_cores();
        check(cudaSetDevice(before), "the current GPU");
        return has;
      },
      py::arg("device"),
      "Whether the kernels that run on this GPU multiply by tensor cores where they are allowed to.");
#if defined(FASTDL_CUDA_ARCHITECTURES)
  m.attr("ARCHITECTURES") = FASTDL_CUDA_ARCHITECTURES;
#endif
}

}  // namespace fastdl
