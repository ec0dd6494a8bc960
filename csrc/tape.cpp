#include "tape.h"

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stddef.h>
#include <structmember.h>

#include <algorithm>
#include <new>
#include <vector>

namespace fastdl {
namespace {

struct Node {
  PyObject base;
  PyObject *data, *grad;     // arrays; grad is null while nothing has flowed back
  PyObject *parents, *step;  // a tuple; a function of the gradient or (kernel, argument...). Null for a leaf
  unsigned long long order;  // of creation, which is a topological order
  unsigned long long walk;   // the last backward pass that found this node
  double beta;               // what the next writer of grad multiplies it with: 0 overwrites, 1 adds
  char wants_grad;
};

// What use_tape was given. The process has one tape: these live as long as it.
PyTypeObject* tensor_type = nullptr;
PyObject *recording = nullptr, *new_gradient = nullptr, *spent = nullptr;
// Made once.
PyObject *no_parents = nullptr, *zero = nullptr, *one = nullptr;
PyObject* dy_mark = nullptr;  // stands for the gradient among a kernel's arguments
PyTypeObject* node_type = nullptr;
unsigned long long next_order = 0, next_walk = 1;  // under the GIL

Node* as_node(PyObject* o) { return reinterpret_cast<Node*>(o); }
PyObject* as_object(Node* n) { return reinterpret_cast<PyObject*>(n); }

// Another reference, of which the variable becomes the owner; what it held is let go last, since that may run code.
void assign(PyObject*& held, PyObject* value) {
  PyObject* before = held;
  Py_XINCREF(value);
  held = value;
  Py_XDECREF(before);
}

// ---- life ----

int init(PyObject* self, PyObject* args, PyObject* options) {
  static const char* names[] = {"data", "wants_grad", nullptr};
  PyObject* data = nullptr;
  int wants_grad = 0;
  if (!options && PyTuple_GET_SIZE(args) == 1)
    data = PyTuple_GET_ITEM(args, 0);
  else if (!PyArg_ParseTupleAndKeywords(args, options, "O|p:Tensor", const_cast<char**>(names), &data, &wants_grad))
    return -1;
  Node* n = as_node(self);
  assign(n->data, data);
  n->order = next_order++;
  n->wants_grad = char(wants_grad);
  return 0;
}

int traverse(PyObject* self, visitproc visit, void* arg) {
  Node* n = as_node(self);
  Py_VISIT(Py_TYPE(self));
  Py_VISIT(n->data);
  Py_VISIT(n->grad);
  Py_VISIT(n->parents);
  Py_VISIT(n->step);
  return 0;
}

int clear(PyObject* self) {
  Node* n = as_node(self);
  for (PyObject** held : {&n->data, &n->grad, &n->parents, &n->step}) assign(*held, nullptr);
  return 0;
}

// Graphs may be a million operations deep: Tensor's own deallocator, which calls this one, bounds the recursion.
void deallocate(PyObject* self) {
  PyObject_GC_UnTrack(self);
  clear(self);
  PyTypeObject* type = Py_TYPE(self);
  type->tp_free(self);
  Py_DECREF(type);
}

// ---- attributes ----

PyObject* get_parents(PyObject* self, void*) {
  PyObject* parents = as_node(self)->parents;
  return Py_NewRef(parents ? parents : no_parents);
}

PyObject* get_wants_grad(PyObject* self, void*) { return PyBool_FromLong(as_node(self)->wants_grad); }

int set_wants_grad(PyObject* self, PyObject* value, void*) {
  const int truth = value ? PyObject_IsTrue(value) : 0;
  if (truth < 0) return -1;
  as_node(self)->wants_grad = char(truth);
  return 0;
}

// ---- slots ----

// Where a kernel writes this node's gradient: new references, or false with an exception set.
bool take_slot(Node* n, PyObject** grad, PyObject** beta) {
  if (!n->wants_grad) {
    *grad = Py_NewRef(Py_None);
    *beta = Py_NewRef(zero);
    return true;
  }
  if (!n->grad || n->grad == Py_None) {
    if (!n->data) {
      PyErr_SetString(PyExc_AttributeError, "data: expected a tensor with an array; got one without");
      return false;
    }
    PyObject* made = PyObject_CallOneArg(new_gradient, n->data);
    if (!made) return false;
    PyObject* before = n->grad;
    n->grad = made;
    n->beta = 0.0;
    Py_XDECREF(before);
  }
  *beta = n->beta == 0.0 ? Py_NewRef(zero) : n->beta == 1.0 ? Py_NewRef(one) : PyFloat_FromDouble(n->beta);
  if (!*beta) return false;
  *grad = Py_NewRef(n->grad);
  n->beta = 1.0;
  return true;
}

PyObject* slot(PyObject* self, PyObject*) {
  PyObject *grad = nullptr, *beta = nullptr;
  if (!take_slot(as_node(self), &grad, &beta)) return nullptr;
  PyObject* result = PyTuple_Pack(2, grad, beta);
  Py_DECREF(grad);
  Py_DECREF(beta);
  return result;
}

// ---- operations ----

// A tensor of this array; *recorded says whether this thread records.
PyObject* new_tensor(PyObject* data, bool* recorded) {
  PyObject* now = nullptr;
  if (PyContextVar_Get(recording, nullptr, &now) < 0) return nullptr;
  *recorded = now == Py_True;
  Py_XDECREF(now);
  PyObject* self = tensor_type->tp_alloc(tensor_type, 0);
  if (!self) return nullptr;
  as_node(self)->data = Py_NewRef(data);
  as_node(self)->order = next_order++;
  return self;
}

PyObject* record(PyObject*, PyObject* const* args, Py_ssize_t count) {
  if (count != 3)
    return PyErr_Format(PyExc_TypeError, "record: expected data, parents, step; got %zd arguments", count);
  if (!PyCallable_Check(args[2]))  // a tuple would be taken for a kernel and its arguments
    return PyErr_Format(PyExc_TypeError, "step: expected a function; got %s", Py_TYPE(args[2])->tp_name);
  bool recorded = false;
  PyObject* self = new_tensor(args[0], &recorded);
  if (!self || !recorded) return self;
  Node* n = as_node(self);
  PyObject* parents = PySequence_Tuple(args[1]);  // a tuple is given back as it is
  if (!parents) {
    Py_DECREF(self);
    return nullptr;
  }
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(parents); ++i) {
    PyObject* p = PyTuple_GET_ITEM(parents, i);
    if (!PyObject_TypeCheck(p, node_type)) {
      PyErr_Format(PyExc_TypeError, "parents: expected Tensors; got %s", Py_TYPE(p)->tp_name);
      Py_DECREF(parents);
      Py_DECREF(self);
      return nullptr;
    }
    if (!as_node(p)->wants_grad) continue;
    n->wants_grad = 1;
    n->parents = parents;
    n->step = Py_NewRef(args[2]);
    return self;
  }
  Py_DECREF(parents);
  return self;
}

constexpr Py_ssize_t kMostArguments = 64;  // of a kernel, a tensor counted twice

PyObject* record_kernel(PyObject*, PyObject* const* args, Py_ssize_t count) {
  if (count < 2)
    return PyErr_Format(PyExc_TypeError, "record_kernel: expected data, kernel, arguments...; got %zd", count);
  bool recorded = false;
  PyObject* self = new_tensor(args[0], &recorded);
  if (!self || !recorded) return self;
  Py_ssize_t tensors = 0;
  bool wanted = false;
  for (Py_ssize_t i = 2; i < count; ++i) {
    if (!PyObject_TypeCheck(args[i], node_type)) continue;
    ++tensors;
    wanted = wanted || as_node(args[i])->wants_grad;
  }
  if (!wanted) return self;
  const bool fits = count + tensors <= kMostArguments;
  if (!fits) PyErr_Format(PyExc_TypeError, "record_kernel: expected at most %zd arguments", kMostArguments);
  PyObject *parents = fits ? PyTuple_New(tensors) : nullptr, *step = parents ? PyTuple_New(count - 1) : nullptr;
  if (!step) {
    Py_XDECREF(parents);
    Py_DECREF(self);
    return nullptr;
  }
  for (Py_ssize_t i = 1, p = 0; i < count; ++i) {
    PyTuple_SET_ITEM(step, i - 1, Py_NewRef(args[i]));
    if (i > 1 && PyObject_TypeCheck(args[i], node_type)) PyTuple_SET_ITEM(parents, p++, Py_NewRef(args[i]));
  }
  Node* n = as_node(self);
  n->wants_grad = 1;
  n->parents = parents;
  n->step = step;
  return self;
}

// Calls (kernel, argument...) with the gradient where dy_mark stands, and a slot where a tensor does.
PyObject* call_kernel(PyObject* step, PyObject* dy) {
  PyObject *args[1 + kMostArguments], *owned[kMostArguments];  // args[0] is the callee's to use
  Py_ssize_t count = 0, owners = 0;
  PyObject* result = nullptr;
  bool right = true;
  for (Py_ssize_t i = 1; right && i < PyTuple_GET_SIZE(step); ++i) {
    PyObject* o = PyTuple_GET_ITEM(step, i);
    if (PyObject_TypeCheck(o, node_type)) {
      right = take_slot(as_node(o), &owned[owners], &owned[owners + 1]);
      if (!right) break;
      args[++count] = owned[owners++];
      args[++count] = owned[owners++];
    } else {
      args[++count] = o == dy_mark ? dy : o;
    }
  }
  if (right)
    result = PyObject_Vectorcall(PyTuple_GET_ITEM(step, 0), args + 1,
                                 static_cast<size_t>(count) | PY_VECTORCALL_ARGUMENTS_OFFSET, nullptr);
  while (owners > 0) Py_DECREF(owned[--owners]);
  return result;
}

// One owned reference to every node of the graph that a backward pass has still to visit.
struct Found {
  std::vector<Node*> nodes;
  ~Found() {
    for (Node* n : nodes) Py_DECREF(n);
  }
};

bool has_step(const Node* n) { return n->step && n->step != Py_None; }

void find(Node* last, std::vector<Node*>& nodes) {
  const unsigned long long walk = ++next_walk;
  last->walk = walk;
  nodes.push_back(as_node(Py_NewRef(as_object(last))));
  bool sorted = true;
  for (size_t i = 0; i < nodes.size(); ++i) {
    PyObject* parents = nodes[i]->parents;
    for (Py_ssize_t j = 0; parents && j < PyTuple_GET_SIZE(parents); ++j) {
      PyObject* o = PyTuple_GET_ITEM(parents, j);
      Node* p = as_node(o);
      if (p->walk == walk || !has_step(p)) continue;
      p->walk = walk;
      sorted = sorted && p->order < nodes.back()->order;
      nodes.push_back(as_node(Py_NewRef(o)));
    }
  }
  auto newer = [](const Node* a, const Node* b) { return a->order > b->order; };
  if (!sorted) std::sort(nodes.begin(), nodes.end(), newer);
  std::reverse(nodes.begin(), nodes.end());  // the newest last, where it is taken from
}

PyObject* run(PyObject* self, PyObject* seed) {
  Found found;
  try {
    find(as_node(self), found.nodes);
  } catch (const std::bad_alloc&) {
    return PyErr_NoMemory();
  }
  assign(as_node(self)->grad, seed);
  while (!found.nodes.empty()) {
    Node* n = found.nodes.back();
    if (n->grad && n->grad != Py_None && has_step(n)) {
      PyObject *grad = Py_NewRef(n->grad), *step = Py_NewRef(n->step);  // the step may do anything, with this node too
      PyObject* nothing = PyTuple_CheckExact(step) ? call_kernel(step, grad) : PyObject_CallOneArg(step, grad);
      Py_DECREF(step);
      Py_DECREF(grad);
      if (!nothing) return nullptr;
      Py_DECREF(nothing);
    }
    // frees memory on the way
    assign(n->grad, nullptr);
    assign(n->parents, nullptr);
    assign(n->step, spent);
    found.nodes.pop_back();
    Py_DECREF(n);
  }
  Py_RETURN_NONE;
}

PyObject* use_tape(PyObject*, PyObject* const* args, Py_ssize_t count) {
  if (count != 4 || !PyType_Check(args[0]) || !PyType_IsSubtype(reinterpret_cast<PyTypeObject*>(args[0]), node_type) ||
      !PyContextVar_CheckExact(args[1]))
    return PyErr_Format(PyExc_TypeError, "use_tape: expected a subtype of Node, a ContextVar and two functions");
  PyObject* type = reinterpret_cast<PyObject*>(tensor_type);
  assign(type, args[0]);
  tensor_type = reinterpret_cast<PyTypeObject*>(type);
  assign(recording, args[1]);
  assign(new_gradient, args[2]);
  assign(spent, args[3]);
  Py_RETURN_NONE;
}

// ---- what a recorded step depends on ----

PyObject* walk_name = nullptr;  // "_walk", under which a module keeps what it found out by this: not looked at

// The same objects as then, each in its place? A dict's keys and values, a list's or tuple's elements, a tensor's array,
// gradient, which is whole, and whether it is wanted, or the array alone where `then` has no more; compared as objects, never by
// what they are equal to.
bool unchanged_since(PyObject* now, PyObject* then) {
  Py_ssize_t at = 0;
  const Py_ssize_t size = PyTuple_GET_SIZE(then);
  auto next_is = [&](PyObject* o) { return at < size && PyTuple_GET_ITEM(then, at++) == o; };
  if (PyDict_Check(now)) {
    PyObject *key, *value;
    for (Py_ssize_t place = 0; PyDict_Next(now, &place, &key, &value);)
      if (key != walk_name && (!next_is(key) || !next_is(value))) return false;
  } else if (PyObject_TypeCheck(now, node_type)) {
    const Node* n = as_node(now);
    if (size == 1) return next_is(n->data);
    if (n->beta != 1.0) return false;  // somebody has begun to collect gradients anew
    if (!next_is(n->data) || !next_is(n->grad ? n->grad : Py_None) || !next_is(n->wants_grad ? Py_True : Py_False))
      return false;
  } else {
    for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(now); ++i)
      if (!next_is(PySequence_Fast_GET_ITEM(now, i))) return false;
  }
  return at == size;
}

