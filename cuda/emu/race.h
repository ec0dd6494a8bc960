// What the scheduler tells the race detector (race.cpp). Without FASTDL_EMU_RACE all of it is nothing.
#pragma once
#include <stddef.h>

namespace emu::race {
#if defined(FASTDL_EMU_RACE)
bool active();
void begin_launch();
void begin_block();
void end_block();
void barrier();
void syncwarp(unsigned lanes);
void copy(void* shared, const void* global, size_t bytes);
#else
inline bool active() { return false; }
inline void begin_launch() {}
inline void begin_block() {}
inline void end_block() {}
inline void barrier() {}
inline void syncwarp(unsigned) {}
inline void copy(void*, const void*, size_t) {}
#endif
}  // namespace emu::race
