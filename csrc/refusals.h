// What the border says of a call that it refuses: "<argument>: expected <what>; got <what>". Nothing here returns, and nothing
// here is on the way of a call that is right.
#pragma once
#include <string>

#include "spec.h"

namespace fastdl {

// Throws the Python error that is set (border.cpp, so that the words compile without pybind11).
[[noreturn, gnu::cold]] void raise_error();

[[noreturn, gnu::cold]] void fail(PyObject* type, const char* format, ...) __attribute__((format(printf, 2, 3)));
[[noreturn, gnu::cold]] void refuse(const Argument& a, PyObject* type, const std::string& expected,
                                    const std::string& got);

// An object that is not the array that was expected, by what acquire() said of it.
[[noreturn, gnu::cold]] void refuse_array(const Argument& a, PyObject* object, Refusal why, const Session& session);

// An array that must be given; got "none" or "None".
[[noreturn, gnu::cold]] void refuse_missing(const Spec& spec, const Value* values, const Argument& a, const char* got);

// Too many or too few axes.
[[noreturn, gnu::cold]] void refuse_axes(const Spec& spec, const Value* values, const Argument& a, const Array& array);

// Sizes that are not those of the other arguments. `prefixes`: the axes of each letter that stands for a run of them.
[[noreturn, gnu::cold]] void refuse_shape(const Spec& spec, const Value* values, const Prefix* prefixes,
                                          const Argument& a, const Array& array);

// An output that cannot be made: one of its sizes is not known, is negative, or there are too many.
[[noreturn, gnu::cold]] void refuse_unknown(const Spec& spec, const Value* values, const Argument& a, const Expr& dim);
[[noreturn, gnu::cold]] void refuse_negative(const Spec& spec, const Value* values, const Argument& a, const Expr& dim,
                                             i64 size);
[[noreturn, gnu::cold]] void refuse_many(const Argument& a, int axes);

// A condition that does not hold: between sizes, of a number, or one that would give a negative size.
[[noreturn, gnu::cold]] void refuse_condition(const Spec& spec, const Value* values, const Condition& c, i64 left,
                                              i64 right);
[[noreturn, gnu::cold]] void refuse_number(const Argument& a, const Condition& c, double value);
[[noreturn, gnu::cold]] void refuse_solution(const Spec& spec, const Condition& c, i64 value);

}  // namespace fastdl
