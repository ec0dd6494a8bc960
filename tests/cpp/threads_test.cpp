// Tests of csrc/threads.cpp that need no Python. Build and run, also with -fsanitize=thread:
//   g++ -std=c++17 -O2 -Icsrc tests/cpp/threads_test.cpp csrc/thread*.cpp -pthread -o threads_test &&
//   ./threads_test
#include "threads.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#if defined(__linux__)
#include <dirent.h>
#include <sched.h>
#endif

#include <atomic>
#include <chrono>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "cpu/parallel.h"

using fastdl::parallel_for;

#define CHECK(condition)                                                      \
  do {                                                                        \
    if (!(condition)) {                                                       \
      fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
      _exit(1);                                                               \
    }                                                                         \
  } while (0)

namespace {

// Every index once, ranges at multiples of the grain, for many shapes. The marks lie on the stack and are written
// unsynchronised, so a helper that comes late or twice shows (as a wrong count, and to the sanitizers).
void cover(int64_t n, int64_t grain) {
  std::vector<unsigned char> seen(size_t(n > 0 ? n : 0) + 1, 0);
  std::atomic<int> bad{0};
  parallel_for(n, grain, [&](int64_t begin, int64_t end) {
    if (begin % grain || begin >= end || (end != n && end - begin != grain)) bad++;
    for (int64_t i = begin; i < end; i++) seen[size_t(i)]++;
  });
  CHECK(bad == 0);
  for (int64_t i = 0; i < n; i++) CHECK(seen[size_t(i)] == 1);
}

void test_cover() {
  for (int threads : {1, 2, 3, 8}) {
    fastdl::set_num_threads(threads);
    CHECK(fastdl::num_threads() == threads);
    for (int64_t n : {-1, 0, 1, 2, 7, 63, 64, 65, 1000, 4099})
      for (int64_t grain : {1, 2, 3, 64, 5000}) cover(n, grain);
  }
}

void test_many_short_regions(int count) {
  fastdl::set_num_threads(4);
  for (int round = 0; round < count; round++) {
    int64_t part[16] = {};
    const int64_t n = 2 + round % 15;
    parallel_for(n, 1, [&](int64_t b, int64_t) { part[b] = b + round; });
    for (int64_t i = 0; i < n; i++) CHECK(part[i] == i + round);
    if (round % 1000 == 0) usleep(200);  // let helpers fall asleep
  }
}

// On a machine whose cores are all taken, helpers rightly stay away, so this waits for one, and proves nothing there.
void test_helpers_help() {
  double load = 0;
  if (std::thread::hardware_concurrency() < 2 || getloadavg(&load, 1) != 1 || load > 1.2) {
    puts("skipped: whether helpers help (needs two cores, one of them idle)");
    return;
  }
  fastdl::set_num_threads(2);
  const auto me = std::this_thread::get_id();
  std::atomic<int> elsewhere{0};
  using Clock = std::chrono::steady_clock;
  for (const auto start = Clock::now(); !elsewhere && Clock::now() - start < std::chrono::seconds(20);)
    parallel_for(64, 1, [&](int64_t, int64_t) {
      for (const auto begun = Clock::now(); Clock::now() - begun < std::chrono::microseconds(50);) {
      }
      if (std::this_thread::get_id() != me) elsewhere++;
    });
  CHECK(elsewhere > 0);
}

#if defined(__linux__)
// The cores that our one helper may use.
cpu_set_t helper_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  DIR* tasks = opendir("/proc/self/task");
  CHECK(tasks);
  while (const dirent* entry = readdir(tasks)) {
    char name[16] = "";
    FILE* file = fopen((std::string("/proc/self/task/") + entry->d_name + "/comm").c_str(), "r");
    if (!file) continue;
    if (fgets(name, sizeof name, file) && !strcmp(name, "fastdl\n"))
      CHECK(sched_getaffinity(atoi(entry->d_name), sizeof set, &set) == 0);
    fclose(file);
  }
  closedir(tasks);
  return set;
}

