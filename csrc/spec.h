// The argument line of a kernel, parsed: what csrc/border.h describes in words, as data.
#pragma once
#include <string>
#include <vector>

#include "array.h"
#include "border.h"

namespace fastdl {

constexpr int kMaxNames = 64;  // letters and scalars of one kernel
constexpr int kMaxSlots = 48;

// Integer expressions over named values, compiled to postfix. Names are indices into the call's value table.

struct Op {
  char code;  // 'n' name, 'c' constant, + - * / %, '?' choice of three
  int name;
  i64 constant;
};

struct Expr {
  std::string text;
  std::vector<Op> ops;
  int letter = -1;  // the name, if the expression is that alone
};

struct Choices {
  std::vector<const char*> names;
};

enum class Kind : uint8_t { input, output, in_out, work, integer, real, flag, choice, step };

struct Argument {
  std::string name;
  PyObject* key = nullptr;  // interned, for keywords
  Kind kind = Kind::input;
  DType dtype = DType::float32;
  bool optional = false;        // None allowed
  bool absent_if_left = false;  // left out means None
  bool in_place = false;
  bool border_only = false;
  bool has_default = false;
  bool prefix = false;  // first of dims is a run of axes
  std::vector<Expr> dims;
  Expr low, high;  // bounds of indices
  bool bounded = false;
  // Another argument whose values say more of what an index may be: the ends of groups of rows or, with a number that
  // may not be among the indices, how many of each row count.
  std::string by;
  Expr except;
  Slot initial{};
  const Choices* choices = nullptr;
  int name_id = -1;  // scalars: their place in the value table
  int field = -1;    // step: 0 seed, 1 offset, 2 t, 3 lr
};

struct Condition {
  std::string text;
  Expr left, right;
  char relation[3];  // = >= <= < > or := (binds only)
  int subject = -1;  // first name on the left
};

struct Spec {
  std::string name, text;
  std::vector<std::string> names;  // sizes first
  int sizes = 0;
  std::vector<Argument> args;
  std::vector<Condition> conditions;
  int outputs = 0;  // those that are returned
  int slots = 0;
  Thunk thunk = nullptr;
  WorkspaceThunk workspace = nullptr;
  std::string doc;
  PyMethodDef method{};
};

struct Value {
  bool bound;
  bool real;
  i64 i;
  double f;
  const Argument* by;
};

// The axes that a letter with ... stands for.
struct Prefix {
  int count;
  const Py_ssize_t* shape;
};

// The value, or false where it needs a name that is not bound yet. Division is floor division.
bool evaluate(const Expr& e, const Value* values, i64* result);

// The letter of a plain dim or of a choice whose flag is known, else -1.
int plain_letter(const Expr& e, const Value* values);

// Which free letter an axis of this size gives, and its value: H from H, flag?K:M, 4*H or C/groups; -1 for none.
int solve(const Expr& e, const Value* values, i64 size, i64* value);

// Fills in the rest of a spec from its text; throws std::logic_error for a line that makes no sense.
void parse(Spec& spec);

// The docstring, headed by the signature that inspect.signature() reads.
std::string document(const Spec& spec, const char* doc);

}  // namespace fastdl
