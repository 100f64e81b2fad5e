// Which variables count as misspelt, and what was meant.
#include "common/flags/environment.h"

#include "common/obs/log.h"
#include "common/testing/testing.h"

namespace hanlin {
namespace {
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::Field;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

auto Unknown(const char* name, const char* nearest) {
  return AllOf(Field(&UnknownVariable::name, name), Field(&UnknownVariable::nearest, nearest));
}

TEST(UnknownVariablesTest, FlagsOfEveryServiceDataAndFailpointsAreKnown) {
  const char* environment[] = {"HANLIN_WORKERS=a:1",      // the gateway's
                               "HANLIN_MAX_RUNNING=3",    // the worker's
                               "HANLIN_LOG_FORMAT=",      // everybody's; empty
                               "HANLIN_DATA=/usr/share",  // no flag
                               "HANLIN_FAILPOINT_ANY=1",  //
                               "PATH=/bin",               // not ours
                               "MY_HANLIN_MODLE=x",       //
                               "HANLIN=x",                //
                               nullptr};
  EXPECT_THAT(FindUnknownVariables(environment), IsEmpty());
}

TEST(UnknownVariablesTest, AMisspeltNameIsToldWithTheNearestKnownOne) {
  const char* environment[] = {"HANLIN_MAX_RUNING=3", "HANLIN_MODLE=/models/HANLIN_MODEL",
                               "HANLIN_max-queue=1",  "HANLIN_STAL_TIMEOUTS=9",
                               "HANLIN_TPP=2",        nullptr};
  EXPECT_THAT(FindUnknownVariables(environment),
              ElementsAre(Unknown("HANLIN_MAX_RUNING", "HANLIN_MAX_RUNNING"),
                          Unknown("HANLIN_MODLE", "HANLIN_MODEL"),
                          Unknown("HANLIN_STAL_TIMEOUTS", "HANLIN_STALL_TIMEOUT"),
                          Unknown("HANLIN_TPP", "HANLIN_TP"),
                          Unknown("HANLIN_max-queue", "HANLIN_MAX_QUEUE")));
}

TEST(UnknownVariablesTest, ANameFarFromAllIsToldAlone) {
  // Kubernetes adds the last one for a service called hanlin-gateway where links are not off.
  const char* environment[] = {"HANLIN_=x", "HANLIN_COLOUR=blue",
                               "HANLIN_GATEWAY_SERVICE_HOST=10.0.0.1", nullptr};
  EXPECT_THAT(FindUnknownVariables(environment),
              ElementsAre(Unknown("HANLIN_", ""), Unknown("HANLIN_COLOUR", ""),
                          Unknown("HANLIN_GATEWAY_SERVICE_HOST", "")));
}

TEST(UnknownVariablesTest, TheLogWarnsOncePerVariableAndHoldsNoValues) {
  ASSERT_OK(SetupLogging({.process = "test"}));
  setenv("HANLIN_MAX_RUNING", "secret", 1);
  setenv("HANLIN_COLOUR", "secret", 1);
  ::testing::internal::CaptureStderr();
  LogUnknownVariables();
  const std::string log = ::testing::internal::GetCapturedStderr();
  unsetenv("HANLIN_MAX_RUNING");
  unsetenv("HANLIN_COLOUR");
  EXPECT_THAT(log, HasSubstr("warning test: no program reads this variable of the environment "
                             "name=HANLIN_MAX_RUNING meant=HANLIN_MAX_RUNNING\n"));
  EXPECT_THAT(log, HasSubstr(" name=HANLIN_COLOUR\n"));
  EXPECT_THAT(log, Not(HasSubstr("secret")));
}

}  // namespace
}  // namespace hanlin