// A caller moves from core to core. Wherever it goes, the helper is sent away from there and helps (or this never ends).
void move_between_cores() {
  cpu_set_t all, one;
  CHECK(sched_getaffinity(0, sizeof all, &all) == 0);
  cover(1000, 3);
  const uint64_t sent_away = fastdl::helper_counts().sent_away;
  for (int moves = 0, cpu = 0; moves < 12; cpu = (cpu + 1) % CPU_SETSIZE) {
    if (!CPU_ISSET(cpu, &all)) continue;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    CHECK(sched_setaffinity(0, sizeof one, &one) == 0);
    moves++;
    for (const uint64_t before = fastdl::helper_counts().batches; fastdl::helper_counts().batches == before;)
      parallel_for(64, 1, [](int64_t, int64_t) { usleep(20); });
  }
  CHECK(CPU_COUNT(&all) > 2 || fastdl::helper_counts().sent_away > sent_away);
}

// A helper that holds a batch and does not run (here: sleeps) is fetched to its caller's core, and sent away again.
void fetch_a_stalled_helper() {
  const auto me = std::this_thread::get_id();
  const auto before = fastdl::helper_counts();
  for (int tries = 0; fastdl::helper_counts().fetched == before.fetched && tries < 200; tries++)
    parallel_for(2, 1, [&](int64_t, int64_t) { usleep(std::this_thread::get_id() == me ? 1000 : 20000); });
  CHECK(fastdl::helper_counts().fetched > before.fetched);
  cpu_set_t set = helper_cores();
  CHECK(CPU_COUNT(&set) == 1);
  CHECK(sched_setaffinity(0, sizeof set, &set) == 0);  // where the caller was then: it may have been moved since
  for (int tries = 0; fastdl::helper_counts().sent_away == before.sent_away && tries < 200; tries++) cover(1000, 3);
  CHECK(fastdl::helper_counts().sent_away > before.sent_away);
}

// In processes of their own, with a helper of their own; a single core proves nothing.
void test_cores() {
  cpu_set_t all;
  if (sched_getaffinity(0, sizeof all, &all) != 0 || CPU_COUNT(&all) < 2) {
    puts("skipped: helpers and cores (needs two)");
    return;
  }
  fastdl::set_num_threads(2);
  for (void (*test)() : {move_between_cores, fetch_a_stalled_helper}) {
    const pid_t child = fork();
    if (child == 0) {
      alarm(60);
      test();
      _exit(0);
    }
    int status = 1;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
  }
}
#else
void test_cores() {}
#endif

void test_nested_and_concurrent() {
  fastdl::set_num_threads(3);
  std::atomic<int64_t> sum{0};
  parallel_for(20, 1, [&](int64_t b, int64_t) {
    CHECK(fastdl::num_threads() == 1);
    parallel_for(10, 1, [&](int64_t i, int64_t) { sum += b * 10 + i; });
  });
  CHECK(sum == 199 * 200 / 2);
  std::vector<std::thread> callers;
  for (int t = 0; t < 4; t++)
    callers.emplace_back([] {
      for (int i = 0; i < 300; i++) cover(300 + i, 7);
    });
  for (auto& c : callers) c.join();
}

void test_scratch() {
  float* first = fastdl::thread_scratch(0, 100);
  CHECK(reinterpret_cast<uintptr_t>(first) % 64 == 0);
  CHECK(fastdl::thread_scratch(0, 50) == first && fastdl::thread_scratch(1, 100) != first);
  for (int i = 0; i < 100; i++) first[i] = float(i);
  float* large = fastdl::thread_scratch(0, size_t(3) << 20);
  CHECK(reinterpret_cast<uintptr_t>(large) % (2 << 20) == 0);
  large[(3 << 20) - 1] = 1;
  CHECK(fastdl::thread_scratch(0, 10) == large);
  CHECK(fastdl::thread_scratch(2, 0) != nullptr);
  float* other = nullptr;
  std::thread([&] { other = fastdl::thread_scratch(1, 100); }).join();
  CHECK(other != fastdl::thread_scratch(1, 100));
}

// A child must start afresh, use the pool, and not wait for its parent's helpers or for a region it did not open.
void test_fork(int count) {
  fastdl::set_num_threads(3);
  cover(1000, 3);
  std::atomic<bool> stop{false};
  std::thread other([&] {
    while (!stop) parallel_for(200, 1, [&](int64_t, int64_t) { usleep(5); });
  });
  for (int i = 0; i < count; i++) {
    const pid_t child = fork();
    if (child == 0) {
      CHECK(fastdl::num_helpers() == 0);
      alarm(20);
      cover(1000, 3);
      CHECK(fastdl::num_helpers() == 2);
      if (fork() == 0) {
        cover(999, 2);
        CHECK(fastdl::num_helpers() == 2);
        _exit(0);
      }
      int status = 1;
      CHECK(wait(&status) > 0 && status == 0);
      _exit(0);
    }
    int status = 1;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    usleep(1000);
  }
  stop = true;
  other.join();
  cover(1000, 3);
}

