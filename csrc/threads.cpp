// The thread pool behind csrc/cpu/parallel.h (how many threads it has: thread_count.cpp). Compiled once, for the baseline ISA.
// docs/kernels/threads.md tells the whole story; in short:
//
//   A region's chunks are dealt to P segments, one for each thread that may take part. A segment is one 64-bit word,
//   {next, end}: its owner takes from the front, a thread whose own segment is empty takes from another's back.
//
//     segment 0 (caller)         segment 1                  segment 2
//     |done|done|>>        |     |done|>>        <<|done|   |              |      >> owner, << thief
//
//   Taking is one compare-and-swap. A thread reads the region's body and context only AFTER it has taken something, and
//   the caller leaves only when all that was taken is done. So a helper that comes late finds empty segments and
//   touches nothing, and one that comes so late that a new region is open has simply joined that one.
#include "threads.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <stdexcept>
#include <string>

#include "cpu/parallel.h"
#if defined(__linux__) && !defined(FASTDL_NO_FUTEX)
#include <linux/futex.h>
#include <sys/syscall.h>
#endif

namespace fastdl {
namespace {

// How long a helper waits awake for the next region, and a caller for the last helper. docs/kernels/threads.md has the
// measurements behind both.
#ifndef FASTDL_SPIN_NS
#define FASTDL_SPIN_NS 30000
#endif
#ifndef FASTDL_JOIN_SPIN_NS
#define FASTDL_JOIN_SPIN_NS 30000
#endif
constexpr int64_t kSpin = FASTDL_SPIN_NS, kJoinSpin = FASTDL_JOIN_SPIN_NS;
constexpr int kBatchesPerThread = 32;  // fine enough to even out a slow thread, coarse enough that taking costs nothing
constexpr int64_t kMoveEvery = 2000000;                      // ns; a running thread's move costs some 50 us
constexpr int64_t kLookFirst = 200000, kLookMost = 4000000;  // ns between a sleeping caller's looks at its helpers
constexpr int64_t kLost = 300000;   // ns without a core in one region after which a helper that can't be moved...
constexpr int64_t kNap = 50000000;  // ...stays away for so long
constexpr int kWakeFanout = 2;      // each woken thread wakes two more: 127 sleepers are up after 7 steps, not 127

struct alignas(64) Segment {
  std::atomic<uint64_t> word{0};  // next in the low half, end in the high half; empty when equal
};

// What the caller knows of a helper; the last two are the caller's to write.
struct alignas(64) Helper {
  std::atomic<int> thread{0};        // its id for the scheduler, 0 until it runs
  std::atomic<clockid_t> clock{0};   // of the time that it was running
  std::atomic<bool> working{false};  // may have taken batches
  std::atomic<bool> fetched{false};  // to its caller's core, by the caller
  int64_t ran = 0;                   // that clock at the caller's last look
};

struct Region {
  RangeBody body;
  const void* context;
  int64_t n, grain, batch;  // batch: chunks taken at a time
};

// Never destroyed: helpers may outlive static destruction, so everything here is trivially destructible.
struct Pool {
  alignas(64) std::atomic<uint32_t> epoch{0};    // counts regions; helpers sleep on it
  alignas(64) std::atomic<int32_t> seats{0};     // helpers that may still join the region
  alignas(64) std::atomic<uint32_t> pending{0};  // batches not finished; the caller sleeps on it
  std::atomic<bool> joining{false};              // the caller does sleep on it
  alignas(64) std::atomic<int32_t> sleepers{0};
  std::atomic<int> segments{1};
  std::atomic<int> caller_cpu{-1};
  alignas(64) Region region{};
  alignas(64) std::atomic<bool> busy{false};  // a region is open: the pool's one lock, only ever tried
  std::atomic<int> helpers{0};
  std::atomic<int> limit{0};        // 0: not yet known
  std::atomic<bool> movable{true};  // false once the system has refused to move a thread
  std::atomic<uint64_t> batches{0}, sent_away{0}, fetched{0};
  Segment segment[kMaxThreads];
  Helper helper[kMaxThreads];
  std::atomic<int16_t> core[kMaxThreads]{};  // each helper's, as it last saw it; side by side, as the caller reads all
#if defined(__linux__)
  cpu_set_t allowed;  // of the helpers
#endif
};
Pool pool;

int64_t now_ns(clockid_t clock = CLOCK_MONOTONIC) {
  timespec t;
  clock_gettime(clock, &t);
  return int64_t(t.tv_sec) * 1000000000 + t.tv_nsec;
}

// The core that the calling thread is on, -2 where the system can't say (so that it equals no stored one).
inline int current_cpu() {
#if defined(__linux__)
  return sched_getcpu();
#else
  return -2;
#endif
}

// Binds a thread to the one core, or to all but that one. Only for helpers; false if the system won't or if nothing is
// left. A scheduler is of no help here: where it sees no cache shared between two cores (virtual machines), or no idle
// core, it wakes a helper on the core of its caller, time and again. A thread that sleeps or waits is moved in a
// microsecond, one that runs in some fifty.
bool bind(int thread, int core, bool away) {
#if defined(__linux__)
  if (core < 0 || core >= CPU_SETSIZE) return false;
  cpu_set_t set;
  CPU_ZERO(&set);
  if (away) {
    set = pool.allowed;
    CPU_CLR(core, &set);
    if (CPU_COUNT(&set) == 0) return false;
  } else {
    CPU_SET(core, &set);
  }
  if (sched_setaffinity(thread, sizeof set, &set) == 0) return true;
  pool.movable.store(false, std::memory_order_relaxed);
#else
  (void)thread, (void)core, (void)away;
#endif
  return false;
}

inline void relax() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

// Waits awake until done() or for `limit` ns; the clock is read now and then only, as it may be a system call.
template <class Done>
bool spin_until(const Done& done, int64_t limit) {
  for (int i = 0; i < 16; i++) {
    if (done()) return true;
    relax();
  }
  if (limit <= 0) return false;
  const int64_t start = now_ns();
  do {
    for (int i = 0; i < 16; i++) {
      if (done()) return true;
      relax();
    }
  } while (now_ns() - start < limit);
  return false;
}

// Sleeps if *word is still `expected`, at most `limit` ns (0: no limit); may return early. Whoever changes the word and
// wants sleepers up calls wake.
#if defined(__linux__) && !defined(FASTDL_NO_FUTEX)
void sleep_on(std::atomic<uint32_t>& word, uint32_t expected, int64_t limit = 0) {
  const timespec t = {time_t(limit / 1000000000), long(limit % 1000000000)};
  syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, expected, limit ? &t : nullptr, nullptr, 0);
}
void wake(std::atomic<uint32_t>& word, int count) {
  syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, count, nullptr, nullptr, 0);
}
#else
// Without futexes: polling, coarse but with nothing to lose or to repair after a fork.
void sleep_on(std::atomic<uint32_t>& word, uint32_t expected, int64_t = 0) {
  const timespec nap = {0, 100000};
  if (word.load() == expected) nanosleep(&nap, nullptr);
}
void wake(std::atomic<uint32_t>&, int) {}
#endif

