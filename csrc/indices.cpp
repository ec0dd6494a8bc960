#include "indices.h"

#include <algorithm>
#include <vector>

namespace fastdl {
namespace {

using Long = long long;  // PyErr_Format() knows no int64_t

}  // namespace

bool check_range(const Argument& a, const int64_t* p, i64 count, i64 low, i64 high) {
  for (i64 i = 0; i < count; ++i)
    if (p[i] < low || p[i] >= high) {
      PyErr_Format(PyExc_ValueError, "%s: expected integers from %lld to %lld; got %lld", a.name.c_str(), Long(low),
                   Long(high - 1), Long(p[i]));
      return false;
    }
  return true;
}

bool check_indices(const Argument& a, const Value* values, const Array& array) {
  const int64_t* p = readable(array);
  if (!p) return true;
  i64 low = 0, high = 0, count = 1;
  evaluate(a.low, values, &low);
  evaluate(a.high, values, &high);
  for (int k = 0; k < array.ndim; ++k) count *= array.shape[k];
  return check_range(a, p, count, low, high);
}

namespace {

// Groups of rows stand for the highest indices, and a row may use what stands before its group alone, and nothing that
// another one uses: what flows back to an index has one writer. As kernels count them, a group that ends before it
// begins is empty, and rows behind the last end are a group too.
bool check_groups(const Argument& a, const Value* values, const int64_t* p, i64 rows, i64 columns, const int64_t* ends,
                  i64 groups) {
  i64 low = 0, high = 0, begin = 0;
  evaluate(a.low, values, &low);
  evaluate(a.high, values, &high);
  for (i64 g = 0; g <= groups; ++g) {
    const i64 end = g < groups ? ends[g] : rows, limit = high - rows + begin;
    for (i64 i = begin * columns; i < end * columns; ++i)
      if (p[i] >= limit) {
        PyErr_Format(PyExc_ValueError,
                     "%s: expected integers from %lld to %lld, before its group by %s, in row %lld; got %lld",
                     a.name.c_str(), Long(low), Long(limit - 1), a.by.c_str(), Long(i / columns), Long(p[i]));
        return false;
      }
    if (end > begin) begin = end;
  }
  std::vector<bool> used(static_cast<size_t>(high - low));
  for (i64 i = 0; i < rows * columns; ++i) {
    if (used[p[i] - low]) {
      const i64 first = std::find(p, p + i, p[i]) - p;
      PyErr_Format(PyExc_ValueError, "%s: expected every integer once; got %lld in row %lld and in row %lld",
                   a.name.c_str(), Long(p[i]), Long(first / columns), Long(i / columns));
      return false;
    }
    used[p[i] - low] = true;
  }
  return true;
}

bool check_except(const Argument& a, const Value* values, const int64_t* p, i64 rows, i64 columns,
                  const int64_t* counts) {
  i64 except = 0;
  evaluate(a.except, values, &except);
  for (i64 i = 0; i < rows; ++i)
    for (i64 k = 0; k < counts[i]; ++k)
      if (p[i * columns + k] == except) {
        PyErr_Format(PyExc_ValueError,
                     "%s: expected classes other than %s, %lld, among the first %lld in row %lld; got it at %lld",
                     a.name.c_str(), a.except.text.c_str(), Long(except), Long(counts[i]), Long(i), Long(k));
        return false;
      }
  return true;
}

}  // namespace

bool check_indices_by(const Argument& a, const Value* values, const Array& array, const Array& by) {
  const int64_t *p = readable(array), *q = readable(by);
  if (!p || !q) return true;
  const i64 rows = array.shape[0], columns = array.shape[1];
  return a.except.ops.empty() ? check_groups(a, values, p, rows, columns, q, by.shape[0])
                              : check_except(a, values, p, rows, columns, q);
}

}  // namespace fastdl
