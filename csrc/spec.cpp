// Parsing of argument lines, once, when a module loads; and the arithmetic over sizes that they contain.
#include "spec.h"

#include <cctype>
#include <cstring>
#include <map>
#include <new>
#include <stdexcept>

namespace fastdl {
namespace {

const std::map<std::string, Choices>& choice_types() {
  static const std::map<std::string, Choices> types = {
      {"act", {{"none", "relu", "leaky_relu", "sigmoid", "tanh", "gelu"}}},
      {"elman", {{"relu", "tanh"}}},
      {"unary", {{"negate", "abs", "square", "sqrt", "reciprocal", "exp", "log", "softplus", "sin", "cos"}}},
      {"binary", {{"add", "subtract", "multiply", "divide", "maximum", "minimum"}}},
      {"reduce", {{"sum", "mean", "max", "min"}}},
      {"reduction", {{"mean", "sum"}}},
      {"unit", {{"bernoulli", "gaussian", "relu", "softmax"}}},
      {"loss", {{"binary_cross_entropy", "squared_error", "absolute_error", "huber", "hinge"}}},
  };
  return types;
}

[[noreturn]] void bad_spec(const Spec& spec, const std::string& why) {
  throw std::logic_error(spec.name + ": bad spec: " + why + " in: " + spec.text);
}

class Parser {
 public:
  Parser(Spec& spec, const std::string& text) : spec_(spec), s_(text) {}

  void skip() {
    while (at_ < s_.size() && s_[at_] == ' ') ++at_;
  }
  bool done() {
    skip();
    return at_ >= s_.size();
  }
  bool eat(const char* token) {
    const size_t n = std::strlen(token);
    if (s_.compare(at_, n, token) != 0) return false;
    at_ += n;
    return true;
  }
  std::string word() {
    const size_t begin = at_;
    while (at_ < s_.size() && (std::isalnum(static_cast<unsigned char>(s_[at_])) || s_[at_] == '_')) ++at_;
    if (begin == at_) bad_spec(spec_, "expected a name at '" + s_.substr(at_, 12) + "'");
    return s_.substr(begin, at_ - begin);
  }
  std::string until(const char* stops) {
    const size_t begin = at_;
    while (at_ < s_.size() && !std::strchr(stops, s_[at_])) ++at_;
    return s_.substr(begin, at_ - begin);
  }
  int name_id(const std::string& name) {
    for (size_t i = 0; i < spec_.names.size(); ++i)
      if (spec_.names[i] == name) return static_cast<int>(i);
    bad_spec(spec_, "unknown name " + name);
  }

  Expr expression(const std::string& text) {
    Parser p(spec_, text);
    Expr e;
    e.text = text;
    p.choice(e);
    if (!p.done()) bad_spec(spec_, "expression " + text);
    if (e.ops.size() == 1 && e.ops[0].code == 'n') e.letter = e.ops[0].name;
    return e;
  }

  size_t at_ = 0;

 private:
  void choice(Expr& e) {
    sum(e);
    if (eat("?")) {
      sum(e);
      if (!eat(":")) bad_spec(spec_, "expected : in " + s_);
      sum(e);
      e.ops.push_back({'?', 0, 0});
    }
  }
  void sum(Expr& e) {
    product(e);
    while (at_ < s_.size() && (s_[at_] == '+' || s_[at_] == '-')) {
      const char code = s_[at_++];
      product(e);
      e.ops.push_back({code, 0, 0});
    }
  }
  void product(Expr& e) {
    atom(e);
    while (at_ < s_.size() && (s_[at_] == '*' || s_[at_] == '/' || s_[at_] == '%')) {
      const char code = s_[at_++];
      atom(e);
      e.ops.push_back({code, 0, 0});
    }
  }
  void atom(Expr& e) {
    if (eat("(")) {
      choice(e);
      if (!eat(")")) bad_spec(spec_, "expected ) in " + s_);
    } else if (at_ < s_.size() && (std::isdigit(static_cast<unsigned char>(s_[at_])) || s_[at_] == '-')) {
      size_t used = 0;
      const i64 value = std::stoll(s_.substr(at_), &used);
      at_ += used;
      e.ops.push_back({'c', 0, value});
    } else {
      e.ops.push_back({'n', name_id(word()), 0});
    }
  }

