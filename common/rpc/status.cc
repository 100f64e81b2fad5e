// See status.h. google.rpc.Status and google.rpc.RetryInfo are written field by field (their .proto
// files are in no Debian package); the layouts are those of googleapis' google/rpc/status.proto and
// error_details.proto:
//   Status    { int32 code = 1; string message = 2; repeated google.protobuf.Any details = 3; }
//   RetryInfo { google.protobuf.Duration retry_delay = 1; }
#include "common/rpc/status.h"

#include <google/protobuf/any.pb.h>
#include <google/protobuf/duration.pb.h>
#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>
#include <google/protobuf/wire_format_lite.h>

#include <string>

#include "common/status/status.h"

namespace hanlin {
namespace {
namespace pb = google::protobuf;
using pb::internal::WireFormatLite;

constexpr char kPayloadUrl[] = "hanlin.v1/retry_after_ns";
constexpr char kRetryInfoUrl[] = "type.googleapis.com/google.rpc.RetryInfo";

void AppendField(std::string* out, int field, const std::string& bytes) {
  pb::io::StringOutputStream stream(out);
  pb::io::CodedOutputStream coded(&stream);
  coded.WriteTag(WireFormatLite::MakeTag(field, WireFormatLite::WIRETYPE_LENGTH_DELIMITED));
  coded.WriteVarint32(static_cast<uint32_t>(bytes.size()));
  coded.WriteString(bytes);
}

std::string EncodeDetails(const absl::Status& status, absl::Duration delay) {
  pb::Duration duration;
  duration.set_seconds(absl::ToInt64Seconds(delay));
  duration.set_nanos(
      static_cast<int32_t>(absl::ToInt64Nanoseconds(delay - absl::Seconds(duration.seconds()))));
  pb::Any info;
  info.set_type_url(kRetryInfoUrl);
  AppendField(info.mutable_value(), 1, duration.SerializeAsString());

  std::string details;
  {
    pb::io::StringOutputStream stream(&details);
    pb::io::CodedOutputStream coded(&stream);
    coded.WriteTag(WireFormatLite::MakeTag(1, WireFormatLite::WIRETYPE_VARINT));
    coded.WriteVarint32(static_cast<uint32_t>(status.code()));
  }
  AppendField(&details, 2, Message(status));
  AppendField(&details, 3, info.SerializeAsString());
  return details;
}

// The bytes of the first length-delimited `field` that `accept` takes.
template <typename Accept>
bool FindField(const std::string& bytes, uint32_t field, Accept accept) {
  pb::io::CodedInputStream coded(reinterpret_cast<const uint8_t*>(bytes.data()),
                                 static_cast<int>(bytes.size()));
  while (const uint32_t tag = coded.ReadTag()) {
    const bool wanted = tag == WireFormatLite::MakeTag(static_cast<int>(field),
                                                       WireFormatLite::WIRETYPE_LENGTH_DELIMITED);
    if (!wanted) {
      if (!WireFormatLite::SkipField(&coded, tag)) return false;
      continue;
    }
    uint32_t length = 0;
    std::string value;
    if (!coded.ReadVarint32(&length) || !coded.ReadString(&value, static_cast<int>(length))) {
      return false;
    }
    if (accept(value)) return true;
  }
  return false;
}

std::optional<absl::Duration> DecodeDetails(const std::string& details) {
  pb::Duration duration;
  const bool found = FindField(details, 3, [&](const std::string& bytes) {
    pb::Any any;
    if (!any.ParseFromString(bytes) || any.type_url() != kRetryInfoUrl) return false;
    return FindField(any.value(), 1,
                     [&](const std::string& value) { return duration.ParseFromString(value); });
  });
  if (!found) return std::nullopt;
  return absl::Seconds(duration.seconds()) + absl::Nanoseconds(duration.nanos());
}

}  // namespace

absl::Status WithRetryAfter(absl::Status status, absl::Duration delay) {
  status.SetPayload(kPayloadUrl, absl::Cord(std::to_string(absl::ToInt64Nanoseconds(delay))));
  return status;
}

std::optional<absl::Duration> RetryAfter(const absl::Status& status) {
  const auto payload = status.GetPayload(kPayloadUrl);
  if (!payload.has_value()) return std::nullopt;
  const std::string nanoseconds(*payload);
  return absl::Nanoseconds(std::strtoll(nanoseconds.c_str(), nullptr, 10));
}

grpc::Status ToGrpc(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  // The codes of both libraries are google.rpc.Code.
  const auto code = static_cast<grpc::StatusCode>(status.code());
  const auto delay = RetryAfter(status);
  if (!delay.has_value()) return {code, Message(status)};
  return {code, Message(status), EncodeDetails(status, *delay)};
}

absl::Status FromGrpc(const grpc::Status& status) {
  if (status.ok()) return absl::OkStatus();
  const absl::Status converted(static_cast<absl::StatusCode>(status.error_code()),
                               status.error_message());
  const auto delay = DecodeDetails(status.error_details());
  return delay.has_value() ? WithRetryAfter(converted, *delay) : converted;
}

}  // namespace hanlin
