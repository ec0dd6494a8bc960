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
  PyObject_HEAD PyObject *data, *grad;  // arrays; grad is null while nothing has flowed back
  PyObject *parents, *step;             // a tuple; what is called with the gradient. Null for a leaf
  unsigned long long order;             // of creation, which is a topological order
  unsigned long long walk;              // the last backward pass that found this node
  double beta;  // what the next writer of grad multiplies it with: the first overwrites, later ones add
  char wants_grad;
};

// What use_tape was given. The process has one tape: these live as long as it.
PyTypeObject* tensor_type = nullptr;
PyObject *recording = nullptr, *new_gradient = nullptr, *spent = nullptr;
// Made once: no tuple of a slot() is ever changed by who gets it.
PyObject *no_parents = nullptr, *no_slot = nullptr, *zero = nullptr, *one = nullptr;
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

int set_parents(PyObject* self, PyObject* value, void*) {
  PyObject* parents = value ? PySequence_Tuple(value) : nullptr;
  if (value && !parents) return -1;
  PyObject* before = as_node(self)->parents;
  as_node(self)->parents = parents;
  Py_XDECREF(before);
  return 0;
}

PyObject* get_wants_grad(PyObject* self, void*) { return PyBool_FromLong(as_node(self)->wants_grad); }

int set_wants_grad(PyObject* self, PyObject* value, void*) {
  const int truth = value ? PyObject_IsTrue(value) : 0;
  if (truth < 0) return -1;
  as_node(self)->wants_grad = char(truth);
  return 0;
}

// ---- slots ----

PyObject* pair(PyObject* grad, PyObject* beta) {
  PyObject* result = PyTuple_New(2);
  if (!result) return nullptr;
  PyTuple_SET_ITEM(result, 0, Py_NewRef(grad));
  PyTuple_SET_ITEM(result, 1, Py_NewRef(beta));
  return result;
}

PyObject* slot(PyObject* self, PyObject*) {
  Node* n = as_node(self);
  if (!n->wants_grad) return Py_NewRef(no_slot);
  if (!n->grad || n->grad == Py_None) {
    PyObject* grad = PyObject_CallOneArg(new_gradient, n->data);
    if (!grad) return nullptr;
    PyObject* before = n->grad;
    n->grad = grad;
    n->beta = 0.0;
    Py_XDECREF(before);
  }
  const double beta = n->beta;
  n->beta = 1.0;
  if (beta == 0.0) return pair(n->grad, zero);
  if (beta == 1.0) return pair(n->grad, one);
  PyObject* other = PyFloat_FromDouble(beta);
  if (!other) return nullptr;
  PyObject* result = pair(n->grad, other);
  Py_DECREF(other);
  return result;
}

// ---- operations ----

PyObject* record(PyObject*, PyObject* const* args, Py_ssize_t count) {
  if (count != 3)
    return PyErr_Format(PyExc_TypeError, "record: expected data, parents, step; got %zd arguments", count);
  PyObject* now = nullptr;
  if (PyContextVar_Get(recording, nullptr, &now) < 0) return nullptr;
  const bool recorded = now == Py_True;
  Py_XDECREF(now);
  PyObject* self = tensor_type->tp_alloc(tensor_type, 0);
  if (!self) return nullptr;
  Node* n = as_node(self);
  n->data = Py_NewRef(args[0]);
  n->order = next_order++;
  if (!recorded) return self;
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
      if (!PyObject_TypeCheck(o, node_type)) continue;  // set by hand
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
      PyObject* nothing = PyObject_CallOneArg(step, grad);
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

PyMemberDef members[] = {
    {"data", T_OBJECT_EX, offsetof(Node, data), 0, nullptr},
    {"grad", T_OBJECT, offsetof(Node, grad), 0, nullptr},
    {"step", T_OBJECT, offsetof(Node, step), 0, nullptr},
    {"beta", T_DOUBLE, offsetof(Node, beta), 0, nullptr},
    {"order", T_ULONGLONG, offsetof(Node, order), READONLY, nullptr},
    {nullptr, 0, 0, 0, nullptr},
};

PyGetSetDef properties[] = {
    {"parents", get_parents, set_parents, nullptr, nullptr},
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
     "record(data, parents, step)\n--\n\nWrap a kernel's output; `step(dy)` writes into the parents' slots."},
    {"use_tape", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(use_tape)), METH_FASTCALL,
     "use_tape(tensor, recording, new_gradient, spent)\n--\n\nWhat record makes and whether it records; what a slot "
     "and "
     "a step that ran become."},
    {nullptr, nullptr, 0, nullptr},
};

}  // namespace

int add_tape(PyObject* module) {
  no_parents = PyTuple_New(0);
  zero = PyFloat_FromDouble(0.0);
  one = PyFloat_FromDouble(1.0);
  if (!no_parents || !zero || !one) return -1;
  no_slot = pair(Py_None, zero);
  node_type = reinterpret_cast<PyTypeObject*>(PyType_FromSpec(&type_spec));
  if (!no_slot || !node_type) return -1;
  return PyModule_AddObjectRef(module, "Node", reinterpret_cast<PyObject*>(node_type)) < 0
             ? -1
             : PyModule_AddFunctions(module, functions);
}

}  // namespace fastdl
