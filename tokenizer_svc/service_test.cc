// The tokenizer service over a real connection: answers equal the library's, errors have the right
// code.
#include "tokenizer_svc/service.h"

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>

#include "common/obs/metrics.h"
#include "common/rpc/channel.h"
#include "common/rpc/server.h"
#include "common/testing/testing.h"
#include "hanlin/v1/tokenizer.grpc.pb.h"
#include "tokenizer_svc/core/wordpiece/wordpiece_tokenizer.h"
#include "tokenizer_svc/wire/decoder_wire.h"

namespace hanlin {
namespace {

using ::hanlin::testing::TempDir;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr std::string_view kVocab = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n床\n前\nab\n##c\n";

class TokenizerServiceTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_OK_AND_ASSIGN(auto tokenizer, MakeWordPieceTokenizer(kVocab, {}));
    tokenizer->set_fingerprint("f00d");
    tokenizer_ = std::move(tokenizer);
    ASSERT_OK_AND_ASSIGN(metrics_, MetricsServer::Create(""));
    service_ = MakeTokenizerService(tokenizer_, metrics_->registry());
    ASSERT_OK_AND_ASSIGN(server_, RpcServer::Create({.address = "unix:" + dir_.path() + "/t.sock",
                                                     .services = {service_.get()},
                                                     .max_receive_message_bytes = 32 << 20}));
    ASSERT_OK_AND_ASSIGN(auto channel, OpenChannel(server_->address()));
    stub_ = v1::TokenizerService::NewStub(channel);
  }

  // One call; the deadline keeps a broken server from hanging the test.
  template <typename Request, typename Response>
  grpc::Status Call(grpc::Status (v1::TokenizerService::Stub::*method)(grpc::ClientContext*,
                                                                       const Request&, Response*),
                    const Request& request, Response* response) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(20));
    context.AddMetadata("x-request-id", "r-1");
    grpc::Status status = ((*stub_).*method)(&context, request, response);
    const auto& metadata = context.GetServerInitialMetadata();
    const auto id = metadata.find("x-request-id");
    EXPECT_TRUE(id != metadata.end() && id->second == "r-1");
    return status;
  }

  TempDir dir_;
  std::shared_ptr<const Tokenizer> tokenizer_;
  std::unique_ptr<MetricsServer> metrics_;
  std::shared_ptr<grpc::Service> service_;
  std::unique_ptr<RpcServer> server_;
  std::unique_ptr<v1::TokenizerService::Stub> stub_;
};

TEST_F(TokenizerServiceTest, TokenizesAndDetokenizes) {
  v1::TokenizeRequest request;
  request.set_text("床 abc");
  request.set_with_offsets(true);
  v1::TokenizeResponse response;
  ASSERT_TRUE(Call(&v1::TokenizerService::Stub::Tokenize, request, &response).ok());
  EXPECT_THAT(response.ids(), ElementsAre(2, 4, 6, 7, 3));
  EXPECT_EQ(response.offsets(2).begin_byte(), 4u);
  EXPECT_EQ(response.offsets(2).end_byte(), 6u);
  EXPECT_EQ(response.fingerprint(), "f00d");
  request.set_as_prompt(true);
  ASSERT_TRUE(Call(&v1::TokenizerService::Stub::Tokenize, request, &response).ok());
  EXPECT_THAT(response.ids(), ElementsAre(2, 4, 6, 7));

  v1::DetokenizeRequest ids;
  ids.mutable_ids()->CopyFrom(response.ids());
  v1::DetokenizeResponse text;
  ASSERT_TRUE(Call(&v1::TokenizerService::Stub::Detokenize, ids, &text).ok());
  EXPECT_EQ(text.text(), "床 abc");
}

TEST_F(TokenizerServiceTest, TheDecoderArrivesWhole) {
  v1::GetDecoderResponse response;
  ASSERT_TRUE(
      Call(&v1::TokenizerService::Stub::GetDecoder, v1::GetDecoderRequest(), &response).ok());
  ASSERT_OK_AND_ASSIGN(const DecoderSpec spec, DecoderSpecFromProto(response.decoder()));
  EXPECT_EQ(spec, *tokenizer_->decoder_spec());
  v1::GetTokenizerInfoResponse info;
  ASSERT_TRUE(
      Call(&v1::TokenizerService::Stub::GetTokenizerInfo, v1::GetTokenizerInfoRequest(), &info)
          .ok());
  EXPECT_EQ(info.kind(), "wordpiece");
  EXPECT_EQ(info.vocab_size(), 8);
  EXPECT_EQ(info.max_text_bytes(), Tokenizer::kMaxTextBytes);
}

TEST_F(TokenizerServiceTest, AnotherFingerprintIsAFailedPrecondition) {
  v1::TokenizeRequest request;
  request.set_fingerprint("beef");
  v1::TokenizeResponse response;
  const grpc::Status status = Call(&v1::TokenizerService::Stub::Tokenize, request, &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_THAT(status.error_message(), HasSubstr("f00d"));
  v1::GetDecoderRequest decoder;
  decoder.set_fingerprint("beef");
  v1::GetDecoderResponse ignored;
  EXPECT_EQ(Call(&v1::TokenizerService::Stub::GetDecoder, decoder, &ignored).error_code(),
            grpc::StatusCode::FAILED_PRECONDITION);
}

TEST_F(TokenizerServiceTest, BadInputIsInvalidArgumentAndCounted) {
  v1::TokenizeRequest request;
  request.set_as_prompt(true);
  request.set_text(std::string("a\0b", 3));
  v1::TokenizeResponse response;
  grpc::Status status = Call(&v1::TokenizerService::Stub::Tokenize, request, &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(status.error_message(), HasSubstr("NUL"));
  request.set_text(std::string(Tokenizer::kMaxTextBytes + 1, 'a'));
  status = Call(&v1::TokenizerService::Stub::Tokenize, request, &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  v1::DetokenizeRequest ids;
  ids.add_ids(-1);
  v1::DetokenizeResponse text;
  EXPECT_EQ(Call(&v1::TokenizerService::Stub::Detokenize, ids, &text).error_code(),
            grpc::StatusCode::INVALID_ARGUMENT);
  double refused = 0;
  for (const auto& family : metrics_->registry().Collect()) {
    if (family.name != "hanlin_tokenizer_requests_total") continue;
    for (const auto& metric : family.metric) {
      for (const auto& label : metric.label) {
        if (label.value == "INVALID_ARGUMENT") refused += metric.counter.value;
      }
    }
  }
  EXPECT_EQ(refused, 3);
}

}  // namespace
}  // namespace hanlin
