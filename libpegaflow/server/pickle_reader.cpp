// SPDX-License-Identifier: Apache-2.0
#include "server/pickle_reader.hpp"

#include <fmt/format.h>

#include <cstring>
#include <map>

namespace pegaflow::server {
namespace {

constexpr std::size_t kMaxOpcodes = 1024;  // a wrapper has about sixty; bounds memory and how deep objects nest
constexpr std::size_t kMaxPrinted = 64;
constexpr unsigned char kProto = 0x80;

class Reader {
public:
    Reader(std::string_view bytes, bool (*known)(std::string_view), std::vector<std::shared_ptr<Pairs>>& dicts)
        : bytes_(bytes), known_(known), dicts_(dicts) {}

    Result<Item> read() {
        for (std::size_t opcodes = 0; at_ < bytes_.size(); ++opcodes) {
            const std::size_t position = at_;
            if (opcodes == kMaxOpcodes) return refuse(position, "too many opcodes");
            const auto opcode = static_cast<unsigned char>(bytes_[at_++]);
            if ((opcodes == 0) != (opcode == kProto)) return refuse(position, "it does not begin with its protocol, once");
            if (opcode == '.') {
                if (stack_.size() != 1) return refuse(position, "the stack does not hold exactly one object at the end");
                if (at_ != bytes_.size()) return refuse(at_, "bytes follow its end");
                return std::move(stack_.back());
            }
            if (const char* why = step(opcode))
                return refuse(position, fmt::format("opcode {:#04x}: {}{}", opcode, why, refused_global_));
        }
        return refuse(at_, "it ends in the middle");
    }

private:
    static unexpected<Error> refuse(std::size_t position, std::string why) {
        return fail(Code::kInvalid, fmt::format("wrapper_bytes is not a pickled CudaIPCWrapper: byte {}: {}", position, why));
    }

    bool take(std::size_t count, std::string_view* out) {
        if (bytes_.size() - at_ < count) return false;
        *out = bytes_.substr(at_, count);
        at_ += count;
        return true;
    }
    bool number(std::size_t width, std::uint64_t* out) {
        std::string_view raw;
        if (!take(width, &raw)) return false;
        *out = 0;
        std::memcpy(out, raw.data(), width);  // little-endian, as the format is
        return true;
    }
    bool line(std::string* out) {
        const std::size_t end = bytes_.find('\n', at_);
        if (end == std::string_view::npos) return false;
        *out = std::string(bytes_.substr(at_, end - at_));
        at_ = end + 1;
        return true;
    }
    bool pop(Item* out) {
        if (stack_.empty() || std::holds_alternative<Mark>(stack_.back())) return false;
        *out = std::move(stack_.back());
        stack_.pop_back();
        return true;
    }
    // What lies above the topmost mark, which goes too.
    bool pop_to_mark(Items* out) {
        std::size_t first = stack_.size();
        while (first > 0 && !std::holds_alternative<Mark>(stack_[first - 1])) --first;
        if (first == 0) return false;
        out->assign(std::make_move_iterator(stack_.begin() + static_cast<std::ptrdiff_t>(first)),
                    std::make_move_iterator(stack_.end()));
        stack_.resize(first - 1);
        return true;
    }
    const char* push(Item item) {
        stack_.push_back(std::move(item));
        return nullptr;
    }
    const char* push_text(std::size_t width, bool binary) {
        std::uint64_t length = 0;
        std::string_view text;
        if (!number(width, &length) || !take(length, &text)) return "it ends within a text";
        return binary ? push(Bytes{std::string(text)}) : push(std::string(text));
    }
    const char* push_integer(std::size_t width, bool is_signed) {
        std::uint64_t raw = 0;
        if (!number(width, &raw)) return "it ends within a number";
        return push(is_signed ? static_cast<std::int64_t>(static_cast<std::int32_t>(raw)) : static_cast<std::int64_t>(raw));
    }
    const char* push_long() {
        std::uint64_t width = 0;
        std::string_view raw;
        if (!number(1, &width) || width > 8 || !take(width, &raw)) return "a whole number of more than 8 bytes";
        std::uint64_t value = 0;
        std::memcpy(&value, raw.data(), width);
        if (width != 0 && width < 8 && (static_cast<unsigned char>(raw[width - 1]) & 0x80) != 0)
            value |= ~std::uint64_t{0} << (8 * width);
        return push(static_cast<std::int64_t>(value));
    }
    const char* push_tuple(std::size_t count) {
        auto items = std::make_shared<Items>(count);
        for (std::size_t i = count; i-- > 0;) {
            if (!pop(&(*items)[i])) return "a tuple lacks items";
        }
        return push(Tuple{items});
    }
    const char* set_items(const Items& items) {
        if (items.size() % 2 != 0 || stack_.empty() || !std::holds_alternative<Dict>(stack_.back()))
            return "items that belong to no dictionary";
        Pairs& pairs = *std::get<Dict>(stack_.back()).pairs;
        for (std::size_t i = 0; i < items.size(); i += 2) pairs.emplace_back(items[i], items[i + 1]);
        return nullptr;
    }
    const char* push_global(std::string name) {
        if (known_(name)) return push(Global{std::move(name)});
        refused_global_ = printable(name);
        return "a global that is none of those expected: ";
    }
    const char* make_object(bool called);
    const char* build();
    const char* memo_get(std::uint64_t slot) {
        const auto it = memo_.find(slot);
        return it == memo_.end() ? "a memo slot that was never set" : push(it->second);
    }
    const char* step(unsigned char opcode);
    const char* step_simple(unsigned char opcode);

