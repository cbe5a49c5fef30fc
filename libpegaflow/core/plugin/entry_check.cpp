// SPDX-License-Identifier: Apache-2.0
#include "core/plugin/entry_check.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

namespace pegaflow::core {
namespace {

constexpr std::size_t kMaxNameLength = 31;

unexpected<Error> refuse(std::string_view path, std::string why) {
    return fail(Code::kUnsupported, fmt::format("{} is not usable: {}", path, why));
}

bool valid_name(const char* name) {
    const std::size_t length = ::strnlen(name, kMaxNameLength + 1);
    if (length == 0 || length > kMaxNameLength) return false;
    return std::all_of(name, name + length,
                       [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_'; });
}

// The beginning of a text that may be anything, fit for a line of a log.
std::string quoted(const char* text) {
    std::string out(text, ::strnlen(text, kMaxNameLength + 1));
    for (char& c : out) {
        if (c < ' ' || c > '~') c = '?';
    }
    return '"' + out + '"';
}

// The name of the first mandatory member that is missing, or null.
#define PEGA_MISSING(type, table, member) \
    if (!PEGA_HAS(type, table, member)) return #member

const char* missing(const pega_backend_table* t) {
    PEGA_MISSING(pega_backend_table, t, probe);
    PEGA_MISSING(pega_backend_table, t, open);
    PEGA_MISSING(pega_backend_table, t, close);
    PEGA_MISSING(pega_backend_table, t, capabilities);
    PEGA_MISSING(pega_backend_table, t, address);
    PEGA_MISSING(pega_backend_table, t, extension);
    PEGA_MISSING(pega_backend_table, t, error_text);
    return nullptr;
}

const char* missing(const pega_region_table* t) {
    PEGA_MISSING(pega_region_table, t, register_memory);
    PEGA_MISSING(pega_region_table, t, unregister);
    PEGA_MISSING(pega_region_table, t, info);
    PEGA_MISSING(pega_region_table, t, export_descriptor);
    PEGA_MISSING(pega_region_table, t, import_descriptor);
    return nullptr;
}

const char* missing(const pega_channel_table* t) {
    PEGA_MISSING(pega_channel_table, t, open);
    PEGA_MISSING(pega_channel_table, t, state);
    PEGA_MISSING(pega_channel_table, t, submit);
    PEGA_MISSING(pega_channel_table, t, close);
    return nullptr;
}

const char* missing(const pega_completion_table* t) {
    PEGA_MISSING(pega_completion_table, t, poll);
    PEGA_MISSING(pega_completion_table, t, wait_fd);
    PEGA_MISSING(pega_completion_table, t, arm);
    return nullptr;
}

#undef PEGA_MISSING

template <class Table>
Result<const Table*> fetch(const pega_entry* entry, const char* id, std::string_view path) {
    const auto* table = static_cast<const Table*>(entry->get(id));
    if (table == nullptr) return refuse(path, fmt::format("back end \"{}\" has no table \"{}\"", entry->name, id));
    if (const char* member = missing(table)) {
        return refuse(path,
                      fmt::format("table \"{}\" of back end \"{}\" is {} bytes long and lacks the mandatory member \"{}\"; "
                                  "expected at least {} bytes with every member set",
                                  id, entry->name, table->size, member, sizeof(Table)));
    }
    return table;
}

}  // namespace

Result<const pega_entry*> check_entry(const Library& library) {
    const auto* entry = static_cast<const pega_entry*>(library.own_symbol(PEGA_ENTRY_SYMBOL));
    if (entry == nullptr) {
        return refuse(library.path(), fmt::format("it does not export the symbol \"{}\" itself", PEGA_ENTRY_SYMBOL));
    }
    // The major version comes first: with another one, nothing else of the entry need be where we think it is.
    constexpr std::size_t kSmallest = offsetof(pega_entry, get) + sizeof(entry->get);
    if (entry->size >= offsetof(pega_entry, name) && entry->abi_major != PEGA_ABI_MAJOR) {
        return refuse(library.path(),
                      fmt::format("it was built for ABI {}.{}, this library speaks {}.{}; the major version must be equal",
                                  entry->abi_major, entry->abi_minor, PEGA_ABI_MAJOR, PEGA_ABI_MINOR));
    }
    if (entry->size < kSmallest) {
        return refuse(library.path(), fmt::format("its entry is {} bytes long, expected at least {}", entry->size, kSmallest));
    }
    if (entry->name == nullptr || !valid_name(entry->name)) {
        return refuse(library.path(), fmt::format("it calls itself {}, expected 1 to 31 lower case letters, digits or '_'",
                                                  entry->name == nullptr ? "nothing" : quoted(entry->name)));
    }
    if (entry->version == nullptr || entry->get == nullptr) {
        return refuse(library.path(), fmt::format("the entry of \"{}\" lacks the mandatory member \"{}\"", entry->name,
                                                  entry->version == nullptr ? "version" : "get"));
    }
    return entry;
}

Result<BackendTables> check_backend(const pega_entry* entry, std::string_view path) {
    BackendTables tables;
    tables.entry = entry;
    PEGA_ASSIGN(tables.backend, fetch<pega_backend_table>(entry, PEGA_BACKEND_TABLE, path));
    PEGA_ASSIGN(tables.region, fetch<pega_region_table>(entry, PEGA_REGION_TABLE, path));
    PEGA_ASSIGN(tables.channel, fetch<pega_channel_table>(entry, PEGA_CHANNEL_TABLE, path));
    PEGA_ASSIGN(tables.completion, fetch<pega_completion_table>(entry, PEGA_COMPLETION_TABLE, path));
    return tables;
}

}  // namespace pegaflow::core