bool take(Segment& segment, bool own, uint32_t* index) {
  uint64_t word = segment.word.load(std::memory_order_acquire);
  for (;;) {
    const uint32_t next = uint32_t(word), end = uint32_t(word >> 32);
    if (next >= end) return false;
    const uint64_t rest = own ? word + 1 : word - (uint64_t(1) << 32);
    // That the word may have been emptied and filled again since the load does no harm: a swap that succeeds has taken
    // a batch of the region that is open now.
    if (segment.word.compare_exchange_weak(word, rest, std::memory_order_acq_rel, std::memory_order_acquire)) {
      *index = own ? next : end - 1;
      return true;
    }
  }
}

void run_range(const Region& r, int64_t first, int64_t last) {
  for (int64_t c = first; c < last; c++) {
    const int64_t begin = c * r.grain;
    r.body(r.context, begin, r.n - begin < r.grain ? r.n : begin + r.grain);
  }
}

// Takes and runs batches until none is left, own segment first; returns how many. `between` is called after each.
template <class Between>
uint32_t work(int home, const Between& between) {
  uint32_t done = 0, index;
  const int count =
      pool.segments.load(std::memory_order_relaxed);  // only a hint to a helper: it may be of a past region
  for (int i = 0; i < count; i++) {
    Segment& segment = pool.segment[(home + i) % count];
    while (take(segment, i == 0, &index)) {
      const Region& r = pool.region;
      const int64_t chunks = (r.n - 1) / r.grain + 1, first = index * r.batch;
      run_range(r, first, chunks - first < r.batch ? chunks : first + r.batch);
      done++;
      between();
    }
  }
  return done;
}

