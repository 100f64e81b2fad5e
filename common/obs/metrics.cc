// See metrics.h.
#include "common/obs/metrics.h"

#include <dirent.h>
#include <prometheus/exposer.h>
#include <prometheus/metric_family.h>
#include <sys/resource.h>
#include <unistd.h>

#include <ctime>
#include <exception>
#include <fstream>

#include "common/net/address.h"
#include "common/status/status.h"

namespace hanlin {
namespace {

// Samples /proc/self at scrape time, under the names of Prometheus' client libraries.
class ProcessCollector : public prometheus::Collectable {
 public:
  std::vector<prometheus::MetricFamily> Collect() const override {
    std::vector<prometheus::MetricFamily> families;
    Add(families, "process_resident_memory_bytes", "Resident memory", ResidentBytes());
    Add(families, "process_open_fds", "Open file descriptors", CountEntries("/proc/self/fd"));
    Add(families, "process_max_fds", "Most file descriptors there can be", MaxDescriptors());
    Add(families, "process_start_time_seconds", "Start of the process since 1970", start_time_);
    Add(families, "process_threads", "Threads", CountEntries("/proc/self/task"));
    timespec cpu = {};
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu);
    Add(families, "process_cpu_seconds_total", "CPU time of user and kernel",
        static_cast<double>(cpu.tv_sec) + 1e-9 * static_cast<double>(cpu.tv_nsec),
        prometheus::MetricType::Counter);
    return families;
  }

 private:
  static void Add(std::vector<prometheus::MetricFamily>& families, const char* name,
                  const char* help, double value,
                  prometheus::MetricType type = prometheus::MetricType::Gauge) {
    prometheus::ClientMetric metric;
    if (type == prometheus::MetricType::Counter) {
      metric.counter.value = value;
    } else {
      metric.gauge.value = value;
    }
    families.push_back({name, help, type, {metric}});
  }

  static double ResidentBytes() {
    std::ifstream statm("/proc/self/statm");
    double total = 0;
    double resident = 0;
    statm >> total >> resident;
    return resident * static_cast<double>(sysconf(_SC_PAGESIZE));
  }

  static double MaxDescriptors() {
    rlimit limit = {};
    getrlimit(RLIMIT_NOFILE, &limit);
    return static_cast<double>(limit.rlim_cur);
  }

  static double CountEntries(const char* directory) {
    DIR* dir = opendir(directory);
    if (dir == nullptr) return 0;
    int entries = -2;  // "." and ".."
    while (readdir(dir) != nullptr) ++entries;
    closedir(dir);
    return entries;
  }

  // Made at the start of main, which is near enough.
  const double start_time_ = static_cast<double>(std::time(nullptr));
};

}  // namespace

absl::StatusOr<std::unique_ptr<MetricsServer>> MetricsServer::Create(const std::string& address) {
  auto server = std::unique_ptr<MetricsServer>(new MetricsServer);
  server->registry_ = std::make_shared<prometheus::Registry>();
  server->process_ = std::make_shared<ProcessCollector>();
  if (address.empty()) return server;
  if (PortOf(address) < 0) {
    return InvalidArgument("metrics address is \"{}\", want HOST:PORT", address);
  }
  try {
    server->exposer_ = std::make_unique<prometheus::Exposer>(address, /*num_threads=*/1);
  } catch (const std::exception& error) {
    return FailedPrecondition("cannot serve metrics on {}: {} (is the port in use?)", address,
                              error.what());
  }
  server->exposer_->RegisterCollectable(server->registry_);
  server->exposer_->RegisterCollectable(server->process_);
  const auto ports = server->exposer_->GetListeningPorts();
  server->address_ = fmt::format("{}:{}", address.substr(0, address.rfind(':')),
                                 ports.empty() ? 0 : ports.front());
  return server;
}

MetricsServer::~MetricsServer() = default;

prometheus::Histogram::BucketBoundaries LatencyBuckets() {
  return {0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1,
          0.25,   0.5,     1,      2.5,   5,      10,    25,   50,    100};
}

}  // namespace hanlin
