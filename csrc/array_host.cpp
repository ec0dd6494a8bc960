// Host arrays: NumPy's ndarray, read through the field layout that pybind11 keeps for it (no NumPy headers at build time).
#include <pybind11/numpy.h>

#include <cstdio>

#include "array.h"

namespace py = pybind11;

namespace fastdl {
namespace {

constexpr int kTypeNum[] = {py::detail::npy_api::NPY_FLOAT_, py::detail::npy_api::NPY_UBYTE_,
                            py::detail::npy_api::NPY_INT64_, py::detail::npy_api::NPY_UINT32_};
constexpr const char* kNames[] = {"float32", "uint8", "int64", "uint32"};
constexpr i64 kBytes[] = {4, 1, 8, 4};

bool same_type(const py::detail::PyArray_Proxy* array, DType dtype) {
  const auto* descr = py::detail::array_descriptor_proxy(array->descr);
  const int num = descr->type_num;
  // Two C types can be the same 64- (or 32-) bit integer under different numbers (long, long long).
  const bool match = num == kTypeNum[static_cast<int>(dtype)] ||
                     (dtype == DType::int64 && (num == py::detail::npy_api::NPY_LONGLONG_ ||
                                                (sizeof(long) == 8 && num == py::detail::npy_api::NPY_LONG_)));
  return match && descr->byteorder != (PY_LITTLE_ENDIAN ? '>' : '<');
}

}  // namespace

const char* dtype_name(DType dtype) { return kNames[static_cast<int>(dtype)]; }
i64 dtype_bytes(DType dtype) { return kBytes[static_cast<int>(dtype)]; }
const char* array_kind() { return "NumPy array"; }

namespace {

const py::detail::npy_api& api() {
  static const auto& found = py::detail::npy_api::get();
  return found;
}

const py::dtype& type_of(DType dtype) {
  static const py::dtype types[] = {py::dtype::of<float>(), py::dtype::of<uint8_t>(), py::dtype::of<int64_t>(),
                                    py::dtype::of<uint32_t>()};
  return types[static_cast<int>(dtype)];
}

constexpr int kLayout = py::detail::npy_api::NPY_ARRAY_C_CONTIGUOUS_ | py::detail::npy_api::NPY_ARRAY_ALIGNED_;
constexpr int kWriteable = py::detail::npy_api::NPY_ARRAY_WRITEABLE_;

// Of what is no plain array with all that is wanted.
__attribute__((cold)) Refusal look_closer(PyObject* object, DType dtype, bool writeable, bool plain) {
  const auto* array = py::detail::array_proxy(object);
  if (!same_type(array, dtype)) return Refusal::dtype;
  if (!(array->flags & py::detail::npy_api::NPY_ARRAY_C_CONTIGUOUS_)) return Refusal::layout;
  if (!(array->flags & py::detail::npy_api::NPY_ARRAY_ALIGNED_)) return Refusal::alignment;
  if (!plain && PyObject_HasAttrString(object, "mask")) return Refusal::mask;  // numpy.ma: a kernel would not heed it
  if (writeable && !(array->flags & kWriteable)) return Refusal::read_only;
  return Refusal::none;
}

}  // namespace

void find_array_library() {
  api();
  type_of(DType::float32);
}

Refusal acquire(PyObject* object, DType dtype, bool writeable, Array* out, Session*) {
  const bool plain = Py_TYPE(object) == api().PyArray_Type_;
  if (!plain && !api().PyArray_Check_(object)) return Refusal::not_an_array;
  const auto* array = py::detail::array_proxy(object);
  const int wanted = writeable ? kLayout | kWriteable : kLayout;
  if (!plain || (array->flags & wanted) != wanted || !same_type(array, dtype)) {
    const Refusal why = look_closer(object, dtype, writeable, plain);
    if (why != Refusal::none) return why;
  }
  out->data = array->data;
  out->ndim = array->nd;
  out->shape = reinterpret_cast<const Py_ssize_t*>(array->dimensions);
  return Refusal::none;
}

void describe(PyObject* object, Refusal why, const Session&, char* text, size_t size) {
  if (why == Refusal::not_an_array) {
    std::snprintf(text, size, "%s", Py_TYPE(object)->tp_name);
  } else if (why == Refusal::read_only) {
    std::snprintf(text, size, "a read-only array");
  } else if (why == Refusal::alignment) {
    std::snprintf(text, size, "an address that is not a multiple of the element's size");
  } else if (why == Refusal::mask) {
    std::snprintf(text, size, "one with a mask");
  } else {
    const char* attribute = why == Refusal::dtype ? "dtype" : "strides";
    py::object value = py::reinterpret_borrow<py::object>(object).attr(attribute);
    std::string words = py::str(value);
    if (why == Refusal::layout) words = "strides " + words;
    std::snprintf(text, size, "%s", words.c_str());
  }
}

PyObject* create(DType dtype, int ndim, const Py_ssize_t* shape, Session*) {
  py::dtype type = type_of(dtype);
  return api().PyArray_NewFromDescr_(api().PyArray_Type_, type.release().ptr(), ndim, shape, nullptr, nullptr, 0,
                                     nullptr);
}

void enter(Session*) {}
void leave(Session*) noexcept {}

const int64_t* readable(const Array& array) { return static_cast<const int64_t*>(array.data); }

}  // namespace fastdl