    const std::string_view bytes_;
    bool (*const known_)(std::string_view);
    std::vector<std::shared_ptr<Pairs>>& dicts_;
    std::size_t at_ = 0;
    std::string refused_global_;
    Items stack_;
    std::map<std::uint64_t, Item> memo_;
};

const char* Reader::make_object(bool called) {
    Item arguments;
    Item callee;
    if (!pop(&arguments) || !pop(&callee)) return "an object lacks its class or arguments";
    const auto* global = std::get_if<Global>(&callee);
    const auto* tuple = std::get_if<Tuple>(&arguments);
    if (global == nullptr || tuple == nullptr) return "an object of something that is no class";
    return push(Made{global->name, called, tuple->items, std::make_shared<std::optional<Dict>>()});
}

const char* Reader::build() {
    Item state;
    if (!pop(&state) || stack_.empty()) return "a state without an object";
    auto* object = std::get_if<Made>(&stack_.back());
    const auto* dict = std::get_if<Dict>(&state);
    if (object == nullptr || dict == nullptr || object->state->has_value()) return "a state that is no attribute dictionary";
    *object->state = *dict;
    return nullptr;
}

const char* Reader::step_simple(unsigned char opcode) {
    std::uint64_t value = 0;
    switch (opcode) {
        case kProto:
            return number(1, &value) && value >= 3 && value <= 5 ? nullptr : "protocol is not 3 to 5";
        case 0x95:
            return number(8, &value) ? nullptr : "it ends within a frame";  // FRAME
        case '(':
            return push(Mark{});
        case 'N':
            return push(None{});
        case 0x88:
            return push(true);
        case 0x89:
            return push(false);
        case 'K':
            return push_integer(1, false);
        case 'M':
            return push_integer(2, false);
        case 'J':
            return push_integer(4, true);
        case 0x8a:
            return push_long();
        case 0x8c:
            return push_text(1, false);  // SHORT_BINUNICODE
        case 'X':
            return push_text(4, false);
        case 0x8d:
            return push_text(8, false);
        case 'C':
            return push_text(1, true);  // SHORT_BINBYTES
        case 'B':
            return push_text(4, true);
        case 0x8e:
            return push_text(8, true);
        case ')':
            return push(Tuple{std::make_shared<Items>()});
        case 0x85:
            return push_tuple(1);
        case 0x86:
            return push_tuple(2);
        case 0x87:
            return push_tuple(3);
        case '}':
            dicts_.push_back(std::make_shared<Pairs>());
            return push(Dict{dicts_.back()});
        case 'h':
            return number(1, &value) ? memo_get(value) : "it ends within a memo slot";
        case 'j':
            return number(4, &value) ? memo_get(value) : "it ends within a memo slot";
        default:
            return "not one that this class needs";
    }
}

const char* Reader::step(unsigned char opcode) {
    std::uint64_t value = 0;
    Items items;
    switch (opcode) {
        case 't':  // TUPLE
            return pop_to_mark(&items) ? push(Tuple{std::make_shared<Items>(std::move(items))}) : "a tuple without its mark";
        case 'u':  // SETITEMS
            return pop_to_mark(&items) ? set_items(items) : "items without their mark";
        case 's': {  // SETITEM
            items.resize(2);
            return pop(&items[1]) && pop(&items[0]) ? set_items(items) : "an item lacks its key or value";
        }
        case 'c': {  // GLOBAL
            std::string module;
            std::string name;
            return line(&module) && line(&name) ? push_global(module + " " + name) : "it ends within a name";
        }
        case 0x93: {  // STACK_GLOBAL
            Item name;
            Item module;
            if (!pop(&name) || !pop(&module)) return "a global lacks its names";
            const auto* n = std::get_if<std::string>(&name);
            const auto* m = std::get_if<std::string>(&module);
            return n != nullptr && m != nullptr ? push_global(*m + " " + *n) : "a global whose names are no texts";
        }
        case 'R':   // REDUCE
        case 0x81:  // NEWOBJ
            return make_object(opcode == 'R');
        case 'b':
            return build();
        case 0x94:  // MEMOIZE
            value = memo_.size();
            break;
        case 'q':
            if (!number(1, &value)) return "it ends within a memo slot";
            break;
        case 'r':
            if (!number(4, &value)) return "it ends within a memo slot";
            break;
        default:
            return step_simple(opcode);
    }
    if (stack_.empty() || std::holds_alternative<Mark>(stack_.back())) return "a memo slot for nothing";
    memo_.insert_or_assign(value, stack_.back());
    return nullptr;
}

}  // namespace

Result<Pickle> Pickle::read(std::string_view bytes, bool (*known)(std::string_view)) {
    Pickle out;
    PEGA_ASSIGN(out.root_, Reader(bytes, known, out.dicts_).read());
    return out;
}

Pickle::~Pickle() {
    for (const auto& pairs : dicts_) pairs->clear();
}

std::string printable(std::string_view text) {
    std::string out;
    for (const char c : text.substr(0, kMaxPrinted)) out += c >= ' ' && c <= '~' ? c : '?';
    return text.size() > kMaxPrinted ? out + "..." : out;
}

}  // namespace pegaflow::server