void finish(uint32_t done) {
  if (done && pool.pending.fetch_sub(done) == done && pool.joining.load()) wake(pool.pending, 1);
}

struct Start {
  int index;
  uint32_t epoch;
};

// noexcept: a body that throws ends the process here rather than somewhere less clear.
void* helper_main(void* argument) noexcept {
  const Start start = *static_cast<Start*>(argument);
  delete static_cast<Start*>(argument);
  Helper& self = pool.helper[start.index];
  std::atomic<int16_t>& core = pool.core[start.index];
  uint32_t seen = start.epoch;
  int64_t last_move = -kMoveEvery, patience = kSpin;
#if defined(__linux__)
  clockid_t clock;
  if (pthread_getcpuclockid(pthread_self(), &clock) == 0) {
    self.clock = clock;
    self.thread = int(syscall(SYS_gettid));  // last: what the caller asks for
  }
#endif
  // Says on which core we are. On the caller's we could only take its time, so we leave it, for good: it is excepted
  // from those that we may use until the caller is seen elsewhere. False where we have to stay.
  bool stuck = false;
  const auto beside = [&] {
    const int here = current_cpu();
    if (core.load(std::memory_order_relaxed) != here) core.store(int16_t(here), std::memory_order_relaxed);
    if (here != pool.caller_cpu.load(std::memory_order_relaxed)) return true;
    if (self.fetched.load(std::memory_order_relaxed)) return false;  // it sends us away again
    const int64_t now = now_ns();
    if (now - last_move < kMoveEvery) return false;
    last_move = now;
    stuck = !bind(0, here, true);
    if (!stuck) core.store(int16_t(current_cpu()), std::memory_order_relaxed);
    return !stuck;
  };
  const auto nap = [] {
    const timespec t = {0, kNap};
    nanosleep(&t, nullptr);
  };
  const auto called = [&] { return pool.epoch.load(std::memory_order_acquire) != seen; };
  for (;;) {
    bool slept = false;
    if (!spin_until(called, patience)) {
      // First say that we sleep, then look again: the caller first calls, then looks for sleepers; one of us sees the
      // other.
      pool.sleepers.fetch_add(1);
      while (pool.epoch.load() == seen) sleep_on(pool.epoch, seen);
      pool.sleepers.fetch_sub(1);
      slept = true;
    }
    seen = pool.epoch.load(std::memory_order_acquire);
    // Pass the call on first: whether or not we join, others may.
    if (slept && pool.seats.load(std::memory_order_relaxed) > 1 && pool.sleepers.load() > 0)
      wake(pool.epoch, kWakeFanout);
    patience = 0;  // asleep at once, and out of the caller's way: it moves us before it calls again
    if (!beside()) {
      if (stuck) nap();
      continue;
    }
    if (pool.seats.fetch_sub(1, std::memory_order_acq_rel) <= 0) continue;
    const bool movable = pool.movable.load(std::memory_order_relaxed);
    const int64_t started = movable ? 0 : now_ns(), ran = movable ? 0 : now_ns(CLOCK_THREAD_CPUTIME_ID);
    self.working.store(true, std::memory_order_relaxed);
    const uint32_t done = work(start.index, beside);
    self.working.store(false, std::memory_order_relaxed);
    if (done) pool.batches.fetch_add(done, std::memory_order_relaxed);
    finish(done);
    if (current_cpu() != pool.caller_cpu.load(std::memory_order_relaxed)) patience = kSpin;
    if (!movable) {
      const int64_t took = now_ns() - started;
      if (took > kLost && took - (now_ns(CLOCK_THREAD_CPUTIME_ID) - ran) > kLost) nap();
    }
  }
  return nullptr;
}

