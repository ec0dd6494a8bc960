// The border between Python and the kernels: one generic binder for all of them. A kernel is bound by its function and one
// line that says what its arguments are, in the order of its C++ parameters:
//
//   def<dense_forward>(m, "dense_forward",
//                      "N I O; x[N...,I] w[I,O] b?[O] act:act=none slope:f=0.01 y>[N...,O] z>??[N...,O]", "doc");
//
//   sizes;            the size parameters, each a letter that the shapes below bind at first sight and must agree with
//   name[dims]        an input array; dims are letters, expressions over letters and integer attributes (4*H, C/groups), a
//                     leading prefix N... (any number of axes, N their product), or a choice flag?K:M
//   name>[dims]       an output: written into if given, made if left out, and returned
//   name&[dims]       read and written in place; must be given
//   ?                 may be None (a null pointer); on an output, ?? also means: None if left out
//   ~                 this output may be exactly one of the inputs (in place)
//   :u8 :i64 :u32     element type, float32 if not said;  {low..high} on int64: every index in [low, high)
//   {low..high<ends}  of rows whose groups end where the array ends says, and that are the highest indices themselves: only
//                     those before the row's own group, and each once
//   {low..high!k:m}   the number k not among the first m[i] of row i
//   work*             scratch, made if left out; its size comes from the kernel's workspace function
//   name:f name:i     a number (:b for a flag, :act ... for a named choice), =default if it may be left out; a trailing !
//                     means that only the conditions use it
//   step(seed,offset=0)   fields of the StepState that the border fills in
//   ; conditions      P=(Y-R)/stride+1 binds a free letter or must hold; Y:=... only binds; stride>=1, C%groups=0 must hold
//
// The border never converts and never copies: wrong dtype, layout or device is a TypeError, a wrong shape or range a
// ValueError, and each names the argument, what was expected and what came.
#pragma once
#include <type_traits>
#include <utility>

#include "array.h"

namespace fastdl {

// One argument on its way from Python to the kernel.
union Slot {
  i64 i;
  double f;
  void* p;
};

using Thunk = void (*)(const Slot*);
using WorkspaceThunk = i64 (*)(const i64*);

namespace detail {

template <class T>
T take(const Slot& s) {
  if constexpr (std::is_pointer_v<T>)
    return static_cast<T>(s.p);
  else if constexpr (std::is_floating_point_v<T>)
    return static_cast<T>(s.f);
  else
    return static_cast<T>(s.i);
}

template <auto Kernel, class... A, size_t... I>
constexpr Thunk make_thunk(void (*)(A...), std::index_sequence<I...>) {
  // The last parameter, the stream, is a pointer like any other.
  return [](const Slot* s) { Kernel(take<A>(s[I])...); };
}

template <auto Kernel, class... A>
constexpr Thunk make_thunk(void (*f)(A...)) {
  return make_thunk<Kernel>(f, std::index_sequence_for<A...>{});
}

template <auto Size, class... A, size_t... I>
constexpr WorkspaceThunk make_size(i64 (*)(A...), std::index_sequence<I...>) {
  return [](const i64* s) { return Size(s[I]...); };
}

template <auto Size, class... A>
constexpr WorkspaceThunk make_size(i64 (*f)(A...)) {
  return make_size<Size>(f, std::index_sequence_for<A...>{});
}

template <class... A>
constexpr size_t count_parameters(void (*)(A...)) {
  return sizeof...(A);
}

void define(PyObject* module, const char* name, const char* spec, const char* doc, Thunk thunk, size_t parameters,
            WorkspaceThunk workspace, void* address, void* workspace_address);

}  // namespace detail

template <auto Kernel>
void def(PyObject* module, const char* name, const char* spec, const char* doc) {
  detail::define(module, name, spec, doc, detail::make_thunk<Kernel>(Kernel), detail::count_parameters(Kernel), nullptr,
                 reinterpret_cast<void*>(Kernel), nullptr);
}

template <auto Kernel, auto Workspace>
void def(PyObject* module, const char* name, const char* spec, const char* doc) {
  detail::define(module, name, spec, doc, detail::make_thunk<Kernel>(Kernel), detail::count_parameters(Kernel),
                 detail::make_size<Workspace>(Workspace), reinterpret_cast<void*>(Kernel),
                 reinterpret_cast<void*>(Workspace));
}

// Calls with an array of a GPU, which a module of CPU kernels has no kernel for, go to hook(name) instead, with the same
// arguments. Takes a reference of its own.
void set_elsewhere(PyObject* hook);

// Every kernel of this module (csrc/bindings.cpp), and what the module says of itself: name -> spec. It throws what pybind11
// throws; itself it is not in here, since it takes most of a binding's time to compile.
void bind_kernels(PyObject* module);

}  // namespace fastdl