PyObject* snapshot_of(PyObject* o) {
  if (PyDict_Check(o)) {
    PyObject* list = PyList_New(0);
    PyObject *key, *value, *flat = nullptr;
    bool right = list;
    for (Py_ssize_t place = 0; right && PyDict_Next(o, &place, &key, &value);)
      right = key == walk_name || (PyList_Append(list, key) == 0 && PyList_Append(list, value) == 0);
    if (right) flat = PyList_AsTuple(list);
    Py_XDECREF(list);
    return flat;
  }
  if (PyObject_TypeCheck(o, node_type)) {
    const Node* n = as_node(o);
    return PyTuple_Pack(3, n->data, n->grad ? n->grad : Py_None, n->wants_grad ? Py_True : Py_False);
  }
  if (PyList_Check(o) || PyTuple_Check(o)) return PySequence_Tuple(o);
  return PyErr_Format(PyExc_TypeError, "snapshot: expected dicts, lists, tuples and Tensors; got %s",
                      Py_TYPE(o)->tp_name);
}

PyObject* snapshot(PyObject*, PyObject* objects) {
  if (!PyTuple_Check(objects)) return PyErr_Format(PyExc_TypeError, "snapshot: expected a tuple of objects");
  PyObject* result = PyTuple_New(PyTuple_GET_SIZE(objects));
  for (Py_ssize_t i = 0; result && i < PyTuple_GET_SIZE(objects); ++i) {
    PyObject* part = snapshot_of(PyTuple_GET_ITEM(objects, i));
    if (!part)
      Py_CLEAR(result);
    else
      PyTuple_SET_ITEM(result, i, part);
  }
  return result;
}

