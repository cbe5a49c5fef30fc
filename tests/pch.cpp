// SPDX-License-Identifier: Apache-2.0
// pch.cpp - the source that CMake wants in a target which precompiles headers.
