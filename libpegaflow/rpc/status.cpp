// SPDX-License-Identifier: Apache-2.0
#include "rpc/status.hpp"

#include <fmt/format.h>

namespace pegaflow::rpc {
namespace {

std::string storage_error(const std::string& message) {
    return message.starts_with("storage error: ") ? message : "storage error: " + message;
}

}  // namespace

grpc::Status to_status(const Error& error) {
    switch (error.code) {
        case Code::kInvalid:
        case Code::kExists:
        case Code::kUnsupported:
            return {grpc::StatusCode::INVALID_ARGUMENT, "invalid argument: " + error.message};
        case Code::kNotFound:
        case Code::kNotReady:
            return {grpc::StatusCode::FAILED_PRECONDITION, error.message};
        case Code::kRetry:
        case Code::kQueueFull:
            return {grpc::StatusCode::RESOURCE_EXHAUSTED, error.message};
        case Code::kDeadlineExceeded:
            return {grpc::StatusCode::DEADLINE_EXCEEDED, error.message};
        case Code::kCanceled:
            return {grpc::StatusCode::UNAVAILABLE, error.message};
        default:
            return {grpc::StatusCode::INTERNAL, storage_error(error.message)};
    }
}

Error from_status(const grpc::Status& status, const char* method) {
    const auto code = [&] {
        switch (status.error_code()) {
            case grpc::StatusCode::INVALID_ARGUMENT:
                return Code::kInvalid;
            case grpc::StatusCode::FAILED_PRECONDITION:
                return Code::kNotReady;
            case grpc::StatusCode::RESOURCE_EXHAUSTED:
                return Code::kQueueFull;
            case grpc::StatusCode::DEADLINE_EXCEEDED:
                return Code::kDeadlineExceeded;
            case grpc::StatusCode::UNAVAILABLE:
                return Code::kPeerLost;
            case grpc::StatusCode::CANCELLED:
                return Code::kCanceled;
            case grpc::StatusCode::UNIMPLEMENTED:
                return Code::kUnsupported;
            default:
                return Code::kInternal;
        }
    }();
    return {code, fmt::format("{}: {}", method, status.error_message()), static_cast<std::int32_t>(status.error_code())};
}

}  // namespace pegaflow::rpc
