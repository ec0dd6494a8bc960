// A CUDA device on the host, to find mistakes in kernels and not to be fast.
//
// A block runs on one OS thread, blocks on as many as fastdl uses (parallel_for). Each CUDA thread is a fibre. A warp runs as
// far as it can, lane by lane, before the next warp starts: going round thread by thread would hide missing barriers.
// Settings choose the order of warps and lanes, and when asynchronous copies land; a right kernel gives the same bits in all.
//
//   block:  warp 0: lane 0 runs to its barrier, lane 1 ..., lane 31;  warp 1 ...;  all wait: the barrier opens
//
// Shared memory is filled with NaN before each block and lies apart, its end marked (under ASan: an allocation of its own).
// What a GPU would refuse is refused with CUDA's errors; what it would silently get wrong, or hang on, ends the launch with
// a message: barriers that not all threads reach, or reach at different lines; warp operations whose lanes differ, have
// returned, or are not there; copies out of line or outside shared memory; shared memory of another size than launched.
#include "emulator.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <atomic>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "cpu/parallel.h"
#include "cuda_runtime.h"
#include "fibre.h"
#include "race.h"

#if defined(__x86_64__)
// Callee-saved registers go onto the old stack and come from the new one; the rest the compiler saves around a call. (The
// rounding mode and the x87 control word are nobody's to change here.)
asm(R"(
.text
.p2align 4
.type fastdl_emu_switch, @function
.hidden fastdl_emu_switch
.globl fastdl_emu_switch
fastdl_emu_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size fastdl_emu_switch, .-fastdl_emu_switch
)");
#endif

namespace emu {

__thread Place place;

namespace {

constexpr int kMaxThreads = 1024, kWarp = 32, kMaxWarps = kMaxThreads / kWarp;
constexpr size_t kMark = 256;  // bytes past shared memory that must stay as they are
constexpr unsigned char kMarkByte = 0xA5;

enum class State : uint8_t { fresh, ready, barrier, meeting, done };

struct Copy {
  void* shared;
  const void* global;
  unsigned bytes;
  bool inside;
  int group;
};

struct Thread {
  State state;
  Site site;
  Fibre* fibre;
  uint3 id;
  std::vector<Copy> copies;  // not yet done
  int groups;                // committed
};

// Lanes on their way to a warp operation.
struct Meeting {
  unsigned arrived = 0, mask = 0;
  Complete complete = nullptr;
  Site site;
  void* lanes[kWarp];
};

// What the blocks of one launch share.
struct Launch {
  dim3 grid, block;
  size_t shared_bytes;
  void (*body)(const void*);
  const void* context;
  std::atomic<bool> failed{false};
  std::mutex mutex;
  char text[768] = "";
};

struct Random {
  uint64_t state;
  uint32_t next() {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return static_cast<uint32_t>(state >> 33);
  }
  void shuffle(int* order, int n) {
    for (int i = n - 1; i > 0; --i) std::swap(order[i], order[next() % static_cast<unsigned>(i + 1)]);
  }
};

bool same(const Site& a, const Site& b) { return a.line == b.line && (a.file == b.file || strcmp(a.file, b.file) == 0); }
const char* short_name(const char* file) {
  const char* slash = strrchr(file, '/');
  return slash ? slash + 1 : file;
}

// All that an OS thread needs to run a block.
class Engine {
 public:
  static Engine& mine() {  // made by run_blocks
    return *static_cast<Engine*>(place.engine);
  }
  ~Engine() { release_shared(); }

  void run_block(Launch& launch, uint3 block);

  // Called on fibres.
  int barrier(Site site, Vote vote, int predicate);
  void meet(Site site, unsigned mask, Complete complete, void* lane);
  void copy(void* shared, const void* global, unsigned bytes, bool inside);
  void commit() { ++now().groups; }
  void wait(int newest);
  void syncwarp(Site site, unsigned mask);
  [[noreturn]] void fail(const char* text);
  bool running() const { return launch_ != nullptr; }
  bool in_shared(const void* p, size_t bytes) const {
    auto* q = static_cast<const unsigned char*>(p);
    return q >= place.shared && q + bytes <= place.shared + place.shared_bytes;
  }

