// SPDX-License-Identifier: Apache-2.0
// errors.hpp - failures of the library as Python exceptions, and calls that give up the interpreter lock while they run.
#pragma once

#include <cxxabi.h>
#include <pybind11/pybind11.h>
#include <unistd.h>

#include <string>
#include <type_traits>
#include <utility>

#include "pegaflow/result.hpp"

namespace pegaflow::python {

namespace py = pybind11;

// Throws the exception of pegaflow.errors that stands for the code. The lock is held.
[[noreturn]] void raise(const Error& error);
// ValueError of ours (pegaflow.errors.InvalidArgument). The lock is held.
[[noreturn]] void raise_invalid(const std::string& message);

// A message with each {} filled in, as Python's str.format does it. The lock is held.
template <class... Values>
std::string text(const char* format, Values&&... values) {
    return py::str(format).format(std::forward<Values>(values)...).template cast<std::string>();
}

// The value, or the exception. The lock is held.
template <class T>
T take(Result<T> result) {
    if (!result) raise(result.error());
    if constexpr (!std::is_void_v<T>) return std::move(result).value();
}

// Gives the interpreter lock up for its own time. A thread that would take it again while the interpreter ends (a daemon thread
// in a wait) stays here for ever instead: CPython ends such threads by unwinding them, which would take what they hold apart
// without the lock.
class Unlock {
public:
    Unlock() : state_(PyEval_SaveThread()) {}
    Unlock(const Unlock&) = delete;
    Unlock& operator=(const Unlock&) = delete;
    ~Unlock() {
        try {
            PyEval_RestoreThread(state_);
        } catch (abi::__forced_unwind&) {
            for (;;) ::pause();
        }
    }

private:
    PyThreadState* const state_;
};

// Runs `call` without the interpreter lock.
template <class Call>
auto unlocked(Call&& call) {
    const Unlock unlock;
    return call();
}

// Runs `call`, which returns a Result, without the interpreter lock; its value, or the exception.
template <class Call>
auto take_unlocked(Call&& call) {
    return take(unlocked(std::forward<Call>(call)));
}

}  // namespace pegaflow::python
