// SPDX-License-Identifier: Apache-2.0
// recycled_messages.hpp - requests and responses of one method that are used again, so that their strings keep their memory.
//
// A query carries hundreds of hashes, each a string of its own: allocating and freeing them costs more than the look-up.
#pragma once

#include <grpcpp/support/message_allocator.h>

#include <cstddef>
#include <memory>
#include <mutex>
#include <vector>

namespace pegaflow::server {

template <class Request, class Response>
class RecycledMessages final : public grpc::MessageAllocator<Request, Response> {
public:
    using Holder = grpc::MessageHolder<Request, Response>;

    Holder* AllocateMessages() override {
        {
            const std::lock_guard lock(mutex_);
            if (!free_.empty()) {
                Pair* pair = free_.back().release();
                free_.pop_back();
                return pair;
            }
        }
        return new Pair(*this);
    }

private:
    static constexpr std::size_t kMostFree = 64;
    static constexpr std::size_t kMostBytes = 1 << 20;  // of a message that is kept

    class Pair final : public Holder {
    public:
        explicit Pair(RecycledMessages& owner) : owner_(owner) {
            this->set_request(&request_);
            this->set_response(&response_);
        }
        void Release() override { owner_.take_back(std::unique_ptr<Pair>(this)); }
        std::size_t clear() {
            const std::size_t bytes = request_.ByteSizeLong() + response_.ByteSizeLong();
            request_.Clear();
            response_.Clear();
            return bytes;
        }

    private:
        RecycledMessages& owner_;
        Request request_;
        Response response_;
    };

    void take_back(std::unique_ptr<Pair> pair) {
        if (pair->clear() > kMostBytes) return;
        const std::lock_guard lock(mutex_);
        if (free_.size() < kMostFree) free_.push_back(std::move(pair));
    }

    std::mutex mutex_;
    std::vector<std::unique_ptr<Pair>> free_;  // guarded by mutex_
};

}  // namespace pegaflow::server
