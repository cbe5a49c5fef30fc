// SPDX-License-Identifier: Apache-2.0
#include <iostream>

#include "tools/pegaflow/verb.hpp"

int main(int argc, char** argv) {
    std::vector<std::string> arguments{"serve"};
    arguments.insert(arguments.end(), argv + 1, argv + argc);
    return pegaflow::cli::run(std::move(arguments), std::cout, std::cerr);
}
