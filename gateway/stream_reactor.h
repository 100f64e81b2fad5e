// StreamGenerate: the bounded queue between one GenerationCall and one gRPC stream. One write is
// under way at a time; the piece after it is serialised when it ends, on the thread that ended it,
// so a token takes no hop between threads.
//
// Works on raw bytes: a request that does not parse (a string that is not UTF-8) is then our
// INVALID_ARGUMENT instead of gRPC's UNIMPLEMENTED. Thread-safe; owns itself from Start until gRPC
// is done with it.
#ifndef HANLIN_GATEWAY_STREAM_REACTOR_H_
#define HANLIN_GATEWAY_STREAM_REACTOR_H_

#include <grpcpp/grpcpp.h>

#include <memory>
#include <optional>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "gateway/admission.h"
#include "gateway/call.h"
#include "gateway/chunk_queue.h"
#include "gateway/rpc_context.h"
#include "hanlin/v1/text_generation.pb.h"

namespace hanlin {

class StreamReactor final : public grpc::ServerWriteReactor<grpc::ByteBuffer>,
                            public CallOutput,
                            public std::enable_shared_from_this<StreamReactor> {
 public:
  StreamReactor(const CallEnvironment& environment, grpc::CallbackServerContext* context);

  v1::StreamGenerateRequest* mutable_request() { return &request_; }
  // Runs the request, or ends the call at once with `refusal` when that is not OK. The reactor may
  // be gone when it returns.
  void Start(const absl::Status& refusal);

  // CallOutput.
  void Emit(absl::FunctionRef<bool(v1::StreamGenerateResponse*)> fill) override;
  void Done(const absl::Status& status) override;

  // gRPC's reactions.
  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

 private:
  // What to ask gRPC for, decided under the lock and done without it.
  enum class Step { kNone, kWrite, kWriteAndFinish, kFinish };

  Step Next() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Do(Step step);

  const CallEnvironment environment_;
  const RpcContext context_;
  v1::StreamGenerateRequest request_;
  Admission::Ticket ticket_;
  std::shared_ptr<GenerationCall> call_;  // Set by Start, before anything can happen.
  std::shared_ptr<StreamReactor> self_;   // Until OnDone.

  absl::Mutex mutex_;
  ChunkQueue queue_ ABSL_GUARDED_BY(mutex_);
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  std::optional<absl::Status> status_ ABSL_GUARDED_BY(mutex_);  // Set by Done.
  // Of the write under way; touched only by who set writing_.
  grpc::ByteBuffer buffer_;
  grpc::WriteOptions write_options_;
  absl::Status final_status_;
};

}  // namespace hanlin

#endif  // HANLIN_GATEWAY_STREAM_REACTOR_H_
