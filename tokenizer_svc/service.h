// TokenizerService over a loaded Tokenizer: translation between messages and calls, the fingerprint
// check, metrics. Texts are never logged. Thread-safe.
#ifndef HANLIN_TOKENIZER_SVC_SERVICE_H_
#define HANLIN_TOKENIZER_SVC_SERVICE_H_

#include <memory>

#include "tokenizer_svc/core/tokenizer.h"

namespace grpc {
class Service;
}
namespace prometheus {
class Registry;
}

namespace hanlin {

// `registry` must outlive the service. (Shared, because only service.cc knows the full type.)
std::shared_ptr<grpc::Service> MakeTokenizerService(std::shared_ptr<const Tokenizer> tokenizer,
                                                    prometheus::Registry& registry);

}  // namespace hanlin

#endif  // HANLIN_TOKENIZER_SVC_SERVICE_H_
