// SPDX-License-Identifier: Apache-2.0
// entry_check.hpp - whether a file is a module that this core can use; every refusal says what was found and what was expected.
#pragma once

#include <string_view>

#include "core/plugin/library.hpp"
#include "pegaflow/abi/backend.h"
#include "pegaflow/result.hpp"

namespace pegaflow::core {

// The four tables that every back end offers. Borrowed from the module.
struct BackendTables {
    const pega_entry* entry = nullptr;
    const pega_backend_table* backend = nullptr;
    const pega_region_table* region = nullptr;
    const pega_channel_table* channel = nullptr;
    const pega_completion_table* completion = nullptr;
};

// The module's entry when its symbol, size, major version and name are right. kUnsupported. [any]
Result<const pega_entry*> check_entry(const Library& library);

// The tables when all mandatory members are there. kUnsupported names the table and member. `path` is for the text. [any]
Result<BackendTables> check_backend(const pega_entry* entry, std::string_view path);

}  // namespace pegaflow::core
