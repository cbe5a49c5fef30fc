// SPDX-License-Identifier: Apache-2.0
// checker.hpp - the offline check of a container: every table and extent, every page against its digest, and statistics.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "pegaflow/result.hpp"

namespace pegaflow::engine::tier {

struct CheckOptions {
    bool pages = true;  // read all of them; else only headers, tables and descriptors
    unsigned threads = 4;
};

struct CheckReport {
    std::string path;
    bool in_use = false;  // by a server: what is being written may look torn
    std::uint32_t version = 0;
    std::uint64_t capacity_bytes = 0, segment_bytes = 0;
    std::uint64_t empty_segments = 0, sealed_segments = 0, open_segments = 0, foreign_segments = 0;
    std::uint64_t records = 0, record_bytes = 0;  // also those that a later record of the same key replaced
    std::uint64_t blocks = 0, block_bytes = 0;    // that a server would find
    std::uint64_t log_bytes = 0;                  // of records, descriptors and headers
    std::uint64_t lifetime_written_bytes = 0;
    std::uint64_t pages_read = 0, wrong_pages = 0;
    struct Scope {
        std::uint64_t blocks = 0, bytes = 0;
    };
    std::map<std::pair<std::string, std::string>, Scope> scopes;  // by namespace and fingerprint
    std::vector<std::string> problems;                            // in words, with places
    double seconds = 0;
};

// Changes nothing. `path` is a directory with a container, a container's file, or a block device. kNotFound, kUnsupported (a
// later version), kCorrupt (not even a superblock can be read), kRegionLost.
Result<CheckReport> check_container(const std::string& path, const CheckOptions& options = {});

}  // namespace pegaflow::engine::tier