PyObject* unchanged(PyObject*, PyObject* const* args, Py_ssize_t count) {
  if (count != 2 || !PyTuple_Check(args[0]) || !PyTuple_Check(args[1]) ||
      PyTuple_GET_SIZE(args[0]) != PyTuple_GET_SIZE(args[1]))
    return PyErr_Format(PyExc_TypeError, "unchanged: expected a tuple of objects and their snapshot");
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(args[0]); ++i)
    if (!unchanged_since(PyTuple_GET_ITEM(args[0], i), PyTuple_GET_ITEM(args[1], i))) Py_RETURN_FALSE;
  Py_RETURN_TRUE;
}

PyMemberDef members[] = {
    {"data", T_OBJECT_EX, offsetof(Node, data), 0, nullptr},
    {"grad", T_OBJECT, offsetof(Node, grad), 0, nullptr},
    {"step", T_OBJECT, offsetof(Node, step), READONLY, nullptr},  // others may not hold too many arguments
    {"beta", T_DOUBLE, offsetof(Node, beta), 0, nullptr},
    {"order", T_ULONGLONG, offsetof(Node, order), READONLY, nullptr},
    {nullptr, 0, 0, 0, nullptr},
};

PyGetSetDef properties[] = {
    {"parents", get_parents, nullptr, nullptr, nullptr},
    {"wants_grad", get_wants_grad, set_wants_grad, nullptr, nullptr},
    {nullptr, nullptr, nullptr, nullptr, nullptr},
};

