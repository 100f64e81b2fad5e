// See testing.h.
#include "common/testing/testing.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>

namespace hanlin::testing {
namespace fs = std::filesystem;

TempDir::TempDir() {
  std::string pattern = (fs::temp_directory_path() / "hanlin_test_XXXXXX").string();
  path_ = mkdtemp(pattern.data());
}

TempDir::~TempDir() {
  std::error_code ignored;
  fs::remove_all(path_, ignored);
}

std::string TempDir::Write(const std::string& name, std::string_view contents) const {
  const fs::path file = fs::path(path_) / name;
  fs::create_directories(file.parent_path());
  std::ofstream(file, std::ios::binary) << contents;
  return file.string();
}

std::string GoldensDirectory() {
  if (const char* path = std::getenv("HANLIN_GOLDENS")) return path;
  if (const char* path = std::getenv("HANLIN_GOLDENS_DEFAULT")) return path;
  return "build/goldens";
}

std::vector<std::string> GoldenCases(const std::string& kind) {
  std::vector<std::string> cases;
  for (const auto& entry : fs::recursive_directory_iterator(fs::path(GoldensDirectory()) / kind)) {
    if (entry.path().filename() == "expected.json") {
      cases.push_back(entry.path().parent_path().string());
    }
  }
  std::sort(cases.begin(), cases.end());
  return cases;
}

}  // namespace hanlin::testing
