// Which of the library's instruction sets this machine may run. Compiled for the baseline, so safe to ask anywhere.
#pragma once
#include <string>

namespace fastdl {

enum class Isa { kBase, kAvx2, kAvx512 };  // on x86-64: levels v2, v3 and v4 of its ABI; elsewhere always kBase

// The best that the CPU has and the operating system supports (it must save the wider registers).
Isa best_isa();

// "base", "avx2" or "avx512": the names of the modules and of FASTDL_ISA.
const char* isa_name(Isa isa);

// The CPU's name as its maker gives it, such as "AMD EPYC 7713"; empty where the system does not tell.
std::string cpu_brand();

}  // namespace fastdl