  static void fibre_main();
  void reserve_shared(size_t bytes);

 private:
  Thread& now() { return threads_[current_]; }
  void suspend(State state, Site site) {
    Thread& t = now();
    t.state = state;
    t.site = site;
    t.fibre->leave(&scheduler_);
  }
  void run_thread(int i);
  void run_warp(int w);
  void order(int* to, int n);
  void open_barrier();
  void explain_stall();
  void report(const char* text, const Thread* who);
  static void land(const Copy& c);
  void release_shared();

  Launch* launch_ = nullptr;
  Settings set_;
  Random random_{0};
  int count_ = 0, done_ = 0, waiting_ = 0, current_ = 0;
  int votes_ = 0, result_ = 0;
  Vote vote_ = Vote::none;
  Site barrier_site_;
  Thread threads_[kMaxThreads];
  Meeting meetings_[kMaxWarps][kWarp];  // by the lowest lane of the mask
  std::vector<std::unique_ptr<Fibre>> fibres_;
  std::vector<Fibre*> idle_;  // parked at the end of a thread
  std::vector<Fibre*> left_;  // in the middle of a thread that will not go on
  Context scheduler_;
  unsigned char* shared_ = nullptr;
  size_t shared_bytes_ = 0;
};

void Engine::release_shared() {
  free(shared_);
  shared_ = nullptr;
}

void Engine::reserve_shared(size_t bytes) {
  if (shared_ && bytes == shared_bytes_) return;
  release_shared();
  void* p = nullptr;
#if defined(__SANITIZE_ADDRESS__)
  const size_t mark = 0;
#else
  const size_t mark = kMark;
#endif
  if (posix_memalign(&p, 128, bytes + mark + (bytes + mark == 0)) != 0) abort();
  shared_ = static_cast<unsigned char*>(p);
  shared_bytes_ = bytes;
}

void Engine::order(int* to, int n) {
  for (int i = 0; i < n; ++i) to[i] = set_.order == Order::reverse ? n - 1 - i : i;
  if (set_.order == Order::random) random_.shuffle(to, n);
}

void Engine::report(const char* text, const Thread* who) {
  std::lock_guard<std::mutex> lock(launch_->mutex);
  if (launch_->failed.exchange(true)) return;
  char where[96] = "";
  if (who) snprintf(where, sizeof where, ", thread (%u,%u,%u)", who->id.x, who->id.y, who->id.z);
  snprintf(launch_->text, sizeof launch_->text, "%s (block (%u,%u,%u)%s)", text, place.block.x, place.block.y, place.block.z,
           where);
}

// Leaves the thread where it is for ever.
void Engine::fail(const char* text) {
  report(text, &now());
  suspend(State::done, Site());
  abort();
}

void Engine::fibre_main() {
  Engine& e = mine();
  Fibre* fibre = e.now().fibre;
  fibre->arrived();
  for (;;) {  // thread after thread on this stack
    e.launch_->body(e.launch_->context);
    e.now().state = State::done;
    ++e.done_;
    e.idle_.push_back(fibre);
    fibre->leave(&e.scheduler_);
  }
}

void Engine::run_thread(int i) {
  Thread& t = threads_[i];
  current_ = i;
  place.thread = t.id;
  if (t.state == State::fresh) {
    if (idle_.empty()) {
      Fibre* f;
      if (!left_.empty()) {
        f = left_.back();
        left_.pop_back();
      } else {
        fibres_.push_back(std::make_unique<Fibre>());
        f = fibres_.back().get();
      }
      f->prepare(fibre_main);
      t.fibre = f;
    } else {
      t.fibre = idle_.back();
      idle_.pop_back();
    }
  }
  t.state = State::ready;
  race::run(i, t.fibre->base(), t.fibre->bytes());
  t.fibre->enter(&scheduler_);
}

void Engine::run_warp(int w) {
  int lanes[kWarp];
  const int first = w * kWarp, n = count_ - first < kWarp ? count_ - first : kWarp;
  for (bool any = true; any;) {
    any = false;
    order(lanes, n);
    for (int k = 0; k < n; ++k) {
      const int i = first + lanes[k];
      if (threads_[i].state > State::ready) continue;
      run_thread(i);
      if (launch_->failed.load(std::memory_order_relaxed)) return;
      any = true;
    }
  }
}

void Engine::open_barrier() {
  result_ = vote_ == Vote::all ? votes_ == count_ : vote_ == Vote::any ? votes_ > 0 : votes_;
  votes_ = waiting_ = 0;
  for (int i = 0; i < count_; ++i) threads_[i].state = State::ready;
  race::barrier();
}

// Nothing can run and not all wait at the barrier.
void Engine::explain_stall() {
  char text[512];
  for (int i = 0; i < count_; ++i) {
    const Thread& t = threads_[i];
    if (t.state != State::meeting) continue;
    for (const Meeting& m : meetings_[i / kWarp]) {
      if (!(m.arrived >> (i % kWarp) & 1u)) continue;
      const unsigned missing = m.mask & ~m.arrived;
      const Thread& other = threads_[i / kWarp * kWarp + __builtin_ctz(missing)];
      snprintf(text, sizeof text, "warp operation at %s:%d: lanes %08x of mask %08x never come; lane %d %s",
               short_name(m.site.file), m.site.line, missing, m.mask, __builtin_ctz(missing),
               other.state == State::done      ? "has returned"
               : other.state == State::barrier ? "waits at a barrier"
                                               : "waits elsewhere");
      return report(text, &t);
    }
  }
  for (int i = 0; i < count_; ++i)
    if (threads_[i].state == State::barrier) {
      snprintf(text, sizeof text, "divergent barrier: %d threads wait at %s:%d, %d have returned", waiting_,
               short_name(barrier_site_.file), barrier_site_.line, done_);
      return report(text, &threads_[i]);
    }
}

void Engine::run_block(Launch& launch, uint3 block) {
  launch_ = &launch;
  set_ = settings();
  count_ = static_cast<int>(launch.block.x * launch.block.y * launch.block.z);
  done_ = waiting_ = votes_ = 0;
  random_.state = set_.seed * 0x9E3779B97F4A7C15u + block.x + (uint64_t{block.y} << 31) + (uint64_t{block.z} << 47);
  random_.next();
  reserve_shared(launch.shared_bytes);
  place = {{0, 0, 0}, block, launch.block, launch.grid, shared_, launch.shared_bytes, this};
  memset(shared_, 0xFF, launch.shared_bytes);
#if !defined(__SANITIZE_ADDRESS__)
  memset(shared_ + launch.shared_bytes, kMarkByte, kMark);
#endif
  unsigned x = 0, y = 0, z = 0;
  for (int i = 0; i < count_; ++i) {
    Thread& t = threads_[i];
    t.state = State::fresh;
    t.id = {x, y, z};
    t.copies.clear();
    t.groups = 0;
    if (++x == launch.block.x) {
      x = 0;
      if (++y == launch.block.y) y = 0, ++z;
    }
  }
  const int warps = (count_ + kWarp - 1) / kWarp;
  for (int w = 0; w < warps; ++w)
    for (Meeting& m : meetings_[w]) m.arrived = 0;
  race::begin_block();
  int in_turn[kMaxWarps];
  while (done_ < count_ && !launch.failed.load(std::memory_order_relaxed)) {
    order(in_turn, warps);
    for (int k = 0; k < warps && !launch.failed.load(std::memory_order_relaxed); ++k) run_warp(in_turn[k]);
    if (launch.failed.load(std::memory_order_relaxed) || done_ == count_) break;
    if (waiting_ == count_)
      open_barrier();
    else
      explain_stall();
  }
  if (launch.failed.load()) {
    for (int i = 0; i < count_; ++i) {
      Fibre* f = threads_[i].fibre;
      bool parked = threads_[i].state == State::fresh;
      for (Fibre* idle : idle_) parked |= idle == f;
      for (Fibre* other : left_) parked |= other == f;
      if (!parked) left_.push_back(f);
    }
  }
#if !defined(__SANITIZE_ADDRESS__)
  for (size_t i = 0; i < kMark; ++i)
    if (shared_[launch.shared_bytes + i] != kMarkByte) {
      char text[128];
      snprintf(text, sizeof text, "shared memory: written %zu bytes past the end of its %zu bytes", i + 1, launch.shared_bytes);
      report(text, nullptr);
      break;
    }
#endif
  launch_ = nullptr;
}

// ---------------------------------------------------------------------------------------------- called on fibres

int Engine::barrier(Site site, Vote vote, int predicate) {
  if (waiting_ == 0) {
    barrier_site_ = site;
    vote_ = vote;
  } else if (!same(site, barrier_site_)) {
    char text[256];
    snprintf(text, sizeof text, "divergent barrier: some threads wait at %s:%d, others at %s:%d", short_name(barrier_site_.file),
             barrier_site_.line, short_name(site.file), site.line);
    fail(text);
  }
  ++waiting_;
  votes_ += predicate != 0;
  suspend(State::barrier, site);
  return result_;
}

void Engine::meet(Site site, unsigned mask, Complete complete, void* lane) {
  const int me = current_ % kWarp, first = current_ - me, n = count_ - first < kWarp ? count_ - first : kWarp;
  char text[256];
  if (!(mask >> me & 1u)) {
    snprintf(text, sizeof text, "warp operation at %s:%d: lane %d is not in its own mask %08x", short_name(site.file), site.line,
             me, mask);
    fail(text);
  }
  if (n < kWarp && mask >> n) {
    snprintf(text, sizeof text, "warp operation at %s:%d: mask %08x names lanes that the block does not have",
             short_name(site.file), site.line, mask);
    fail(text);
  }
  Meeting& m = meetings_[current_ / kWarp][__builtin_ctz(mask)];
  if (!m.arrived) {
    m.mask = mask;
    m.complete = complete;
    m.site = site;
  } else if (m.mask != mask || m.complete != complete || !same(m.site, site)) {
    snprintf(text, sizeof text, "warp operation: lanes meet at %s:%d (mask %08x) and %s:%d (mask %08x)",
             short_name(m.site.file), m.site.line, m.mask, short_name(site.file), site.line, mask);
    fail(text);
  }
  m.lanes[me] = lane;
  m.arrived |= 1u << me;
  if (m.arrived != mask) return suspend(State::meeting, site);
  m.arrived = 0;
  if (complete) complete(mask, m.lanes);
  for (int i = 0; i < n; ++i)
    if (mask >> i & 1u && i != me) threads_[first + i].state = State::ready;
}

void Engine::land(const Copy& c) {
  race::land(c.shared, c.inside ? c.global : nullptr, c.bytes);
  if (c.inside)
    memcpy(c.shared, c.global, c.bytes);
  else
    memset(c.shared, 0, c.bytes);
}

void Engine::copy(void* shared, const void* global, unsigned bytes, bool inside) {
  char text[160];
  if (!in_shared(shared, bytes)) {
    snprintf(text, sizeof text, "asynchronous copy of %u bytes outside the block's shared memory", bytes);
    fail(text);
  }
  if (reinterpret_cast<uintptr_t>(shared) % bytes || (inside && reinterpret_cast<uintptr_t>(global) % bytes)) {
    snprintf(text, sizeof text, "asynchronous copy of %u bytes: an address is not aligned to %u", bytes, bytes);
    fail(text);
  }
  const Copy c{shared, global, bytes, inside, now().groups};
  if (set_.copies == Copies::early || (set_.copies == Copies::random && random_.next() & 1u)) {
    land(c);
  } else {
    race::issue(shared, bytes);
    now().copies.push_back(c);
  }
}

void Engine::wait(int newest) {
  Thread& t = now();
  size_t n = 0;
  while (n < t.copies.size() && t.copies[n].group < t.groups - newest) land(t.copies[n++]);
  t.copies.erase(t.copies.begin(), t.copies.begin() + static_cast<ptrdiff_t>(n));
}

void Engine::syncwarp(Site site, unsigned mask) {
  meet(site, mask, [](unsigned lanes, void* const*) { race::syncwarp(lanes); }, nullptr);
}

Settings from_environment() {
  Settings s{Order::forward, Copies::late, 0, 86};
  const auto pick = [](const char* name, const char* const* words, int count) {
    const char* value = getenv(name);
    if (!value || !*value) return 0;
    for (int i = 0; i < count; ++i)
      if (strcmp(value, words[i]) == 0) return i;
    fprintf(stderr, "%s: expected %s, %s or %s; got %s\n", name, words[0], words[1], words[2], value);
    exit(2);
  };
  const char* const orders[] = {"forward", "reverse", "random"};
  const char* const copies[] = {"late", "early", "random"};
  s.order = static_cast<Order>(pick("FASTDL_EMU_ORDER", orders, 3));
  s.copies = static_cast<Copies>(pick("FASTDL_EMU_COPIES", copies, 3));
  if (const char* seed = getenv("FASTDL_EMU_SEED")) s.seed = strtoull(seed, nullptr, 10);
  if (const char* arch = getenv("FASTDL_EMU_ARCH")) s.arch = atoi(arch);
  return s;
}

}  // namespace

Settings& settings() {
  static Settings chosen = from_environment();
  return chosen;
}

void fail(const char* format, ...) {
  char text[512];
  va_list args;
  va_start(args, format);
  vsnprintf(text, sizeof text, format, args);
  va_end(args);
  if (place.engine && Engine::mine().running()) Engine::mine().fail(text);
  fprintf(stderr, "emulator: outside a kernel: %s\n", text);
  abort();
}

void shared_memory_too_small(size_t wanted) {
  fail("shared memory: launched with %zu bytes, used as %zu", place.shared_bytes, wanted);
}

int barrier(Site site, Vote vote, int predicate) { return Engine::mine().barrier(site, vote, predicate); }
void meet(Site site, unsigned mask, Complete complete, void* mine) { Engine::mine().meet(site, mask, complete, mine); }
void syncwarp(Site site, unsigned mask) { Engine::mine().syncwarp(site, mask); }
void copy_async(void* shared, const void* global, unsigned bytes, bool inside) {
  Engine::mine().copy(shared, global, bytes, inside);
}
void copy_async_commit() { Engine::mine().commit(); }
void copy_async_wait(int newest) { Engine::mine().wait(newest); }
bool in_shared(const void* p, size_t bytes) { return Engine::mine().in_shared(p, bytes); }

const char* run_blocks(dim3 grid, dim3 block, size_t shared_bytes, void (*body)(const void*), const void* context) {
  static thread_local char text[sizeof(Launch::text)];
  Launch launch{};
  launch.grid = grid;
  launch.block = block;
  launch.shared_bytes = shared_bytes;
  launch.body = body;
  launch.context = context;
  const int64_t blocks = int64_t{grid.x} * grid.y * grid.z, threads = int64_t{block.x} * block.y * block.z;
  const int64_t grain = 1 + 4096 / threads;
  race::begin_launch();
  const bool reverse = settings().order == Order::reverse;
  const auto run = [&](int64_t begin, int64_t end) {
    static thread_local const std::unique_ptr<Engine> engine(new Engine);
    for (int64_t k = begin; k < end && !launch.failed.load(std::memory_order_relaxed); ++k) {
      const int64_t i = reverse ? blocks - 1 - k : k;
      engine->run_block(launch, {static_cast<unsigned>(i % grid.x), static_cast<unsigned>(i / grid.x % grid.y),
                                static_cast<unsigned>(i / grid.x / grid.y)});
    }
  };
  if (race::active())
    run(0, blocks);
  else
    fastdl::parallel_for(blocks, grain, run);
  race::end_launch();
  if (!launch.failed) return nullptr;
  memcpy(text, launch.text, sizeof text);
  return text;
}

}  // namespace emu
