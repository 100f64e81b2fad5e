// The tokenizer client over fake replicas on Unix sockets: whose turn it is, who is passed over,
// what is said when nobody is left.
#include "gateway/tokenizer_client.h"

#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "common/testing/testing.h"
#include "gateway/testing/fake_backends.h"

namespace hanlin {
namespace {
using ::hanlin::testing::FakeTokenizer;
using ::hanlin::testing::StatusIs;
using ::testing::HasSubstr;

class TokenizerClientTest : public ::testing::Test {
 protected:
  ~TokenizerClientTest() override { client_->Close(); }

  std::string Path(const std::string& name) const {
    return fmt::format("unix:{}/{}", dir_.path(), name);
  }

  // Ticks on, as the gateway does, until `done`; false when it never is.
  template <typename Done>
  bool WaitUntil(Done done) {
    for (int i = 0; i < 2000; ++i) {
      client_->Tick(absl::Now());
      if (done()) return true;
      absl::SleepFor(absl::Milliseconds(5));
    }
    return false;
  }

  bool WaitForFingerprint(const std::string& fingerprint) {
    return WaitUntil([&] {
      const auto identity = client_->identity();
      return identity != nullptr && identity->fingerprint == fingerprint &&
             client_->Reachable().ok();
    });
  }

  absl::StatusOr<std::vector<int32_t>> Encode(const std::string& text,
                                              const std::string& fingerprint) {
    absl::StatusOr<std::vector<int32_t>> ids = absl::UnknownError("no answer");
    absl::Notification done;
    client_->Encode(text, "id", fingerprint, absl::Now() + absl::Seconds(10), [&](auto result) {
      ids = std::move(result);
      done.Notify();
    });
    done.WaitForNotification();
    return ids;
  }

  const testing::TempDir dir_;
  const std::shared_ptr<TokenizerClient> client_ =
      std::make_shared<TokenizerClient>(TokenizerClient::Tls{});
};

TEST_F(TokenizerClientTest, TextsGoToReplicasInTurnAndPastOneThatIsGone) {
  auto a = std::make_unique<FakeTokenizer>(Path("a"));
  const FakeTokenizer b(Path("b"));
  client_->SetAddresses({Path("a"), Path("b")});
  ASSERT_TRUE(WaitForFingerprint("f00d"));
  EXPECT_EQ(client_->identity()->spec->pieces.size(), 256u);
  ASSERT_TRUE(WaitUntil([&] {
    return Encode("hi", "f00d").ok() && !a->request_ids().empty() && !b.request_ids().empty();
  }));
  EXPECT_THAT(*Encode("hi", "f00d"), ::testing::ElementsAre('h', 'i'));
  a.reset();
  const size_t before = b.request_ids().size();
  for (int i = 0; i < 6; ++i) EXPECT_THAT(*Encode("ho", "f00d"), ::testing::ElementsAre('h', 'o'));
  EXPECT_EQ(b.request_ids().size(), before + 6);
  EXPECT_OK(client_->Reachable());
}

TEST_F(TokenizerClientTest, AReplicaOfAnotherTokenizerGetsNoTexts) {
  const FakeTokenizer a(Path("a")), other(Path("b"), "beef");
  client_->SetAddresses({Path("a")});
  ASSERT_TRUE(WaitForFingerprint("f00d"));
  client_->SetAddresses({Path("a"), Path("b")});
  // It is known, and would be asked for texts of its own.
  ASSERT_TRUE(WaitUntil([&] { return Encode("hi", "beef").ok(); }));
  for (int i = 0; i < 5; ++i) ASSERT_TRUE(Encode("hi", "f00d").ok());
  EXPECT_EQ(other.request_ids().size(), 1u);
  EXPECT_EQ(client_->identity()->fingerprint, "f00d");
}

TEST_F(TokenizerClientTest, TextsOfATokenizerThatHasBecomeAnotherOneAreToldSo) {
  const FakeTokenizer a(Path("a")), other(Path("b"), "beef");
  client_->SetAddresses({Path("a")});
  ASSERT_TRUE(WaitForFingerprint("f00d"));
  client_->SetAddresses({Path("b")});
  ASSERT_TRUE(WaitForFingerprint("beef"));
  EXPECT_THAT(Encode("hi", "f00d"),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr("has become another one")));
  EXPECT_TRUE(Encode("hi", "beef").ok());
}

TEST_F(TokenizerClientTest, WhoIsMissingIsNamed) {
  EXPECT_THAT(client_->Reachable(),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr("none is known")));
  client_->SetAddresses({Path("nobody")});
  ASSERT_TRUE(WaitUntil([&] {
    return Message(client_->Reachable()).find("No such file") != std::string::npos;
  })) << client_->Reachable();
  EXPECT_THAT(client_->Reachable(),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr(Path("nobody"))));
  EXPECT_THAT(Encode("hi", "f00d"),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr(Path("nobody"))));
}

}  // namespace
}  // namespace hanlin