  Spec& spec_;
  const std::string s_;
};

}  // namespace

// As repr() writes it.
static std::string python_float(double value) {
  char* text = PyOS_double_to_string(value, 'r', 0, Py_DTSF_ADD_DOT_0, nullptr);
  if (!text) throw std::bad_alloc();
  const std::string result = text;
  PyMem_Free(text);
  return result;
}

[[noreturn]] static void overflow(const Expr& e) {
  throw std::overflow_error("sizes: expected numbers that fit in 64 bits; got more in " + e.text);
}

bool evaluate(const Expr& e, const Value* values, i64* result) {
  if (e.letter >= 0) {
    *result = values[e.letter].i;
    return values[e.letter].bound;
  }
  i64 stack[16];
  bool known[16];
  int top = 0;
  for (const Op& op : e.ops) {
    if (op.code == 'n') {
      stack[top] = values[op.name].i;
      known[top++] = values[op.name].bound;
      continue;
    }
    if (op.code == 'c') {
      stack[top] = op.constant;
      known[top++] = true;
      continue;
    }
    if (op.code == '?') {
      top -= 2;
      if (!known[top - 1]) return false;
      const int chosen = stack[top - 1] ? top : top + 1;
      known[top - 1] = known[chosen];
      stack[top - 1] = stack[chosen];
      continue;
    }
    --top;
    const i64 b = stack[top];
    i64& a = stack[top - 1];
    known[top - 1] = known[top - 1] && known[top];
    bool too_large = false;
    if (op.code == '+') too_large = __builtin_add_overflow(a, b, &a);
    if (op.code == '-') too_large = __builtin_sub_overflow(a, b, &a);
    if (op.code == '*') too_large = __builtin_mul_overflow(a, b, &a);
    if (too_large && known[top - 1]) overflow(e);
    // Floor division, so that a filter larger than its padded image gives P <= 0 and not 1.
    if (op.code == '/') a = b == 0 ? 0 : (a >= 0 ? a / b : -((-a + b - 1) / b));
    if (op.code == '%') a = b == 0 ? 0 : a % b;
  }
  *result = stack[0];
  return known[0];
}

int plain_letter(const Expr& e, const Value* values) {
  if (e.letter >= 0) return e.letter;
  if (e.ops.size() == 4 && e.ops[3].code == '?' && values[e.ops[0].name].bound)
    return e.ops[values[e.ops[0].name].i ? 1 : 2].name;
  return -1;
}

int solve(const Expr& e, const Value* values, i64 size, i64* value) {
  *value = size;
  const int letter = plain_letter(e, values);
  if (letter >= 0) return letter;
  if (e.ops.size() != 3) return -1;
  if (e.ops[2].code == '/' && e.ops[0].code == 'n' && e.ops[1].code == 'n' && values[e.ops[1].name].bound) {
    if (__builtin_mul_overflow(size, values[e.ops[1].name].i, value)) overflow(e);
    return e.ops[0].name;
  }
  if (e.ops[2].code == '*' && e.ops[0].code == 'c' && e.ops[1].code == 'n') {
    *value = size / e.ops[0].constant;  // where it does not divide, the check of the shape finds it
    return e.ops[1].name;
  }
  return -1;
}

namespace {

Slot parse_default(const Spec& spec, const Argument& a, const std::string& text) {
  Slot slot{};
  if (a.kind == Kind::real) {
    slot.f = std::stod(text);
  } else if (a.kind == Kind::choice) {
    for (size_t i = 0; i < a.choices->names.size(); ++i) {
      if (text == a.choices->names[i]) {
        slot.i = static_cast<i64>(i);
        return slot;
      }
    }
    bad_spec(spec, "default " + text);
  } else {
    slot.i = std::stoll(text);
  }
  return slot;
}

void parse_step(Spec& spec, Parser& p) {
  static const char* const fields[] = {"seed", "offset", "t", "lr"};
  ++spec.slots;  // one StepState, whatever its fields
  do {
    Argument a;
    a.kind = Kind::step;
    a.name = p.word();
    for (int i = 0; i < 4; ++i)
      if (a.name == fields[i]) a.field = i;
    if (a.field < 0) bad_spec(spec, "step field " + a.name);
    if (p.eat("=")) {
      a.has_default = true;
      a.initial.i = std::stoll(p.until(",)"));
    }
    spec.args.push_back(std::move(a));
  } while (p.eat(","));
  if (!p.eat(")")) bad_spec(spec, "expected )");
}

void parse_argument(Spec& spec, Parser& p) {
  Argument a;
  a.name = p.word();
  if (a.name == "step" && p.eat("(")) return parse_step(spec, p);
  for (bool more = true; more;) {
    more = false;
    if (p.eat(">")) a.kind = Kind::output, more = true;
    if (p.eat("&")) a.kind = Kind::in_out, more = true;
    if (p.eat("*")) a.kind = Kind::work, more = true;
    if (p.eat("~")) a.in_place = true, more = true;
    if (p.eat("??")) a.optional = a.absent_if_left = true, more = true;
    if (p.eat("?")) a.optional = true, more = true;
  }
  if (a.kind == Kind::input || a.kind == Kind::in_out) a.absent_if_left = a.optional;
  std::string type;
  if (p.eat(":")) type = p.word();
  if (p.eat("[")) {
    if (type == "u8")
      a.dtype = DType::uint8;
    else if (type == "i64")
      a.dtype = DType::int64;
    else if (type == "u32")
      a.dtype = DType::uint32;
    else if (!type.empty())
      bad_spec(spec, "element type " + type);
    if (!p.eat("]")) {
      do {
        std::string dim = p.until(",]");
        if (dim.size() > 3 && dim.compare(dim.size() - 3, 3, "...") == 0) {
          if (!a.dims.empty()) bad_spec(spec, "prefix must come first");
          a.prefix = true;
          dim.resize(dim.size() - 3);
        }
        a.dims.push_back(p.expression(dim));
      } while (p.eat(","));
      if (!p.eat("]")) bad_spec(spec, "expected ]");
    }
    if (p.eat("{")) {
      a.bounded = true;
      a.low = p.expression(p.until("."));
      if (!p.eat("..")) bad_spec(spec, "expected ..");
      a.high = p.expression(p.until("}<!"));
      if (p.eat("<")) {
        a.by = p.word();
      } else if (p.eat("!")) {
        a.except = p.expression(p.until(":"));
        if (!p.eat(":")) bad_spec(spec, "expected :");
        a.by = p.word();
      }
      if (!p.eat("}")) bad_spec(spec, "expected }");
    }
  } else if (a.kind == Kind::work) {
    if (!spec.workspace) bad_spec(spec, "work without a workspace function");
  } else {
    if (type == "f")
      a.kind = Kind::real;
    else if (type == "i")
      a.kind = Kind::integer;
    else if (type == "b")
      a.kind = Kind::flag;
    else if (choice_types().count(type))
      a.kind = Kind::choice, a.choices = &choice_types().at(type);
    else
      bad_spec(spec, "type of " + a.name);
    a.name_id = static_cast<int>(spec.names.size());
    spec.names.push_back(a.name);
  }
  if (p.eat("=")) {
    a.has_default = true;
    a.initial = parse_default(spec, a, p.until(" ;!"));
  }
  a.border_only = p.eat("!");
  if (!a.border_only) ++spec.slots;
  if (a.kind == Kind::output && !(a.optional && a.absent_if_left)) ++spec.outputs;
  spec.args.push_back(std::move(a));
}

// Scalars may be used by shapes that stand before them, so their names are collected ahead of the rest.
std::vector<std::string> scalar_names(const std::string& text) {
  std::vector<std::string> found;
  size_t begin = 0;
  while (begin < text.size()) {
    size_t end = text.find(' ', begin);
    if (end == std::string::npos) end = text.size();
    const std::string token = text.substr(begin, end - begin);
    const size_t colon = token.find(':');
    if (colon != std::string::npos && token.find('[') == std::string::npos && token.find('(') == std::string::npos)
      found.push_back(token.substr(0, colon));
    begin = end + 1;
  }
  return found;
}

}  // namespace

void parse(Spec& spec) {
  const size_t first = spec.text.find(';');
  if (first == std::string::npos) bad_spec(spec, "no sizes");
  size_t second = spec.text.find(';', first + 1);
  if (second == std::string::npos) second = spec.text.size();
  const std::string sizes = spec.text.substr(0, first), body = spec.text.substr(first + 1, second - first - 1);
  const std::string rest = second < spec.text.size() ? spec.text.substr(second + 1) : "";

  Parser letters(spec, sizes);
  while (!letters.done()) spec.names.push_back(letters.word());
  spec.sizes = spec.slots = static_cast<int>(spec.names.size());
  const std::vector<std::string> scalars = scalar_names(body);
  const std::vector<std::string> before = spec.names;
  spec.names.insert(spec.names.end(), scalars.begin(), scalars.end());
  const std::vector<std::string> all = spec.names;

  Parser p(spec, body);
  while (!p.done()) parse_argument(spec, p);
  // parse_argument appended each scalar's name again: put the ids where the early ones are.
  spec.names = all;
  for (Argument& a : spec.args) {
    if (a.name_id < 0) continue;
    for (size_t i = before.size(); i < all.size(); ++i)
      if (all[i] == a.name) a.name_id = static_cast<int>(i);
  }

  Parser c(spec, rest);
  while (!c.done()) {
    Condition condition;
    Parser one(spec, c.until(","));
    one.skip();
    const std::string left = one.until("=<>:");
    condition.left = one.expression(left);
    for (const char* r : {":=", ">=", "<=", "=", "<", ">"}) {
      if (one.eat(r)) {
        std::strcpy(condition.relation, r);
        break;
      }
    }
    condition.right = one.expression(one.until(""));
    condition.text = left + (std::strcmp(condition.relation, ":=") ? condition.relation : "=") + condition.right.text;
    for (const Op& op : condition.left.ops)
      if (op.code == 'n' && condition.subject < 0) condition.subject = op.name;
    spec.conditions.push_back(std::move(condition));
    c.eat(",");
  }
  for (const Argument& a : spec.args) {
    if (a.by.empty()) continue;
    bool found = false;
    for (const Argument& other : spec.args) found = found || (other.name == a.by && other.bounded);
    if (!found || a.dims.size() != 2) bad_spec(spec, "values by " + a.by);
  }
  for (Argument& a : spec.args) a.key = PyUnicode_InternFromString(a.name.c_str());
  if (spec.names.size() > kMaxNames || spec.slots + 1 > kMaxSlots) bad_spec(spec, "too many names");
}

// "name(x, w, b=None, ...)\n--\n\n" gives inspect.signature() what it needs; then the doc and the parameters' table.
std::string document(const Spec& spec, const char* doc) {
  std::string signature = spec.name + "(", table;
  bool first = true, may_be_left_out = false, named_only = false;
  for (const Argument& a : spec.args) {
    const bool optional = a.absent_if_left || a.kind == Kind::output || a.kind == Kind::work;
    signature += first ? "" : ", ";
    first = false;
    if (may_be_left_out && !named_only && !optional && !a.has_default) {  // Python's rule: from here on by name
      signature += "*, ";
      named_only = true;
    }
    may_be_left_out = may_be_left_out || optional || a.has_default;
    signature += a.name;
    if (optional) signature += "=None";
    std::string type;
    if (a.kind <= Kind::in_out) {
      type = std::string(dtype_name(a.dtype)) + " [";
      for (size_t d = 0; d < a.dims.size(); ++d)
        type += (d ? "," : "") + a.dims[d].text + (d == 0 && a.prefix ? "..." : "");
      type += "]";
      if (a.kind == Kind::output)
        type += a.absent_if_left ? ", written if given"
                : a.optional     ? ", made if left out, None if not wanted"
                                 : ", made if left out";
      else if (a.kind == Kind::in_out)
        type += a.optional ? ", updated if given" : ", updated";
      else if (a.optional)
        type += ", optional";
    } else if (a.kind == Kind::work) {
      type = "float32 scratch, made if left out";
    } else if (a.kind == Kind::choice) {
      type = "{";
      for (size_t i = 0; i < a.choices->names.size(); ++i) type += (i ? ", " : "") + std::string(a.choices->names[i]);
      type += "}";
      if (a.has_default) signature += std::string("='") + a.choices->names[static_cast<size_t>(a.initial.i)] + "'";
    } else {
      const bool real = a.kind == Kind::real || a.field == 3;
      type = real ? "float" : a.kind == Kind::flag ? "bool" : "int";
      if (a.has_default) {
        signature += "=" + (real ? python_float(a.initial.f) : std::to_string(a.initial.i));
      }
    }
    table += a.name + " : " + type + "\n";
  }
  return signature + ")\n--\n\n" + doc + "\n\nParameters\n----------\n" + table;
}

}  // namespace fastdl
