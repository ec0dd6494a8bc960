// First the allocator, then its place under NumPy.
#include "pool.h"

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <pthread.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <new>
#include <vector>

namespace fastdl {
namespace {

constexpr size_t kAlign = 64, kPage = 4096, kHugePage = size_t(2) << 20;
constexpr size_t kSmall = 4096;  // largest payload on the small path
constexpr int kSmallClasses = kSmall / kAlign;
constexpr int kKept = 8;               // free blocks that a thread keeps of each small class
constexpr int kSteps = 8;              // large classes per power of two
constexpr int kLargeClasses = 8 * 40;  // up to 2^52 bytes
// Below this, blocks come from malloc: the kernel allows a process only some 65,000 mappings.
constexpr size_t kMapped = size_t(128) << 10;
// Mapped blocks begin at different lines of a page, in turn: were all arrays aligned alike, a loop over several of them
// would have its loads taken for its last stores, and its lines meet in few cache sets. Measured: 5 to 8 % of a pass
// over four arrays.
constexpr size_t kStagger = 9 * kAlign, kStaggers = 8;

// In front of every payload, whatever its size.
struct Tag {
  void* start;  // what the system gave
  uint32_t size_class;
  uint32_t kind;  // kSmallKind or kLargeKind; anything else is a block that is not ours or was overrun
};
constexpr uint32_t kSmallKind = 0x5fa57d10, kLargeKind = 0x1fa57d10;

// In front of every large payload: 64 bytes, the tag last so that it is where free() looks for it.
struct alignas(kAlign) Large {
  Large *newer, *older;  // all kept blocks, in the order in which they were freed
  Large *above, *below;  // kept blocks of the same class, a stack
  size_t mapped;         // bytes to unmap, 0 if from malloc
  size_t unused;
  Tag tag;

