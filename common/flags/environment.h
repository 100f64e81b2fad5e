// Misspelt settings in the environment. A service takes from it what its flags are called and
// cannot refuse the rest: a ConfigMap or an environment file is shared by programs with different
// flags. So one that sets a variable no program of Hanlin reads is told so in the log.
#ifndef HANLIN_COMMON_FLAGS_ENVIRONMENT_H_
#define HANLIN_COMMON_FLAGS_ENVIRONMENT_H_

#include <string>
#include <string_view>
#include <vector>

namespace hanlin {

// HANLIN_SOME_NAME, from which the flag --some-name is read.
std::string EnvironmentName(std::string_view flag);

struct UnknownVariable {
  std::string name;
  std::string nearest;  // known variable of a similar name; empty: there is none
};

// The HANLIN_ variables of `environment` ("NAME=VALUE" each, ended by null) that no program reads,
// by name.
std::vector<UnknownVariable> FindUnknownVariables(const char* const* environment);

// A warning for each of this process's environment. After SetupLogging.
void LogUnknownVariables();

}  // namespace hanlin

#endif  // HANLIN_COMMON_FLAGS_ENVIRONMENT_H_
