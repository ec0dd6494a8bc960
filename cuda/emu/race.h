// What the scheduler tells the race detector (race.cpp). Without FASTDL_EMU_RACE all of it is nothing.
#pragma once
#include <stddef.h>

namespace emu::race {
#if defined(FASTDL_EMU_RACE)
bool active();
void begin_launch();
void end_launch();
void begin_block();
void run(int thread, const void* stack, size_t stack_bytes);  // this thread of the block goes on
void barrier();
void syncwarp(unsigned lanes);
void read(const void* p, size_t bytes);
void issue(void* shared, size_t bytes);  // an asynchronous copy that may land from now on
void land(void* shared, const void* global, size_t bytes);
void atomic(const void* p, size_t bytes);
#else
inline bool active() { return false; }
inline void begin_launch() {}
inline void end_launch() {}
inline void begin_block() {}
inline void run(int, const void*, size_t) {}
inline void barrier() {}
inline void syncwarp(unsigned) {}
inline void read(const void*, size_t) {}
inline void issue(void*, size_t) {}
inline void land(void*, const void*, size_t) {}
inline void atomic(const void*, size_t) {}
#endif
}  // namespace emu::race
