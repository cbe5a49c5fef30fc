// SPDX-License-Identifier: Apache-2.0
// pickle_reader.hpp - a pickle as plain values: numbers, texts, tuples, dictionaries, and names of classes that nobody calls.
//
// The reader knows the opcodes that the pickles of one small class need and refuses every other one. It constructs nothing and
// imports nothing: a class applied to arguments is kept as just that.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "pegaflow/result.hpp"

namespace pegaflow::server {

struct Item;
using Items = std::vector<Item>;
using Pairs = std::vector<std::pair<Item, Item>>;

struct None {};
struct Mark {};
struct Bytes {
    std::string data;
};
struct Global {
    std::string name;  // "module name"
};
struct Tuple {
    std::shared_ptr<Items> items;  // shared with the memo
};
struct Dict {
    std::shared_ptr<Pairs> pairs;  // likewise
};
// A global applied to arguments: only known to have been one.
struct Made {
    std::string name;
    bool called = false;  // by REDUCE; else made by NEWOBJ
    std::shared_ptr<Items> arguments;
    std::shared_ptr<std::optional<Dict>> state;
};

struct Item : std::variant<None, Mark, bool, std::int64_t, std::string, Bytes, Global, Tuple, Dict, Made> {
    using variant::variant;
};

class Pickle {
public:
    // Reads all of `bytes`; `known` says which globals ("module name") may occur. kInvalid with the position and why. [any]
    static Result<Pickle> read(std::string_view bytes, bool (*known)(std::string_view global));
    Pickle(Pickle&&) = default;
    Pickle& operator=(Pickle&&) = delete;
    // A dictionary can be made to hold itself: emptying them all breaks every circle.
    ~Pickle();

    const Item& root() const noexcept { return root_; }

private:
    Pickle() = default;

    Item root_;
    std::vector<std::shared_ptr<Pairs>> dicts_;  // all that were made
};

// Up to 64 characters of what a peer sent, fit for a message. [any]
std::string printable(std::string_view text);

}  // namespace pegaflow::server
