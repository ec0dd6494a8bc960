// Races and uninitialised reads, exactly and in whatever order the threads run: the kernels are compiled with
// -fsanitize=thread, which calls a function at each access to memory, and these are the functions (no libtsan is linked).
//
// For each word (and, for smaller accesses, each byte) the last write and the last reads are kept with who made them and when:
// the block's count of barriers and the warp's count of __syncwarp()s at that time. Two accesses, one of them a write, are a
// race unless the same thread made both, or a barrier of the block or a __syncwarp() of the warp lies between. Between blocks
// of a launch nothing orders. Shuffles and mma order no memory. Atomic operations do not race with each other.
#include "race.h"

#include <stdint.h>
#include <string.h>

#include <memory>
#include <unordered_map>
#include <vector>

#include "emulator.h"

namespace emu::race {
namespace {

constexpr uintptr_t kPage = 4096;
constexpr size_t kMostPages = 1 << 15;

struct Access {
  uint32_t who;     // block's number * 1024 + thread
  uint32_t block;   // barriers until then
  uint32_t warp;    // __syncwarp()s until then
  bool atomic;
};
struct Cell {
  uint32_t era = 0;  // the launch (global memory) or block (shared memory) that the rest belongs to
  uint8_t readers = 0;
  bool written = false;
  Access write;
  // The last reader; the last that is another lane of its warp; the last of another warp.
  Access read[3];
};
struct Page {
  Cell cells[kPage / 4];
};

// Cells of all memory, looked up by page. `Unit`: bytes of a cell.
template <int Unit>
class Shadow {
 public:
  Cell& at(uintptr_t address) {
    const uintptr_t cell = address / Unit, page = cell / (kPage / 4);
    if (page != last_ || !found_) {
      auto& slot = pages_[page];
      if (!slot) slot = std::make_unique<Page>();
      last_ = page;
      found_ = slot.get();
    }
    return found_->cells[cell % (kPage / 4)];
  }
  void trim() {
    if (pages_.size() < kMostPages) return;
    pages_.clear();
    found_ = nullptr;
  }

