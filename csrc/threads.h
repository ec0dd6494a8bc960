// What the binding needs of the thread pool; kernels see only csrc/cpu/parallel.h. The protocol:
// docs/kernels/threads.md.
#pragma once
#include <string>

namespace fastdl {

constexpr int kMaxThreads = 512;

// The number of threads (the caller among them) that later regions may use. std::invalid_argument if not in [1, 512].
void set_num_threads(int count);

// What was set, or the number that holds until then. (num_threads() of cpu/parallel.h is what a region may use this moment.)
int get_num_threads();

// The number that holds until set_num_threads is called, found once: FASTDL_NUM_THREADS, else OMP_NUM_THREADS, else the
// CPUs of the affinity mask, at most the cgroup's CPU quota. *source (may be null) says in words where it came from and
// lives for ever. An unusable FASTDL_NUM_THREADS gives 0, and *source is the message to raise as ValueError; kernels
// then use one thread.
int default_num_threads(const char** source);

// CPUs that the cgroups of this process allow (quota / period, rounded down, at least 1), 0 where there is no quota.
// Reads <root>/proc/self/cgroup and <root>/sys/fs/cgroup, versions 2 and 1; root is "" but in tests.
int cgroup_cpu_limit(const std::string& root);

// Helper threads that this process has started. For tests and show_config.
int num_helpers();

// What helpers have done so far. For tests.
struct HelperCounts {
  uint64_t batches;    // that helpers ran
  uint64_t sent_away;  // times that a helper was moved off its caller's core
  uint64_t fetched;    // times that one without a core was moved to its waiting caller's
};
HelperCounts helper_counts();

}  // namespace fastdl