// The caller's side of it. Before a call: helpers that were last seen on its core are sent away from it. Most often they
// sleep, and it costs nothing that the call does not.
void send_away(int cpu) {
  const int helpers = pool.helpers.load(std::memory_order_relaxed);
  for (int i = 1; i <= helpers; i++)
    if (pool.core[i].load(std::memory_order_relaxed) == cpu) {
      const int thread = pool.helper[i].thread.load();
      if (thread && bind(thread, cpu, true)) pool.sent_away.fetch_add(1, std::memory_order_relaxed);
      pool.core[i].store(-1, std::memory_order_relaxed);
      pool.helper[i].fetched.store(false, std::memory_order_relaxed);
    }
}

// After its own work: helpers that hold batches but have not run since the last look wait for a core that somebody else
// has, for a time slice of several ms. The caller's is free, so they are fetched to it.
void fetch_stalled(int cpu, bool first) {
  const int helpers = pool.helpers.load(std::memory_order_relaxed);
  for (int i = 1; i <= helpers; i++) {
    Helper& helper = pool.helper[i];
    const int thread = helper.thread.load(std::memory_order_relaxed);
    if (!thread || !helper.working.load(std::memory_order_relaxed)) continue;
    const int64_t ran = now_ns(helper.clock.load(std::memory_order_relaxed));
    if (!first && ran == helper.ran && !helper.fetched.load(std::memory_order_relaxed) && bind(thread, cpu, false)) {
      helper.fetched.store(true, std::memory_order_relaxed);
      pool.core[i].store(int16_t(cpu), std::memory_order_relaxed);  // sent away again with the next call
      pool.fetched.fetch_add(1, std::memory_order_relaxed);
    }
    helper.ran = ran;
  }
}

// Waits until the helpers have done what they took.
void join(int cpu) {
  const auto finished = [] { return pool.pending.load(std::memory_order_acquire) == 0; };
  if (spin_until(finished, 0)) return;
  fetch_stalled(cpu, true);
  if (spin_until(finished, kJoinSpin)) return;
  pool.joining.store(true);
  int64_t look = kLookFirst;
  for (uint32_t left; (left = pool.pending.load()) != 0;) {
    fetch_stalled(cpu, false);
    sleep_on(pool.pending, left, look);
    if (look < kLookMost) look *= 2;
  }
  pool.joining.store(false);
}

// The child of a fork has no helper, and whatever region another thread had open is not its own.
void after_fork_in_child() {
  pool.seats = 0;
  pool.pending = 0;
  pool.joining = false;
  pool.sleepers = 0;
  pool.helpers = 0;
  for (Segment& s : pool.segment) s.word = 0;
  for (Helper& h : pool.helper) h.thread = 0, h.working = h.fetched = false;
  pool.busy = false;
}

// At load time: a fork that comes between taking the pool and registering would leave the child a pool that is taken.
const bool fork_safe = pthread_atfork(nullptr, nullptr, after_fork_in_child) == 0;

// Called with the pool taken. A thread that can't be had is done without.
void start_helpers(int wanted) {
  if (!fork_safe) return;
  sigset_t all, old;
  sigfillset(&all);
  pthread_sigmask(SIG_BLOCK, &all, &old);  // signals are for the program's own threads
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
#if defined(__linux__)
  if (pool.helpers == 0 && sched_getaffinity(0, sizeof pool.allowed, &pool.allowed) != 0) {
    CPU_ZERO(&pool.allowed);
    pool.movable = false;
  }
#endif
  for (int i = pool.helpers; i < wanted; i++) {
    Start* start = new Start{i + 1, pool.epoch.load()};
    pool.core[i + 1] = -1;
    pthread_t thread;
    if (pthread_create(&thread, &attributes, helper_main, start) != 0) {
      delete start;
      break;
    }
#if defined(__linux__)
    pthread_setname_np(thread, "fastdl");
#endif
    pool.helpers = i + 1;
  }
  pthread_attr_destroy(&attributes);
  pthread_sigmask(SIG_SETMASK, &old, nullptr);
}

