// How many threads hold at first: what the environment says, else the CPUs that affinity and the cgroups' quotas allow.
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <atomic>
#include <climits>
#include <string>

#include "threads.h"

namespace fastdl {
namespace {

bool read_file(const std::string& path, std::string* text) {
  FILE* file = fopen(path.c_str(), "re");
  if (!file) return false;
  char buffer[4096];
  text->clear();
  size_t got;
  while ((got = fread(buffer, 1, sizeof buffer, file)) > 0) text->append(buffer, got);
  fclose(file);
  return true;
}

// Whole decimal number with nothing but blanks around it; -1 if it is none.
long parse_count(const char* text) {
  char* end;
  const long value = strtol(text, &end, 10);
  if (end == text) return -1;
  while (*end == ' ' || *end == '\t' || *end == '\n') end++;
  return *end ? -1 : value;
}

// Smallest quota of `path` and the groups above it, in CPUs; 0 for none. A container often sees its own group as the
// root while /proc still tells the host's path, so what does not exist is skipped, not an error.
double quota(const std::string& mount, std::string path, bool v2) {
  double least = 0;
  for (;;) {
    const std::string group = mount + (path == "/" ? "" : path);
    std::string text, period_text;
    double limit = 0, period = 0;
    if (v2 && read_file(group + "/cpu.max", &text) && sscanf(text.c_str(), "%lf %lf", &limit, &period) == 2 &&
        period > 0)
      limit /= period;
    else if (!v2 && read_file(group + "/cpu.cfs_quota_us", &text) &&
             read_file(group + "/cpu.cfs_period_us", &period_text) && (period = atof(period_text.c_str())) > 0)
      limit = atof(text.c_str()) / period;
    else
      limit = 0;
    if (limit > 0 && (least == 0 || limit < least)) least = limit;
    const size_t slash = path.rfind('/');
    if (path.empty() || path == "/" || slash == std::string::npos) return least;
    path.resize(slash);
  }
}

int affinity_count() {
#if defined(__linux__)
  for (int size = 1024; size <= 1 << 20; size *= 2) {  // the kernel refuses a mask shorter than its own
    cpu_set_t* set = CPU_ALLOC(size);
    if (!set) break;
    const bool ok = sched_getaffinity(0, CPU_ALLOC_SIZE(size), set) == 0;
    const int count = ok ? CPU_COUNT_S(CPU_ALLOC_SIZE(size), set) : 0;
    CPU_FREE(set);
    if (count > 0) return count;
  }
#endif
  const long online = sysconf(_SC_NPROCESSORS_ONLN);
  return online > 0 ? int(online < INT_MAX ? online : INT_MAX) : 1;
}

struct Default {
  int count;
  std::string source;
};

Default find_default() {
  if (const char* text = getenv("FASTDL_NUM_THREADS"); text && *text) {
    const long count = parse_count(text);
    if (count >= 1 && count <= kMaxThreads) return {int(count), "FASTDL_NUM_THREADS"};
    return {
        0, "FASTDL_NUM_THREADS: expected an integer from 1 to " + std::to_string(kMaxThreads) + "; got '" + text + "'"};
  }
  if (const char* text = getenv("OMP_NUM_THREADS"); text && *text) {
    // OpenMP allows a list, one number a nesting level; ours is the outermost. A bad value is OpenMP's to complain
    // about.
    const std::string all = text;
    const long count = parse_count(all.substr(0, all.find(',')).c_str());
    if (count >= 1) return {int(count < kMaxThreads ? count : kMaxThreads), "OMP_NUM_THREADS"};
  }
  const int cpus = affinity_count(), allowed = cgroup_cpu_limit("");
  if (allowed > 0 && allowed < cpus && allowed <= kMaxThreads) return {allowed, "cgroup CPU quota"};
  return {cpus < kMaxThreads ? cpus : kMaxThreads, "CPU affinity"};
}

// Not a static local: a fork while another thread sets it up would leave the child waiting for that thread. Leaked.
const Default& the_default() {
  static std::atomic<const Default*> known{nullptr};
  const Default* found = known.load(std::memory_order_acquire);
  if (!found) {
    const Default* mine = new Default(find_default());
    if (known.compare_exchange_strong(found, mine, std::memory_order_acq_rel)) return *mine;
    delete mine;
  }
  return *found;
}

}  // namespace

int default_num_threads(const char** source) {
  const Default& found = the_default();
  if (source) *source = found.source.c_str();
  return found.count;
}

int cgroup_cpu_limit(const std::string& root) {
  std::string text;
  if (!read_file(root + "/proc/self/cgroup", &text)) return 0;
  const std::string base = root + "/sys/fs/cgroup";
  double least = 0;
  const auto consider = [&](double limit) {
    if (limit > 0 && (least == 0 || limit < least)) least = limit;
  };
  // Lines are id:controllers:path; version 2 is the one with no controllers.
  for (size_t at = 0; at < text.size();) {
    const size_t end = text.find('\n', at) == std::string::npos ? text.size() : text.find('\n', at);
    const std::string line = text.substr(at, end - at);
    at = end + 1;
    const size_t first = line.find(':'), second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1), path = line.substr(second + 1);
    if (controllers.empty()) {
      consider(quota(base, path, true));
      consider(quota(base + "/unified", path, true));
    } else if (("," + controllers + ",").find(",cpu,") != std::string::npos) {
      consider(quota(base + "/cpu", path, false));
      consider(quota(base + "/" + controllers, path, false));
    }
  }
  if (least == 0) return 0;
  return least < 1 ? 1 : int(least < INT_MAX ? least : INT_MAX);
}

}  // namespace fastdl
