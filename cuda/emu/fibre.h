// Fibres: one for each thread of a block. Switching is a function call that comes back on another stack: on x86-64 by
// hand (six registers; ten times as fast as ucontext, which makes a system call), elsewhere by ucontext.
#pragma once
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#if !defined(__x86_64__)
#include <ucontext.h>
#endif
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace emu {

#if defined(__x86_64__)
using Context = void*;  // the stack pointer; all else lies on the stack
extern "C" void fastdl_emu_switch(Context* save, Context load);
#else
using Context = ucontext_t;
#endif

// A stack and what runs on it.
class Fibre {
 public:
#if defined(__SANITIZE_ADDRESS__)
  static constexpr size_t kStackBytes = 256 << 10;
#else
  static constexpr size_t kStackBytes = 64 << 10;
#endif

  Fibre() {
    page_ = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    void* p = mmap(nullptr, kStackBytes + page_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) abort();
    base_ = static_cast<unsigned char*>(p);
    mprotect(base_, page_, PROT_NONE);  // a stack that is too small is a fault and not a riddle
  }
  Fibre(const Fibre&) = delete;
  ~Fibre() { munmap(base_, kStackBytes + page_); }

  // The next enter() calls main(), which must never return.
  void prepare(void (*main)()) {
#if defined(__SANITIZE_ADDRESS__)
    __asan_unpoison_memory_region(base_ + page_, kStackBytes);
#endif
#if defined(__x86_64__)
    auto** top = reinterpret_cast<void**>(base_ + page_ + kStackBytes);
    *--top = nullptr;  // as after a call, the stack pointer is 8 off a multiple of 16
    *--top = reinterpret_cast<void*>(main);
    for (int i = 0; i < 6; ++i) *--top = nullptr;
    context_ = top;
#else
    getcontext(&context_);
    context_.uc_stack.ss_sp = base_ + page_;
    context_.uc_stack.ss_size = kStackBytes;
    context_.uc_link = nullptr;
    makecontext(&context_, main, 0);
#endif
  }
  // From the scheduler into the fibre, until it leaves.
  void enter(Context* scheduler) {
#if defined(__SANITIZE_ADDRESS__)
    void* fake = nullptr;
    __sanitizer_start_switch_fiber(&fake, base_ + page_, kStackBytes);
#endif
    change(scheduler, &context_);
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#endif
  }
  // From the fibre to the scheduler, until it is entered again.
  void leave(Context* scheduler) {
#if defined(__SANITIZE_ADDRESS__)
    void* fake = nullptr;
    __sanitizer_start_switch_fiber(&fake, scheduler_bottom_, scheduler_size_);
#endif
    change(&context_, scheduler);
    arrived();
#if defined(__SANITIZE_ADDRESS__)
    (void)fake;
#endif
  }
  // What main() does first.
  void arrived() {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(nullptr, &scheduler_bottom_, &scheduler_size_);
#endif
  }
  const void* base() const { return base_; }
  size_t bytes() const { return page_ + kStackBytes; }

 private:
  static void change(Context* save, Context* load) {
#if defined(__x86_64__)
    fastdl_emu_switch(save, *load);
#else
    swapcontext(save, load);
#endif
  }

  Context context_;
  unsigned char* base_;
  size_t page_;
#if defined(__SANITIZE_ADDRESS__)
  const void* scheduler_bottom_ = nullptr;
  size_t scheduler_size_ = 0;
#endif
};

}  // namespace emu
