// Generation by a server: over a whole gateway with fake workers.
#include <thread>

#include "cli/generate/backend.h"
#include "gateway/testing/gateway_fixture.h"

namespace hanlin::cli {
namespace {
using ::hanlin::testing::StatusIs;
using Code = absl::StatusCode;

class RemoteBackendTest : public testing::GatewayTest {
 protected:
  std::unique_ptr<Backend> Connect(absl::Duration timeout = absl::Seconds(60)) {
    auto backend = MakeRemoteBackend({.target = gateway_->address(), .timeout = timeout});
    EXPECT_TRUE(backend.ok()) << backend.status();
    return *std::move(backend);
  }
  static void Ignore(const v1::StreamGenerateResponse&) {}
};

TEST_F(RemoteBackendTest, PiecesComeInOrderAndTheLastHasTheReason) {
  Start(1);
  ASSERT_TRUE(WaitForServing(true));
  std::string text;
  v1::StreamGenerateResponse last;
  EXPECT_OK(Connect()->Generate(Request(), [&](const v1::StreamGenerateResponse& piece) {
    text += piece.text_delta();
    last = piece;
  }));
  EXPECT_EQ(text, "abcdefghij");
  EXPECT_EQ(last.finish_reason(), v1::FINISH_REASON_LENGTH);
}

TEST_F(RemoteBackendTest, AServerThatIsNotThereAndARequestThatTakesTooLongAreErrors) {
  Start(1, {}, {.silent = true});
  ASSERT_TRUE(WaitForServing(true));
  EXPECT_THAT(Connect(absl::Milliseconds(200))->Generate(Request(), Ignore),
              StatusIs(Code::kDeadlineExceeded, ::testing::_));
  EXPECT_TRUE(workers_[0]->WaitForAborted(1));
  ASSERT_OK_AND_ASSIGN(const auto nobody,
                       MakeRemoteBackend({.target = Path("nobody"), .timeout = absl::Seconds(10)}));
  EXPECT_THAT(nobody->Generate(Request(), Ignore),
              StatusIs(Code::kUnavailable, ::testing::HasSubstr("nobody")));
}

TEST_F(RemoteBackendTest, CancelAllEndsRequestsPresentAndFuture) {
  Start(1, {}, {.silent = true});
  ASSERT_TRUE(WaitForServing(true));
  const auto backend = Connect();
  std::vector<absl::Status> ends(3);
  std::vector<std::thread> calls;
  calls.reserve(ends.size());
  for (absl::Status& end : ends) {
    calls.emplace_back([&] { end = backend->Generate(Request(), Ignore); });
  }
  ASSERT_TRUE(workers_[0]->WaitForStarted(3));
  backend->CancelAll();
  for (std::thread& call : calls) call.join();
  for (const absl::Status& end : ends) EXPECT_THAT(end, StatusIs(Code::kCancelled, ::testing::_));
  EXPECT_TRUE(workers_[0]->WaitForAborted(3));
  EXPECT_THAT(backend->Generate(Request(), Ignore), StatusIs(Code::kCancelled, ::testing::_));
  EXPECT_EQ(workers_[0]->started(), 3);
}

}  // namespace
}  // namespace hanlin::cli
