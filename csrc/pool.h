// A caching allocator for the data of NumPy's arrays, put under NumPy by its own means (NEP 49). A training step
// allocates the same sizes every time; kept here between steps, its memory costs no page faults. All blocks are 64-byte
// aligned.
//
//   payload <= 4 KiB   64-byte size classes, a few free blocks of each kept by every thread, no lock
//   payload >  4 KiB   eight size classes per power of two (at most 1/8 wasted), kept by the process under one lock;
//   what was
//                      freed longest ago goes back to the system when the kept bytes pass the limit
//
// Each block carries its size in front, so arrays outlive the context that made them, may be resized, and may be freed
// by another thread. Nothing here needs the GIL but the functions that take or return Python objects.
#pragma once
#include <stddef.h>
#include <stdint.h>

extern "C" {
struct _object;
typedef struct _object PyObject;
}

namespace fastdl {

// ---- what the binding binds; with the GIL (or an attached thread), errors as set Python exceptions and a null result
// ----

// The handler: a capsule named "mem_handler" that holds NumPy's PyDataMem_Handler. New reference; the same one each
// time.
PyObject* pool_handler();

// Makes this pool NumPy's allocator in the current context (contextvars' sense: this thread, this task). Returns the
// handler that was in force, a new reference to hand to leave(); None where FASTDL_POOL=0 turned the pool off.
PyObject* enter();

// Puts `previous`, from enter(), back in force. 0, or -1 with an exception set. Does not steal the reference.
int leave(PyObject* previous);

// An arena: blocks of the pool that come back to it and to nobody else, so that what arrays made inside it leave behind is
// theirs alone until the arena ends. One that has taken more than `most` bytes is no longer that: its blocks go back to the
// pool as they become free. A new capsule like pool_handler()'s, which ends with its last array.
PyObject* new_arena(size_t most);

// As enter(), for an arena, whether the pool is on or not.
PyObject* enter_arena(PyObject* capsule);

// Bytes that an arena has taken; 0 with an exception set for anything else.
size_t arena_bytes(PyObject* capsule);

// ---- plain C++; may be called from any thread, with or without the GIL ----

// Blocks above 4 KiB only: those below are the threads' own and are not counted (at most 1 MiB a thread).
struct PoolStatistics {
  size_t bytes_in_use;  // payload capacity of blocks that arrays hold now
  size_t bytes_cached;  // of free blocks kept
  size_t limit_bytes;   // the most that bytes_cached may be
  uint64_t hits;        // allocations served from kept blocks
  uint64_t misses;      // allocations that went to the system
};
PoolStatistics pool_statistics();

// Gives all kept blocks back to the system, and the calling thread's own small ones.
void empty_cache();

// The most bytes of free blocks that are kept; what is above is given back at once. Default: 1 GiB, or a quarter of the
// machine's memory where that is less.
void set_pool_limit(size_t bytes);

// False if FASTDL_POOL=0 (for sanitizers and for comparisons). Read once.
bool pool_enabled();

// The allocator itself, as NumPy calls it. nullptr when there is no memory.
void* pool_malloc(size_t bytes);
void* pool_calloc(size_t count, size_t bytes);
void* pool_realloc(void* payload, size_t bytes);
void pool_free(void* payload);

}  // namespace fastdl
