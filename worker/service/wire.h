// Between the messages of worker.proto and the engine's own types. Pure functions.
#ifndef HANLIN_WORKER_SERVICE_WIRE_H_
#define HANLIN_WORKER_SERVICE_WIRE_H_

#include "absl/time/time.h"
#include "hanlin/v1/worker.pb.h"
#include "worker/engine/engine.h"
#include "worker/engine/request.h"

namespace hanlin {

// The deadline of `request` counts from `now`.
GenerationRequest FromWire(v1::WorkerRequest request, absl::Time now);

// Fills `out`, which is empty.
void ToWire(const RequestEvent& event, v1::RequestEvent* out);
// The event of a request that Submit refused.
void ToWire(uint64_t id, const SubmitResult& refused, v1::RequestEvent* out);
void ToWire(const EngineLoad& load, v1::WorkerLoad* out);
void ToWire(const RequestDefaults& defaults, v1::SamplingParameters* out);

}  // namespace hanlin

#endif  // HANLIN_WORKER_SERVICE_WIRE_H_