  void* payload() { return this + 1; }
};
static_assert(sizeof(Large) == kAlign, "the payload behind it must be 64-byte aligned");

Tag* tag_of(void* payload) { return static_cast<Tag*>(payload) - 1; }
Large* large_of(void* payload) { return static_cast<Large*>(payload) - 1; }

// Class c holds payloads up to kSmall * 2^(c / 8) * (1 + (c % 8 + 1) / 8).
size_t capacity(int size_class) {
  const size_t base = kSmall << (size_class / kSteps);
  return base + base / kSteps * size_t(size_class % kSteps + 1);
}

int class_of(size_t bytes) {                          // bytes > kSmall
  const int power = 63 - __builtin_clzll(bytes - 1);  // 2^power < bytes <= 2^(power + 1)
  const size_t base = size_t(1) << power;
  return (power - 12) * kSteps + int((bytes - base - 1) / (base / kSteps));
}

// ---- large blocks ----

// Never destroyed: arrays may be freed during and after static destruction.
struct Cache {
  pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
  Large* top[kLargeClasses] = {};
  Large *newest = nullptr, *oldest = nullptr;
  size_t limit = 0;  // 0: not yet found
  size_t cached = 0, in_use = 0;
  uint64_t hits = 0, misses = 0;
};
Cache cache;

class Locked {
 public:
  Locked() { pthread_mutex_lock(&cache.lock); }
  ~Locked() { pthread_mutex_unlock(&cache.lock); }
  Locked(const Locked&) = delete;
  Locked& operator=(const Locked&) = delete;
};

void before_fork() { pthread_mutex_lock(&cache.lock); }
void after_fork() { pthread_mutex_unlock(&cache.lock); }
void after_fork_in_child() { pthread_mutex_init(&cache.lock, nullptr); }
// At load time, before any other thread can hold the lock at a fork.
const int registered = pthread_atfork(before_fork, after_fork, after_fork_in_child);

size_t limit() {  // locked
  if (cache.limit == 0) {
    const long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    const size_t quarter = pages > 0 && page > 0 ? size_t(pages) * size_t(page) / 4 : size_t(1) << 28;
    cache.limit = quarter < (size_t(1) << 30) ? quarter : size_t(1) << 30;
  }
  return cache.limit;
}

// Takes a kept block out of both lists. Locked.
void unlink(Large* b) {
  (b->newer ? b->newer->older : cache.newest) = b->older;
  (b->older ? b->older->newer : cache.oldest) = b->newer;
  (b->above ? b->above->below : cache.top[b->tag.size_class]) = b->below;
  if (b->below) b->below->above = b->above;
  cache.cached -= capacity(int(b->tag.size_class));
}

// Takes out the oldest blocks until at most `bytes` are kept; they are chained by `below` for give_back, which is for
// after the lock. Locked.
Large* trim(size_t bytes) {
  Large* chain = nullptr;
  while (cache.cached > bytes) {
    Large* b = cache.oldest;
    unlink(b);
    b->below = chain;
    chain = b;
  }
  return chain;
}

void give_back(Large* chain) {
  while (chain) {
    Large* next = chain->below;
    if (chain->mapped)
      munmap(chain->tag.start, chain->mapped);
    else
      free(chain->tag.start);
    chain = next;
  }
}

// A block from the system; all zero if mapped. Huge pages take blocks that start at their borders.
Large* large_from_system(int size_class) {
  if (capacity(size_class) < kMapped) {
    char* start = static_cast<char*>(malloc(capacity(size_class) + sizeof(Large) + kAlign));
    if (!start) return nullptr;
    Large* b = reinterpret_cast<Large*>(start + (kAlign - reinterpret_cast<uintptr_t>(start) % kAlign) % kAlign);
    b->mapped = 0;
    b->tag = {start, uint32_t(size_class), kLargeKind};
    return b;
  }
  static std::atomic<size_t> turn{0};
  const size_t stagger = turn.fetch_add(1, std::memory_order_relaxed) % kStaggers * kStagger;
  const size_t wanted = (capacity(size_class) + sizeof(Large) + stagger + kPage - 1) / kPage * kPage;
  const bool huge = wanted >= kHugePage;
  const size_t slack = huge ? kHugePage - kPage : 0;
  void* got = mmap(nullptr, wanted + slack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (got == MAP_FAILED) return nullptr;
  char* start = static_cast<char*>(got);
  if (huge) {
    const size_t before = (kHugePage - reinterpret_cast<uintptr_t>(start) % kHugePage) % kHugePage;
    if (before) munmap(start, before);
    if (slack > before) munmap(start + before + wanted, slack - before);
    start += before;
#if defined(MADV_HUGEPAGE)
    madvise(start, wanted, MADV_HUGEPAGE);
#endif
  }
  Large* b = reinterpret_cast<Large*>(start + stagger);
  b->mapped = wanted;
  b->tag = {start, uint32_t(size_class), kLargeKind};
  return b;
}

void* large_malloc(size_t bytes, bool* zeroed) {
  *zeroed = false;
  if (bytes > size_t(1) << 50) return nullptr;
  const int size_class = class_of(bytes);
  {
    Locked locked;
    if (Large* b = cache.top[size_class]) {
      unlink(b);
      cache.hits++;
      cache.in_use += capacity(size_class);
      return b->payload();
    }
  }
  Large* b = large_from_system(size_class);
  if (!b) {  // what we keep may be what is missing
    empty_cache();
    b = large_from_system(size_class);
    if (!b) return nullptr;
  }
  *zeroed = b->mapped != 0;
  Locked locked;
  cache.misses++;
  cache.in_use += capacity(size_class);
  return b->payload();
}

void large_free(void* payload) {
  Large* b = large_of(payload);
  const size_t bytes = capacity(int(b->tag.size_class));
  Large* gone;
  {
    Locked locked;
    cache.in_use -= bytes;
    b->newer = nullptr;
    b->older = cache.newest;
    (cache.newest ? cache.newest->newer : cache.oldest) = b;
    cache.newest = b;
    b->above = nullptr;
    b->below = cache.top[b->tag.size_class];
    if (b->below) b->below->above = b;
    cache.top[b->tag.size_class] = b;
    cache.cached += bytes;
    // A block above the whole limit must not drive all the others out before it goes itself.
    if (bytes > limit()) {
      unlink(b);
      b->below = nullptr;
      gone = b;
    } else {
      gone = trim(limit());
    }
  }
  give_back(gone);
}

// ---- small blocks ----

void* small_from_system(int size_class) {
  const size_t bytes = size_t(size_class + 1) * kAlign;
  // malloc aligns to 16 and is much quicker than aligned_alloc: going up to the next multiple of 64 leaves 16 to 64
  // bytes in front, enough for the tag.
  static_assert(sizeof(Tag) == 16 && alignof(max_align_t) >= 16, "the tag fits in what aligning leaves");
  char* start = static_cast<char*>(malloc(bytes + kAlign));
  if (!start) return nullptr;
  char* payload = start + (kAlign - reinterpret_cast<uintptr_t>(start) % kAlign);
  *tag_of(payload) = {start, uint32_t(size_class), kSmallKind};
  return payload;
}

struct Small {
  unsigned char count[kSmallClasses] = {};
  bool closed = false;  // the thread is ending: later frees (from other destructors) go straight to the system
  void* block[kSmallClasses][kKept];

  void clear() {
    for (int c = 0; c < kSmallClasses; c++)
      while (count[c]) free(tag_of(block[c][--count[c]])->start);
  }
  ~Small() {
    closed = true;
    clear();
  }
};
thread_local Small small;

}  // namespace

void* pool_malloc(size_t bytes) {
  if (bytes > kSmall) {
    bool zeroed;
    return large_malloc(bytes, &zeroed);
  }
  const int size_class = bytes ? int((bytes - 1) / kAlign) : 0;
  Small& own = small;
  if (own.count[size_class]) return own.block[size_class][--own.count[size_class]];
  return small_from_system(size_class);
}

void* pool_calloc(size_t count, size_t bytes) {
  size_t total;
  if (__builtin_mul_overflow(count, bytes, &total)) return nullptr;
  bool zeroed = false;
  void* payload = total > kSmall ? large_malloc(total, &zeroed) : pool_malloc(total);
  if (payload && !zeroed) memset(payload, 0, total);
  return payload;
}

void pool_free(void* payload) {
  if (!payload) return;
  Tag* tag = tag_of(payload);
  if (tag->kind == kLargeKind) {
    large_free(payload);
    return;
  }
  if (tag->kind != kSmallKind) abort();  // not ours, or the bytes in front were overwritten: going on would spread it
  Small& own = small;
  const uint32_t c = tag->size_class;
  if (own.count[c] < kKept && !own.closed)
    own.block[c][own.count[c]++] = payload;
  else
    free(tag->start);
}

namespace {
size_t held_by(void* payload) {
  const Tag* tag = tag_of(payload);
  return tag->kind == kLargeKind ? capacity(int(tag->size_class)) : size_t(tag->size_class + 1) * kAlign;
}
}  // namespace

void* pool_realloc(void* payload, size_t bytes) {
  if (!payload) return pool_malloc(bytes);
  const size_t had = held_by(payload);
  // In place if it fits and at most half of it would lie idle.
  if (bytes <= had && bytes >= had / 2) return payload;
  void* moved = pool_malloc(bytes);
  if (!moved) return nullptr;
  memcpy(moved, payload, bytes < had ? bytes : had);
  pool_free(payload);
  return moved;
}

PoolStatistics pool_statistics() {
  Locked locked;
  return {cache.in_use, cache.cached, limit(), cache.hits, cache.misses};
}

void empty_cache() {
  small.clear();
  Large* gone;
  {
    Locked locked;
    gone = trim(0);
  }
  give_back(gone);
}

void set_pool_limit(size_t bytes) {
  Large* gone;
  {
    Locked locked;
    cache.limit = bytes ? bytes : 1;  // 0 stands for "not yet found"; one byte keeps nothing either
    gone = trim(cache.limit);
  }
  give_back(gone);
}

bool pool_enabled() {
  static std::atomic<int> known{-1};
  int on = known.load(std::memory_order_relaxed);
  if (on < 0) {
    const char* text = getenv("FASTDL_POOL");
    on = !(text && strcmp(text, "0") == 0);
    known.store(on, std::memory_order_relaxed);
  }
  return on != 0;
}

// ---- NumPy ----

namespace {

// NumPy's PyDataMem_Handler, version 1, as NEP 49 and its C API reference fix it. Written out here because building
// needs no NumPy; NumPy keeps older versions' layouts, as every compiled extension relies on them.
struct Allocator {
  void* context;
  void* (*malloc)(void* context, size_t bytes);
  void* (*calloc)(void* context, size_t count, size_t bytes);
  void* (*realloc)(void* context, void* payload, size_t bytes);
  void (*free)(void* context, void* payload, size_t bytes);
};
struct Handler {
  char name[127];
  uint8_t version;
  Allocator allocator;
};
static_assert(offsetof(Handler, allocator) == 128, "NumPy's layout");

// The size that NumPy passes to free is not used: views and resizes can make it differ from what was allocated.
Handler handler = {"fastdl",
                   1,
                   {nullptr, [](void*, size_t bytes) { return pool_malloc(bytes); },
                    [](void*, size_t count, size_t bytes) { return pool_calloc(count, bytes); },
                    [](void*, void* payload, size_t bytes) { return pool_realloc(payload, bytes); },
                    [](void*, void* payload, size_t) { pool_free(payload); }}};

// ---- arenas ----

// Its handler is what NumPy finds in the capsule, and every array keeps the capsule that it came from: so an arena lives as
// long as its arrays, whoever else has let go of it.
struct Arena {
  Handler handler;  // first
  pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
  std::vector<void*> small[kSmallClasses], large[kLargeClasses];  // free blocks
  size_t taken = 0, most;                                         // bytes from the pool

