// Files that are not there, not files, too large or not writable; atomic replacement; where data
// are looked for; SHA-256 against the vectors of FIPS 180-4.
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>

#include "absl/cleanup/cleanup.h"
#include "common/io/data_dir.h"
#include "common/io/file.h"
#include "common/io/sha256.h"
#include "common/testing/testing.h"

namespace hanlin {
namespace {
namespace fs = std::filesystem;
using ::hanlin::testing::StatusIs;
using ::hanlin::testing::TempDir;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Code = absl::StatusCode;

TEST(ReadFileTest, GivesEveryByte) {
  const TempDir folder;
  const std::string bytes("a\0b\r\n\xff", 6);
  EXPECT_EQ(ReadFile(folder.Write("x", bytes)).value(), bytes);
  EXPECT_EQ(ReadFile(folder.Write("empty", "")).value(), "");
  EXPECT_OK(ReadFile(folder.Write("limit", "1234"), 4));
}

TEST(ReadFileTest, WhatCannotBeReadIsNamed) {
  const TempDir folder;
  EXPECT_THAT(ReadFile(folder.path() + "/none"),
              StatusIs(Code::kNotFound, HasSubstr(folder.path() + "/none")));
  EXPECT_THAT(ReadFile(folder.Write("file", "x") + "/below"),
              StatusIs(Code::kNotFound, HasSubstr("/file/below")));
  EXPECT_THAT(ReadFile(folder.path()),
              StatusIs(Code::kInvalidArgument, HasSubstr("not a regular file")));
  EXPECT_THAT(ReadFile(folder.Write("large", "12345"), 4),
              StatusIs(Code::kResourceExhausted, HasSubstr("has 5 bytes, want at most 4")));
  if (geteuid() == 0) return;  // root reads everything
  const std::string secret = folder.Write("secret", "x");
  fs::permissions(secret, fs::perms::none);
  EXPECT_THAT(ReadFile(secret), StatusIs(Code::kPermissionDenied, HasSubstr(secret)));
}

TEST(MappedFileTest, IsTheFileAlsoWhenEmptyOrRemoved) {
  const TempDir folder;
  const std::string path = folder.Write("x", "hello");
  ASSERT_OK_AND_ASSIGN(const auto file, MappedFile::Open(path));
  fs::remove(path);
  EXPECT_EQ(file->view(), "hello");
  EXPECT_EQ(file->path(), path);
  ASSERT_OK_AND_ASSIGN(const auto empty, MappedFile::Open(folder.Write("empty", "")));
  EXPECT_EQ(empty->view(), "");
  EXPECT_THAT(MappedFile::Open(path), StatusIs(Code::kNotFound, HasSubstr(path)));
  EXPECT_THAT(MappedFile::Open(folder.path()),
              StatusIs(Code::kInvalidArgument, HasSubstr(folder.path())));
}

TEST(WriteFileAtomicallyTest, ReplacesTheWholeAndLeavesNothingBeside) {
  const TempDir folder;
  const std::string path = folder.Write("x", "a longer text than the new one");
  ASSERT_OK(WriteFileAtomically(path, "new"));
  EXPECT_EQ(ReadFile(path).value(), "new");
  ASSERT_OK(WriteFileAtomically(folder.path() + "/y", ""));
  EXPECT_THAT(ListDirectory(folder.path()).value(), ElementsAre("x", "y"));
}

TEST(WriteFileAtomicallyTest, AFailureLeavesTheOldFileAndNothingBeside) {
  const TempDir folder;
  const std::string path = folder.Write("x", "old");
  EXPECT_THAT(WriteFileAtomically(folder.path() + "/none/x", "new"),
              StatusIs(Code::kNotFound, HasSubstr("cannot create")));
  folder.Write("folder/inside", "");
  EXPECT_THAT(WriteFileAtomically(folder.path() + "/folder", "new"),
              StatusIs(Code::kUnknown, HasSubstr("cannot rename to")));
  // A file may not grow: as a full disk.
  rlimit before = {};
  getrlimit(RLIMIT_FSIZE, &before);
  signal(SIGXFSZ, SIG_IGN);
  const rlimit small = {2, before.rlim_max};
  setrlimit(RLIMIT_FSIZE, &small);
  const absl::Status full = WriteFileAtomically(path, "new contents");
  setrlimit(RLIMIT_FSIZE, &before);
  signal(SIGXFSZ, SIG_DFL);
  EXPECT_THAT(full, StatusIs(Code::kUnknown, HasSubstr("cannot write")));
  EXPECT_EQ(ReadFile(path).value(), "old");
  EXPECT_THAT(ListDirectory(folder.path()).value(), ElementsAre("folder", "x"));
}

TEST(ListDirectoryTest, NamesAreSortedAndAMissingFolderIsNamed) {
  const TempDir folder;
  for (const char* name : {"b", "a/deep", ".hidden", "B"}) folder.Write(name, "");
  EXPECT_THAT(ListDirectory(folder.path()).value(), ElementsAre(".hidden", "B", "a", "b"));
  EXPECT_THAT(ListDirectory(folder.path() + "/none"),
              StatusIs(Code::kNotFound, AllOf(HasSubstr("cannot list"), HasSubstr("/none"))));
  EXPECT_THAT(ListDirectory(folder.path() + "/b"), StatusIs(Code::kNotFound, HasSubstr("/b")));
}

TEST(DataDirectoryTest, TheEnvironmentWinsElseItIsBesideTheBinaries) {
  const std::string data = std::getenv("HANLIN_DATA") == nullptr ? "" : std::getenv("HANLIN_DATA");
  const std::string bin = std::getenv("HANLIN_BIN") == nullptr ? "" : std::getenv("HANLIN_BIN");
  const absl::Cleanup restore = [&] {
    data.empty() ? unsetenv("HANLIN_DATA") : setenv("HANLIN_DATA", data.c_str(), 1);
    bin.empty() ? unsetenv("HANLIN_BIN") : setenv("HANLIN_BIN", bin.c_str(), 1);
  };
  setenv("HANLIN_DATA", "/anywhere", 1);
  EXPECT_EQ(DataDirectory().value(), "/anywhere");
  EXPECT_EQ(DefaultModelDirectory().value(), "/anywhere/models/hanlin-poet");
  unsetenv("HANLIN_DATA");
  const TempDir prefix;
  setenv("HANLIN_BIN", (prefix.path() + "/bin").c_str(), 1);
  EXPECT_THAT(DataDirectory(),
              StatusIs(Code::kNotFound, AllOf(HasSubstr("HANLIN_DATA is not set"),
                                              HasSubstr(prefix.path() + "/share/hanlin"))));
  prefix.Write("share/hanlin/x", "");
  EXPECT_EQ(DataDirectory().value(), prefix.path() + "/share/hanlin");
  unsetenv("HANLIN_BIN");
  EXPECT_EQ(BinaryDirectory(), fs::read_symlink("/proc/self/exe").parent_path());
}

TEST(Sha256Test, EqualsThePublishedVectors) {
  EXPECT_EQ(Sha256Hex(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(Sha256Hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(Sha256Hex(std::string(1000000, 'a')),
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

}  // namespace
}  // namespace hanlin