int thread_limit() {
  int limit = pool.limit.load(std::memory_order_relaxed);
  if (limit == 0) {
    limit = default_num_threads(nullptr);
    int unknown = 0;
    if (!pool.limit.compare_exchange_strong(unknown, limit < 1 ? 1 : limit)) return unknown;
    limit = limit < 1 ? 1 : limit;
  }
  return limit;
}

// ---- scratch ----

constexpr size_t kHugePage = size_t(2) << 20;

struct Scratch {
  void* memory[3] = {};
  size_t bytes[3] = {};
  ~Scratch() {
    for (void* m : memory) free(m);
  }
};
thread_local Scratch scratch;

}  // namespace

void parallel_run(int64_t n, int64_t grain, RangeBody body, const void* context) {
  if (n <= 0) return;
  if (grain < 1) grain = 1;
  const int64_t chunks = (n - 1) / grain + 1;
  const int limit = chunks > 1 ? thread_limit() : 1;
  // busy: a body that calls us, or another thread's region; both run on their caller alone.
  if (limit == 1 || pool.busy.exchange(true, std::memory_order_acquire)) {
    run_range(Region{body, context, n, grain, 1}, 0, chunks);
    return;
  }
  if (pool.helpers < limit - 1) start_helpers(limit - 1);
  int64_t batches = int64_t(limit) * kBatchesPerThread;
  const int64_t batch = chunks <= batches ? 1 : (chunks - 1) / batches + 1;
  batches = (chunks - 1) / batch + 1;
  const int parts = int(batches < limit ? batches : limit);
  pool.region = {body, context, n, grain, batch};
  pool.pending.store(uint32_t(batches), std::memory_order_relaxed);
  pool.segments.store(parts, std::memory_order_relaxed);
  int cpu = current_cpu();
  pool.caller_cpu.store(cpu, std::memory_order_relaxed);
  send_away(cpu);
  for (int p = 0; p < parts; p++) {
    const uint64_t next = uint64_t(batches * p / parts), end = uint64_t(batches * (p + 1) / parts);
    pool.segment[p].word.store(end << 32 | next, std::memory_order_release);  // publishes the region
  }
  pool.seats.store(parts - 1, std::memory_order_release);
  pool.epoch.fetch_add(1);
  if (pool.sleepers.load() > 0) wake(pool.epoch, parts - 1 < kWakeFanout ? parts - 1 : kWakeFanout);

  const uint32_t done = work(0, [&] {
    if (const int here = current_cpu(); here != cpu) pool.caller_cpu.store(cpu = here, std::memory_order_relaxed);
  });
  if (pool.pending.fetch_sub(done) != done) join(cpu);
  pool.busy.store(false, std::memory_order_release);
}

float* thread_scratch(int slot, size_t floats) {
  Scratch& own = scratch;
  const size_t wanted = floats * sizeof(float);
  if (wanted > own.bytes[slot] || !own.memory[slot]) {
    const bool huge = wanted >= kHugePage;
    const size_t unit = huge ? kHugePage : 64, bytes = (wanted / unit + (wanted % unit || !wanted)) * unit;
    free(own.memory[slot]);
    own.memory[slot] = floats > SIZE_MAX / 8 ? nullptr : aligned_alloc(unit, bytes);
    own.bytes[slot] = bytes;
    if (!own.memory[slot]) {  // a kernel has no way to report it, and a helper nobody to report it to
      fprintf(stderr, "fastdl: out of memory for %zu bytes of kernel scratch\n", bytes);
      abort();
    }
#if defined(MADV_HUGEPAGE)
    if (huge) madvise(own.memory[slot], bytes, MADV_HUGEPAGE);
#endif
  }
  return static_cast<float*>(own.memory[slot]);
}

int num_threads() { return pool.busy.load(std::memory_order_relaxed) ? 1 : thread_limit(); }

int num_helpers() { return pool.helpers; }

HelperCounts helper_counts() { return {pool.batches, pool.sent_away, pool.fetched}; }

int get_num_threads() { return thread_limit(); }

void set_num_threads(int count) {
  if (count < 1 || count > kMaxThreads)
    throw std::invalid_argument("threads: expected an integer from 1 to " + std::to_string(kMaxThreads) + "; got " +
                                std::to_string(count));
  pool.limit.store(count);
}

}  // namespace fastdl
