// What the values of an index array may be, as its argument line says: {low..high}, {low..high<ends}, {low..high!k:m}
// (csrc/border.h). Each check gives true, or false with a ValueError set that names the argument and the first misfit.
#pragma once
#include "spec.h"

namespace fastdl {

// Every index in [low, high).
bool check_range(const Argument& a, const int64_t* p, i64 count, i64 low, i64 high);

// Every index in the range that the argument line gives for these sizes.
bool check_indices(const Argument& a, const Value* values, const Array& array);

// What an index may be by the values of another array; both are within their ranges here.
bool check_indices_by(const Argument& a, const Value* values, const Array& array, const Array& by);

}  // namespace fastdl
