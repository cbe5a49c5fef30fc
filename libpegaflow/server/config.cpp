// SPDX-License-Identifier: Apache-2.0
#include "server/config.hpp"

#include <fmt/format.h>

#include <toml++/toml.h>

#include <algorithm>
#include <fstream>
#include <sstream>
#include <utility>

namespace pegaflow::server {
namespace {

constexpr std::string_view kModuleOptions = "module";  // [module.NAME] sections go to the module as they are

std::size_t distance(std::string_view a, std::string_view b) {
    std::vector<std::size_t> row(b.size() + 1);
    for (std::size_t j = 0; j <= b.size(); ++j) row[j] = j;
    for (std::size_t i = 1; i <= a.size(); ++i) {
        std::size_t diagonal = std::exchange(row[0], i);
        for (std::size_t j = 1; j <= b.size(); ++j) {
            const std::size_t keep = std::exchange(diagonal, row[j]) + (a[i - 1] == b[j - 1] ? 0 : 1);
            row[j] = std::min({row[j] + 1, row[j - 1] + 1, keep});
        }
    }
    return row[b.size()];
}

const Option* find_option(std::string_view key) {
    const auto& all = options();
    const auto it = std::find_if(all.begin(), all.end(), [&](const Option& o) { return o.key == key; });
    return it == all.end() ? nullptr : &*it;
}

Error unknown_key(std::string_view key) {
    const auto& all = options();
    const auto nearest = std::min_element(
        all.begin(), all.end(), [&](const Option& a, const Option& b) { return distance(a.key, key) < distance(b.key, key); });
    const std::string hint = distance(nearest->key, key) <= 5 ? fmt::format("; did you mean \"{}\"?", nearest->key) : "";
    return {Code::kInvalid, fmt::format("unknown key \"{}\"{}", key, hint), 0};
}

// The value as text for Option::set; "" with an error for types that no option has.
Result<std::string> value_text(const toml::node& node) {
    if (const auto text = node.value_exact<std::string>()) return *text;
    if (const auto flag = node.value_exact<bool>()) return std::string(*flag ? "true" : "false");
    if (const auto number = node.value_exact<std::int64_t>()) return std::to_string(*number);
    if (const toml::array* array = node.as_array()) {
        std::vector<std::string> parts;
        for (const toml::node& element : *array) {
            const auto text = element.value_exact<std::string>();
            if (!text) return fail(Code::kInvalid, "a list may hold only texts");
            parts.push_back(*text);
        }
        return fmt::format("{}", fmt::join(parts, ","));
    }
    return fail(Code::kInvalid, "expected a text, a number, true, false or a list of texts");
}

Result<void> apply(const toml::table& table, const std::string& prefix, std::string_view name, Config& config) {
    for (const auto& [raw_key, node] : table) {
        const std::string key = prefix + std::string(raw_key.str());
        const auto refuse = [&](const std::string& why) {
            return fail(Code::kInvalid, fmt::format("{}:{}: {}", name, node.source().begin.line, why));
        };
        if (const toml::table* inner = node.as_table()) {
            PEGA_TRY(apply(*inner, key + ".", name, config));
            continue;
        }
        auto text = value_text(node);
        if (!text) return refuse(fmt::format("key \"{}\": {}", key, text.error().message));
        if (key.starts_with(std::string(kModuleOptions) + ".")) {
            const std::string rest = key.substr(kModuleOptions.size() + 1);
            const std::size_t dot = rest.find('.');
            if (dot == std::string::npos)
                return refuse(fmt::format("key \"{}\": options of modules are in a section [module.NAME]", key));
            config.fabric.options[rest.substr(0, dot)][rest.substr(dot + 1)] = *text;
            continue;
        }
        const Option* option = find_option(key);
        if (option == nullptr) return refuse(unknown_key(key).message);
        if (option->boolean != node.is_boolean())
            return refuse(fmt::format("key \"{}\": wrong type, expected {}", key, option->type));
        if (auto set = option->set(config, *text); !set) return refuse(fmt::format("key \"{}\": {}", key, set.error().message));
        config.origins[key] = fmt::format("{}:{}: key \"{}\"", name, node.source().begin.line, key);
    }
    return {};
}

}  // namespace

Result<void> set_option(Config& config, std::string_view key, std::string_view value) {
    const Option* option = find_option(key);
    if (option == nullptr) return fail(unknown_key(key));
    auto set = option->set(config, value);
    if (!set) set.error().message = fmt::format("{}: {}", option->flag(), set.error().message);
    if (set) config.origins[option->key] = option->flag();
    return set;
}

Result<void> parse_config(std::string_view text, std::string_view name, Config& config) {
    try {
        return apply(toml::parse(text), "", name, config);
    } catch (const toml::parse_error& error) {
        return fail(Code::kInvalid, fmt::format("{}:{}: {}", name, error.source().begin.line, error.description()));
    }
}

Result<void> read_config(const std::string& path, Config& config) {
    std::ifstream file(path);
    if (!file) return fail(Code::kNotFound, fmt::format("cannot open the configuration file {}", path));
    std::string text;
    // By line, because a directory opens as well and only reading it fails.
    for (std::string line; std::getline(file, line);) text += line + '\n';
    if (file.bad()) return fail(Code::kInvalid, fmt::format("cannot read the configuration file {}: is it a file?", path));
    return parse_config(text, path, config);
}

std::string to_toml(const Config& config) {
    std::string out;
    std::string section;
    for (const Option& option : options()) {
        const std::size_t dot = option.key.find('.');
        if (option.key.substr(0, dot) != section) {
            section = option.key.substr(0, dot);
            out += fmt::format("{}[{}]\n", out.empty() ? "" : "\n", section);
        }
        const std::string value = option.get(config);
        out += fmt::format("{} = {}\n", option.key.substr(dot + 1), option.boolean ? value : "\"" + value + "\"");
    }
    return out;
}

std::string config_reference() {
    std::string out =
        "# Configuration reference\n\n`pegaflow serve --config FILE` reads a TOML file; every key is also a flag, which wins. "
        "`pegaflow serve "
        "--print-config` prints what is in force. Options of a back end or plug-in are in a section `[module.NAME]` and go to "
        "it as they are.\n\n"
        "| key | flag | value | default | meaning |\n|---|---|---|---|---|\n";
    const Config defaults;
    for (const Option& o : options())
        out += fmt::format("| `{}` | `{}` | {} | `{}` | {} |\n", o.key, o.flag(), o.type, o.get(defaults), o.help);
    return out;
}

}  // namespace pegaflow::server