PyMethodDef methods[] = {
    {"slot", slot, METH_NOARGS,
     "Where a backward kernel writes, as (buffer, beta): buffer = new + beta * buffer. (None, 0) if not wanted."},
    {"_run", run, METH_O, "Every step recorded behind this tensor, newest first, with this gradient of it."},
    {nullptr, nullptr, 0, nullptr},
};

PyType_Slot type_slots[] = {
    {Py_tp_init, reinterpret_cast<void*>(init)},
    {Py_tp_new, reinterpret_cast<void*>(PyType_GenericNew)},
    {Py_tp_traverse, reinterpret_cast<void*>(traverse)},
    {Py_tp_clear, reinterpret_cast<void*>(clear)},
    {Py_tp_dealloc, reinterpret_cast<void*>(deallocate)},
    {Py_tp_members, members},
    {Py_tp_getset, properties},
    {Py_tp_methods, methods},
    {0, nullptr},
};

PyType_Spec type_spec = {"fastdl._runtime.Node", int(sizeof(Node)), 0,
                         Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC, type_slots};

PyMethodDef functions[] = {
    {"record", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(record)), METH_FASTCALL,
     "record(data, parents, step)\n--\n\nWrap a kernel's output; `step(dy)` writes into the parents' slots, and over "
     "dy if it "
     "wants."},
    {"record_kernel", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(record_kernel)), METH_FASTCALL,
     "record_kernel(data, kernel, *args)\n--\n\nWrap a kernel's output whose gradients another kernel writes: called "
     "with these arguments, the gradient where DY stands, and for each tensor its slot (buffer, beta)."},
    {"use_tape", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(use_tape)), METH_FASTCALL,
     "use_tape(tensor, recording, new_gradient, spent)\n--\n\nWhat record makes and whether it records; what a slot "
     "and "
     "a step that ran become."},
    {"snapshot", snapshot, METH_O,
     "snapshot(objects)\n--\n\nWhat dicts, lists, tuples and Tensors hold now, for `unchanged`, and kept alive by it."},
    {"unchanged", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(unchanged)), METH_FASTCALL,
     "unchanged(objects, snapshot)\n--\n\nWhether they hold the very same objects as then; of a Tensor for which the "
     "snapshot is (data,), whether that is its array."},
    {nullptr, nullptr, 0, nullptr},
};

}  // namespace

int add_tape(PyObject* module) {
  no_parents = PyTuple_New(0);
  zero = PyFloat_FromDouble(0.0);
  one = PyFloat_FromDouble(1.0);
  walk_name = PyUnicode_InternFromString("_walk");
  dy_mark = PyObject_CallNoArgs(reinterpret_cast<PyObject*>(&PyBaseObject_Type));
  node_type = reinterpret_cast<PyTypeObject*>(PyType_FromSpec(&type_spec));
  if (!no_parents || !zero || !one || !walk_name || !dy_mark || !node_type) return -1;
  if (PyModule_AddObjectRef(module, "Node", reinterpret_cast<PyObject*>(node_type)) < 0) return -1;
  if (PyModule_AddObjectRef(module, "DY", dy_mark) < 0) return -1;
  return PyModule_AddFunctions(module, functions);
}

}  // namespace fastdl
