// SPDX-License-Identifier: Apache-2.0
// last_words.hpp - what a module logs as an error while it is called: the reason, which a status alone does not say.
#pragma once

#include <string>

namespace pegaflow::core {

// Lives around one call of a module on one thread. [serial]
class LastWords {
public:
    LastWords() noexcept : outer_(current_) { current_ = this; }
    ~LastWords() { current_ = outer_; }
    LastWords(const LastWords&) = delete;
    LastWords& operator=(const LastWords&) = delete;

    // ": " and the last error since construction; "" when there was none.
    const std::string& text() const noexcept { return text_; }

    // What the host's log does with each error. [any]
    static void note(const char* message) {
        if (current_ != nullptr) current_->text_ = std::string(": ") + message;
    }

private:
    LastWords* const outer_;
    std::string text_;
    static inline thread_local LastWords* current_ = nullptr;
};

}  // namespace pegaflow::core
