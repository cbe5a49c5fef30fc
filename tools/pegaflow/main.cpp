// SPDX-License-Identifier: Apache-2.0
#include <iostream>

#include "tools/pegaflow/verb.hpp"

int main(int argc, char** argv) { return pegaflow::cli::run({argv + 1, argv + argc}, std::cout, std::cerr); }
