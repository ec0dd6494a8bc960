// What Python may give for a number of a call. Anything else is refused (csrc/refusals.h).
#pragma once
#include "spec.h"

namespace fastdl {

double to_real(const Argument& a, PyObject* o);
// Anything with __index__ (NumPy's integers among them), but no float: 2.5 must not become 2.
i64 to_integer(const Argument& a, PyObject* o, const char* expected = "an integer");
// 0 or 1, as kernels take it: a larger number would lose its upper half on the way.
i64 to_flag(const Argument& a, PyObject* o);
// The place of a choice's name, or that place itself.
i64 to_choice(const Argument& a, PyObject* o);

}  // namespace fastdl