void write(const std::string& path, const char* text) {
  for (size_t slash = 1; (slash = path.find('/', slash)) != std::string::npos; slash++)
    mkdir(path.substr(0, slash).c_str(), 0700);
  FILE* file = fopen(path.c_str(), "w");
  CHECK(file);
  fputs(text, file);
  fclose(file);
}

void test_cgroup() {
  char place[] = "/tmp/fastdl_cgroup_XXXXXX";
  const std::string root = mkdtemp(place), v2 = root + "/2", v1 = root + "/1", host = root + "/host";
  CHECK(fastdl::cgroup_cpu_limit(root) == 0);
  write(v2 + "/proc/self/cgroup", "0::/a/b\n");
  write(v2 + "/sys/fs/cgroup/a/b/cpu.max", "max 100000\n");
  CHECK(fastdl::cgroup_cpu_limit(v2) == 0);
  write(v2 + "/sys/fs/cgroup/a/cpu.max", "250000 100000\n");  // the group above binds too
  CHECK(fastdl::cgroup_cpu_limit(v2) == 2);
  write(v2 + "/sys/fs/cgroup/a/b/cpu.max", "50000 100000\n");
  CHECK(fastdl::cgroup_cpu_limit(v2) == 1);
  write(v1 + "/proc/self/cgroup", "5:memory:/m\n4:cpu,cpuacct:/x\n");
  write(v1 + "/sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_quota_us", "-1\n");
  write(v1 + "/sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_period_us", "100000\n");
  CHECK(fastdl::cgroup_cpu_limit(v1) == 0);
  write(v1 + "/sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_quota_us", "300000\n");
  CHECK(fastdl::cgroup_cpu_limit(v1) == 3);
  write(host + "/proc/self/cgroup", "0::/only/the/host/has/this\n");  // a container without its own namespace
  write(host + "/sys/fs/cgroup/cpu.max", "400000 100000\n");
  CHECK(fastdl::cgroup_cpu_limit(host) == 4);
  CHECK(system(("rm -r " + root).c_str()) == 0);
}

// The default is found once a process, so each case is one.
void test_default(const char* own, const char* openmp, int count, const char* source) {
  const pid_t child = fork();
  if (child == 0) {
    own ? setenv("FASTDL_NUM_THREADS", own, 1) : unsetenv("FASTDL_NUM_THREADS");
    openmp ? setenv("OMP_NUM_THREADS", openmp, 1) : unsetenv("OMP_NUM_THREADS");
    const char* text = nullptr;
    const int got = fastdl::default_num_threads(&text);
    CHECK(count < 0 ? got >= 1 : got == count);
    CHECK(strstr(text, source));
    CHECK(fastdl::num_threads() == (got < 1 ? 1 : got));
    _exit(0);
  }
  int status = 1;
  CHECK(waitpid(child, &status, 0) == child && status == 0);
}

void test_bad_count() {
  for (int bad : {0, -3, fastdl::kMaxThreads + 1}) {
    bool refused = false;
    try {
      fastdl::set_num_threads(bad);
    } catch (const std::invalid_argument& e) {
      refused = strstr(e.what(), std::to_string(bad).c_str());
    }
    CHECK(refused);
  }
}

}  // namespace

int main(int argc, char**) {
  const bool brief = argc > 1;  // any argument: fewer rounds, and no forks, for sanitizers and emulators
  if (!brief) {
    test_default("3", "5", 3, "FASTDL_NUM_THREADS");
    test_default(nullptr, "5,2", 5, "OMP_NUM_THREADS");
    test_default(nullptr, "none", -1, "C");
    test_default(nullptr, nullptr, -1, "C");
    for (const char* bad : {"0", "-1", "two", "2x", "1e3", "513", "99999999999999999999"})
      test_default(bad, "5", 0,
                   (std::string("FASTDL_NUM_THREADS: expected an integer from 1 to 512; got '") + bad).c_str());
  }
  test_cgroup();
  test_bad_count();
  test_cover();
  test_many_short_regions(brief ? 20000 : 200000);
  test_helpers_help();
  test_nested_and_concurrent();
  test_scratch();
  if (!brief) test_cores();
  if (!brief) test_fork(100);
  puts("ok");
  return 0;
}
