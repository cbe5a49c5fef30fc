// SPDX-License-Identifier: Apache-2.0
// search_path.hpp - where module files are looked for, and which there are.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace pegaflow::core {

// PEGAFLOW_PLUGIN_PATH (colon separated), then `extra`, then beside this library: pegaflow/, the library's own directory, and
// ../lib/pegaflow (executables in bin/). Directories that do not exist are left out, duplicates too. [any]
std::vector<std::string> module_directories(std::span<const std::string> extra);

// Paths of pegaflow-backend-*.so and pegaflow-plugin-*.so in these directories, sorted within each; of two files with the same
// name the first directory's wins. [any]
std::vector<std::string> module_files(std::span<const std::string> directories);

// "host" for ".../pegaflow-backend-host.so"; "" when the name is not one of ours. [any]
std::string module_name(std::string_view path);
// True for pegaflow-backend-*.so. [any]
bool is_backend_file(std::string_view path);

}  // namespace pegaflow::core