  std::vector<void*>& of(size_t bytes) {
    return bytes > kSmall ? large[class_of(bytes)] : small[bytes ? (bytes - 1) / kAlign : 0];
  }
  void* allocate(size_t bytes) {
    if (bytes > size_t(1) << 50) return nullptr;
    pthread_mutex_lock(&lock);
    std::vector<void*>& free_blocks = of(bytes);
    void* payload = nullptr;
    if (!free_blocks.empty()) {
      payload = free_blocks.back();
      free_blocks.pop_back();
    } else {
      taken += bytes;
    }
    pthread_mutex_unlock(&lock);
    return payload ? payload : pool_malloc(bytes);
  }
  void release(void* payload) {
    if (!payload) return;
    const Tag* tag = tag_of(payload);
    pthread_mutex_lock(&lock);
    const bool kept = taken <= most;
    if (kept) (tag->kind == kLargeKind ? large : small)[tag->size_class].push_back(payload);
    pthread_mutex_unlock(&lock);
    if (!kept) pool_free(payload);
  }
  ~Arena() {
    for (std::vector<void*>& blocks : small)
      for (void* payload : blocks) pool_free(payload);
    for (std::vector<void*>& blocks : large)
      for (void* payload : blocks) pool_free(payload);
  }
};

Arena* arena_of(void* context) { return static_cast<Arena*>(context); }

using SetHandler = PyObject* (*)(PyObject*);
constexpr int kSetHandlerSlot = 304;      // PyDataMem_SetHandler in NumPy's C API table, since NumPy 1.22
constexpr int kFeatureVersionSlot = 211;  // PyArray_GetNDArrayCFeatureVersion
constexpr unsigned kFeatureVersion122 = 0x0f;

// NumPy's PyDataMem_SetHandler, from the table that its extension module offers in a capsule. Null with an exception
// set.
SetHandler find_set_handler() {
  PyObject* module = PyImport_ImportModule("numpy._core._multiarray_umath");
  if (!module && PyErr_ExceptionMatches(PyExc_ImportError)) {
    PyErr_Clear();
    module = PyImport_ImportModule("numpy.core._multiarray_umath");  // NumPy 1.x
  }
  if (!module) return nullptr;
  PyObject* capsule = PyObject_GetAttrString(module, "_ARRAY_API");
  Py_DECREF(module);
  if (!capsule) return nullptr;
  void** table = static_cast<void**>(PyCapsule_GetPointer(capsule, nullptr));
  Py_DECREF(capsule);  // the module keeps it
  if (!table) return nullptr;
  if (reinterpret_cast<unsigned (*)()>(table[kFeatureVersionSlot])() < kFeatureVersion122) {
    PyErr_SetString(PyExc_ImportError,
                    "numpy: expected version 1.22 or later, which lets its allocator be set; got an older one");
    return nullptr;
  }
  return reinterpret_cast<SetHandler>(table[kSetHandlerSlot]);
}

SetHandler set_handler() {
  static std::atomic<SetHandler> known{nullptr};
  SetHandler found = known.load(std::memory_order_acquire);
  if (!found && (found = find_set_handler())) known.store(found, std::memory_order_release);
  return found;
}

}  // namespace

PyObject* pool_handler() {
  static std::atomic<PyObject*> known{nullptr};
  PyObject* capsule = known.load(std::memory_order_acquire);
  if (!capsule) {
    PyObject* mine = PyCapsule_New(&handler, "mem_handler", nullptr);
    if (!mine) return nullptr;
    if (known.compare_exchange_strong(capsule, mine))
      capsule = mine;  // kept for ever: arrays may outlive every module
    else
      Py_DECREF(mine);
  }
  Py_INCREF(capsule);
  return capsule;
}

PyObject* new_arena(size_t most) {
  Arena* arena = new (std::nothrow) Arena;
  if (!arena) return PyErr_NoMemory();
  arena->most = most;
  arena->handler = {"fastdl",
                    1,
                    {arena, [](void* context, size_t bytes) { return arena_of(context)->allocate(bytes); },
                     [](void* context, size_t count, size_t bytes) -> void* {
                       size_t total;
                       if (__builtin_mul_overflow(count, bytes, &total)) return nullptr;
                       void* payload = arena_of(context)->allocate(total);
                       return payload ? memset(payload, 0, total) : nullptr;
                     },
                     [](void* context, void* payload, size_t bytes) -> void* {
                       void* moved = pool_malloc(bytes);  // it outlives the step, whose blocks are no place for it
                       if (moved && payload) memcpy(moved, payload, std::min(bytes, held_by(payload)));
                       if (moved) arena_of(context)->release(payload);
                       return moved;
                     },
                     [](void* context, void* payload, size_t) { arena_of(context)->release(payload); }}};
  PyObject* capsule = PyCapsule_New(&arena->handler, "mem_handler", [](PyObject* self) {
    delete static_cast<Arena*>(PyCapsule_GetPointer(self, "mem_handler"));  // the handler is the arena's first field
  });
  if (!capsule) delete arena;
  return capsule;
}

size_t arena_bytes(PyObject* capsule) {
  void* found = PyCapsule_GetPointer(capsule, "mem_handler");
  return found ? static_cast<Arena*>(found)->taken : 0;
}

PyObject* enter_arena(PyObject* capsule) {
  const SetHandler set = set_handler();
  return set ? set(capsule) : nullptr;
}

PyObject* enter() {
  if (!pool_enabled()) {
    Py_INCREF(Py_None);
    return Py_None;
  }
  const SetHandler set = set_handler();
  if (!set) return nullptr;
  PyObject* ours = pool_handler();
  if (!ours) return nullptr;
  PyObject* previous = set(ours);
  Py_DECREF(ours);
  return previous;
}

int leave(PyObject* previous) {
  if (previous == Py_None) return 0;
  const SetHandler set = set_handler();
  if (!set) return -1;
  PyObject* replaced = set(previous);
  if (!replaced) return -1;
  Py_DECREF(replaced);
  return 0;
}

}  // namespace fastdl
