// SPDX-License-Identifier: Apache-2.0
// test_file.hpp - a file with known bytes, gone with the test.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

namespace nvme_test {

inline std::vector<std::uint8_t> noise(std::uint64_t bytes, std::uint64_t seed) {
    std::mt19937_64 random(seed);
    std::vector<std::uint8_t> out(bytes);
    for (auto& byte : out) byte = static_cast<std::uint8_t>(random());
    return out;
}

class TestFile {
public:
    explicit TestFile(const std::vector<std::uint8_t>& bytes) {
        char name[] = "/var/tmp/pegaflow-nvme-test.XXXXXX";
        const int fd = ::mkstemp(name);
        path = name;
        EXPECT_EQ(::write(fd, bytes.data(), bytes.size()), static_cast<ssize_t>(bytes.size()));
        ::fsync(fd);
        ::close(fd);
    }
    ~TestFile() { ::unlink(path.c_str()); }
    TestFile(const TestFile&) = delete;
    TestFile& operator=(const TestFile&) = delete;
    std::vector<std::uint8_t> bytes() const {
        struct stat info{};
        ::stat(path.c_str(), &info);
        std::vector<std::uint8_t> out(static_cast<std::size_t>(info.st_size));
        const int fd = ::open(path.c_str(), O_RDONLY);
        EXPECT_EQ(::read(fd, out.data(), out.size()), static_cast<ssize_t>(out.size()));
        ::close(fd);
        return out;
    }
    std::string path;
};

}  // namespace nvme_test
