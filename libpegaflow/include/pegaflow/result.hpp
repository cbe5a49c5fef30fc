// SPDX-License-Identifier: Apache-2.0
// result.hpp - a value or an Error that says what the caller should do; named after std::expected, so that it can be swapped.
#pragma once

#include <cassert>
#include <cstdint>
#include <string>
#include <type_traits>
#include <utility>
#include <variant>

#include "pegaflow/abi/status.h"

namespace pegaflow {

// What to do about a failure. The first ten are the ABI's codes; the others are the engine's.
enum class Code : std::int32_t {
    kRetry = PEGA_RETRY,
    kQueueFull = PEGA_QUEUE_FULL,
    kRetryOtherPath = PEGA_RETRY_OTHER_PATH,
    kPeerLost = PEGA_PEER_LOST,
    kRegionLost = PEGA_REGION_LOST,
    kInvalid = PEGA_INVALID,
    kUnsupported = PEGA_UNSUPPORTED,
    kNoMemory = PEGA_NO_MEMORY,
    kCanceled = PEGA_CANCELED,
    kCorrupt = PEGA_CORRUPT,
    kNotFound = -20,          // what the call names does not exist (instance, lease, layer, module)
    kNotReady = -21,          // valid, but not in the present state (an instance that has not sealed, a drain under way)
    kExists = -22,            // what the call would make is there already
    kDeadlineExceeded = -23,  // the caller's deadline passed; what was started has ended
    kInternal = -24,          // a broken promise of our own; please report
};

// The code's name in lower case with underscores: "queue_full". [any]
const char* to_string(Code code) noexcept;

struct Error {
    Code code = Code::kInternal;
    std::string message;           // what was wrong, where, and what was expected
    std::int32_t native_code = 0;  // of the layer below (errno, CUresult); 0 = none
};

template <class E>
class unexpected {
public:
    explicit unexpected(E error) : error_(std::move(error)) {}
    E& error() & noexcept { return error_; }
    const E& error() const& noexcept { return error_; }
    E&& error() && noexcept { return std::move(error_); }

private:
    E error_;
};

template <class T>
class [[nodiscard]] Result {
public:
    using value_type = T;

    Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}
    Result(unexpected<Error> error) : state_(std::in_place_index<1>, std::move(error).error()) {}

    bool has_value() const noexcept { return state_.index() == 0; }
    explicit operator bool() const noexcept { return has_value(); }

    T& value() & { return assert(has_value()), *std::get_if<0>(&state_); }
    const T& value() const& { return assert(has_value()), *std::get_if<0>(&state_); }
    T&& value() && { return assert(has_value()), std::move(*std::get_if<0>(&state_)); }
    T& operator*() & { return value(); }
    const T& operator*() const& { return value(); }
    T&& operator*() && { return std::move(*this).value(); }
    T* operator->() { return &value(); }
    const T* operator->() const { return &value(); }

    Error& error() & { return assert(!has_value()), *std::get_if<1>(&state_); }
    const Error& error() const& { return assert(!has_value()), *std::get_if<1>(&state_); }
    Error&& error() && { return assert(!has_value()), std::move(*std::get_if<1>(&state_)); }

    template <class U>
    T value_or(U&& other) const& {
        return has_value() ? value() : static_cast<T>(std::forward<U>(other));
    }

private:
    std::variant<T, Error> state_;
};

template <>
class [[nodiscard]] Result<void> {
public:
    using value_type = void;

    Result() noexcept = default;
    Result(unexpected<Error> error) : error_(std::move(error).error()), failed_(true) {}

    bool has_value() const noexcept { return !failed_; }
    explicit operator bool() const noexcept { return !failed_; }
    void value() const noexcept { assert(!failed_); }

    Error& error() & { return assert(failed_), error_; }
    const Error& error() const& { return assert(failed_), error_; }
    Error&& error() && { return assert(failed_), std::move(error_); }

private:
    Error error_;
    bool failed_ = false;
};

// Shorthand for the failing return: `return fail(Code::kInvalid, "...")`.
inline unexpected<Error> fail(Code code, std::string message, std::int32_t native_code = 0) {
    return unexpected<Error>(Error{code, std::move(message), native_code});
}
inline unexpected<Error> fail(Error error) { return unexpected<Error>(std::move(error)); }

// Returns from the enclosing function when `expression` failed.
#define PEGA_TRY(expression)                                              \
    do {                                                                  \
        if (auto pega_try_result_ = (expression); !pega_try_result_) {    \
            return ::pegaflow::fail(std::move(pega_try_result_).error()); \
        }                                                                 \
    } while (false)

#define PEGA_CONCAT_INNER(a, b) a##b
#define PEGA_CONCAT(a, b) PEGA_CONCAT_INNER(a, b)

// Declares or assigns `target` from a Result's value, or returns its error.
#define PEGA_ASSIGN(target, expression)                                                  \
    auto PEGA_CONCAT(pega_result_, __LINE__) = (expression);                             \
    if (!PEGA_CONCAT(pega_result_, __LINE__)) {                                          \
        return ::pegaflow::fail(std::move(PEGA_CONCAT(pega_result_, __LINE__)).error()); \
    }                                                                                    \
    target = std::move(PEGA_CONCAT(pega_result_, __LINE__)).value()

}  // namespace pegaflow
