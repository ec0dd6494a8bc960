#include "cpuid.h"

#include <stdio.h>
#include <string.h>
#if defined(__APPLE__)
#include <sys/sysctl.h>
#endif

namespace fastdl {
namespace {

std::string trimmed(const std::string& text) {
  const size_t first = text.find_first_not_of(" \t\n"), last = text.find_last_not_of(" \t\n");
  return first == std::string::npos ? "" : text.substr(first, last - first + 1);
}

#if defined(__x86_64__)
// By hand, as the compiler's header for it is also called cpuid.h and ours may come first on the search path.
bool query(unsigned leaf, unsigned* a, unsigned* b, unsigned* c, unsigned* d) {
  unsigned most;
  __asm__ volatile("cpuid" : "=a"(most), "=b"(*b), "=c"(*c), "=d"(*d) : "0"(leaf & 0x80000000u), "2"(0));
  if (most < leaf) return false;
  __asm__ volatile("cpuid" : "=a"(*a), "=b"(*b), "=c"(*c), "=d"(*d) : "0"(leaf), "2"(0));
  return true;
}

// What __builtin_cpu_supports does not know in every compiler we build with. Both are of general registers, so the
// operating system has no part in them.
bool has_movbe_and_lzcnt() {
  unsigned a, b, c, d;
  if (!query(1, &a, &b, &c, &d) || !(c & (1u << 22))) return false;
  return query(0x80000001u, &a, &b, &c, &d) && (c & (1u << 5));
}

// F16C works on the AVX registers; that the system saves those is checked with AVX2.
bool has_f16c() {
  unsigned a, b, c, d;
  return query(1, &a, &b, &c, &d) && (c & (1u << 29));
}
#endif

}  // namespace

Isa best_isa() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool v3 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi") &&
                  __builtin_cpu_supports("bmi2") && has_f16c() && has_movbe_and_lzcnt();
  if (!v3) return Isa::kBase;
  const bool v4 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                  __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
                  __builtin_cpu_supports("avx512vl");
  return v4 ? Isa::kAvx512 : Isa::kAvx2;
#else
  return Isa::kBase;
#endif
}

const char* isa_name(Isa isa) {
  switch (isa) {
    case Isa::kAvx512: return "avx512";
    case Isa::kAvx2: return "avx2";
    default: return "base";
  }
}

std::string cpu_brand() {
#if defined(__x86_64__)
  unsigned words[12];
  for (unsigned i = 0; i < 3; i++)
    if (!query(0x80000002u + i, words + 4 * i, words + 4 * i + 1, words + 4 * i + 2, words + 4 * i + 3)) return "";
  char text[sizeof words + 1] = {};
  memcpy(text, words, sizeof words);
  return trimmed(text);
#elif defined(__APPLE__)
  char text[256] = {};
  size_t size = sizeof text - 1;
  return sysctlbyname("machdep.cpu.brand_string", text, &size, nullptr, 0) == 0 ? trimmed(text) : "";
#else
  // Arm cores tell a number only; where the kernel gives a name at all it is in one of these lines.
  FILE* file = fopen("/proc/cpuinfo", "re");
  if (!file) return "";
  std::string brand;
  char line[512];
  while (brand.empty() && fgets(line, sizeof line, file))
    if (strncmp(line, "model name", 10) == 0 || strncmp(line, "Model", 5) == 0 || strncmp(line, "Hardware", 8) == 0)
      if (const char* colon = strchr(line, ':')) brand = trimmed(colon + 1);
  fclose(file);
  return brand;
#endif
}

}  // namespace fastdl