 private:
  std::unordered_map<uintptr_t, std::unique_ptr<Page>> pages_;
  uintptr_t last_ = 0;
  Page* found_ = nullptr;
};

// One OS thread runs all blocks in this mode.
Shadow<4> words;
Shadow<1> bytes;
std::vector<unsigned char> defined;  // of each byte of shared memory
bool running = false;
uint32_t launch_era = 0, block_era = 0, block_number = 0, next_block = 0, barriers = 0;
uint32_t syncs[32];
Access me;
const unsigned char *stack_begin, *stack_end;

bool ordered(const Access& before) {
  if (before.who == me.who) return true;
  if (before.who >> 10 != me.who >> 10) return false;
  if (before.block < me.block) return true;
  return before.who >> 5 == me.who >> 5 && before.warp < me.warp;
}

[[noreturn]] void report(const Access& other, uintptr_t address, const char* mine, const char* theirs) {
  const auto start = reinterpret_cast<uintptr_t>(place.shared);
  running = false;
  const unsigned a = me.who & 1023, b = other.who & 1023;
  if (address >= start && address < start + place.shared_bytes)
    fail("race: shared memory, byte %zu: %s by thread %u, %s by thread %u, no barrier between", address - start, theirs, b, mine, a);
  if (other.who >> 10 == me.who >> 10)
    fail("race: global memory: %s by thread %u, %s by thread %u of one block, no barrier between", theirs, b, mine, a);
  fail("race: global memory: %s by block %u, %s by block %u of one launch", theirs, other.who >> 10, mine, me.who >> 10);
}

void touch(Cell& cell, uintptr_t address, uint32_t era, bool write, bool atomic) {
  if (cell.era != era) {
    cell.era = era;
    cell.readers = 0;
    cell.written = false;
  }
  if (cell.written && !ordered(cell.write) && !(atomic && cell.write.atomic))
    report(cell.write, address, write ? "written" : "read", "written");
  Access now = me;
  now.atomic = atomic;
  if (write) {
    for (int i = 0; i < 3; ++i)
      if (cell.readers >> i & 1 && !ordered(cell.read[i])) report(cell.read[i], address, "written", "read");
    cell.write = now;
    cell.written = true;
    cell.readers = 0;  // whoever races with them now races with this write too
    return;
  }
  if (cell.readers & 1 && cell.read[0].who != me.who) {
    const int keep = cell.read[0].who >> 5 == me.who >> 5 ? 1 : 2;
    cell.read[keep] = cell.read[0];
    cell.readers |= static_cast<uint8_t>(1 << keep);
  }
  cell.read[0] = now;
  cell.readers |= 1;
}

void access(const void* pointer, size_t size, bool write, bool atomic = false, bool defines = true) {
  if (!running) return;
  const auto* p = static_cast<const unsigned char*>(pointer);
  if (p >= stack_begin && p < stack_end) return;
  if (p >= reinterpret_cast<const unsigned char*>(&place) && p < reinterpret_cast<const unsigned char*>(&place + 1)) return;
  const bool shared = p >= place.shared && p < place.shared + place.shared_bytes;
  if (shared) {
    const size_t at = static_cast<size_t>(p - place.shared);
    for (size_t i = at; i < at + size && i < defined.size(); ++i) {
      if (write && defines) defined[i] = 1;
      if ((!write || atomic) && !defined[i]) {
        running = false;
        fail("uninitialised read: shared memory, byte %zu of %zu, by thread %u", i, place.shared_bytes, me.who & 1023);
      }
    }
  }
  const uint32_t era = shared ? block_era : launch_era;
  const auto address = reinterpret_cast<uintptr_t>(p);
  if (size % 4 == 0 && address % 4 == 0)
    for (size_t i = 0; i < size; i += 4) touch(words.at(address + i), address + i, era, write, atomic);
  else
    for (size_t i = 0; i < size; ++i) touch(bytes.at(address + i), address + i, era, write, atomic);
}

}  // namespace

bool active() { return true; }
void begin_launch() {
  words.trim();
  bytes.trim();
  launch_era = ++block_era;  // one count for both: every launch and block has its own
  next_block = 0;
  running = false;
}
void end_launch() { running = false; }
void begin_block() {
  ++block_era;
  block_number = next_block++;
  barriers = 0;
  memset(syncs, 0, sizeof syncs);
  defined.assign(place.shared_bytes, 0);
}
void run(int thread, const void* stack, size_t stack_bytes) {
  stack_begin = static_cast<const unsigned char*>(stack);
  stack_end = stack_begin + stack_bytes;
  me = {block_number << 10 | static_cast<uint32_t>(thread), barriers, syncs[thread / 32], false};
  running = true;
}
void barrier() { ++barriers; }
void syncwarp(unsigned lanes) {
  const uint3& n = place.block_size;
  const unsigned threads = n.x * n.y * n.z, warp = (me.who & 1023) / 32, there = threads - warp * 32;
  const unsigned all = there >= 32 ? 0xffffffffu : (1u << there) - 1;
  if (lanes == all) me.warp = ++syncs[warp];
}
void read(const void* p, size_t size) { access(p, size, false); }
void issue(void* shared, size_t size) { access(shared, size, true, false, false); }
void land(void* shared, const void* global, size_t size) {
  if (global) access(global, size, false);
  access(shared, size, true);
}
void atomic(const void* p, size_t size) { access(p, size, true, true); }

}  // namespace emu::race

// ------------------------------------------------------------------------------------- what the compiler calls

extern "C" {
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}
#define FASTDL_ACCESS(size)                                                             \
  void __tsan_read##size(void* p) { emu::race::access(p, size, false); }                \
  void __tsan_write##size(void* p) { emu::race::access(p, size, true); }                \
  void __tsan_unaligned_read##size(void* p) { emu::race::access(p, size, false); }      \
  void __tsan_unaligned_write##size(void* p) { emu::race::access(p, size, true); }      \
  void __tsan_volatile_read##size(void* p) { emu::race::access(p, size, false); }       \
  void __tsan_volatile_write##size(void* p) { emu::race::access(p, size, true); }
FASTDL_ACCESS(1)
FASTDL_ACCESS(2)
FASTDL_ACCESS(4)
FASTDL_ACCESS(8)
FASTDL_ACCESS(16)
void __tsan_read_range(void* p, size_t size) { emu::race::access(p, size, false); }
void __tsan_write_range(void* p, size_t size) { emu::race::access(p, size, true); }
}
