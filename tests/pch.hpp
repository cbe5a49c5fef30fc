// SPDX-License-Identifier: Apache-2.0
// pch.hpp - GoogleTest and the heavy standard headers, precompiled for the tests.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <thread>
#include <vector>
