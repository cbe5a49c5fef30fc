// SPDX-License-Identifier: Apache-2.0
#include "server/config.hpp"

#include <fmt/format.h>

#include <toml++/toml.h>

#include <algorithm>
#include <fstream>
#include <optional>
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

// "; did you mean ...?" when one of the names is near.
std::string hint(std::string_view wrong, const std::vector<std::string>& names, std::string_view quotes) {
    const auto nearest = std::ranges::min_element(names, {}, [&](const std::string& name) { return distance(name, wrong); });
    const std::size_t far = distance(*nearest, wrong);
    if (far > 5 || far >= wrong.size()) return "";
    return fmt::format("; did you mean {}{}{}?", quotes.front(), *nearest, quotes.back());
}

Error unknown_key(std::string_view key) {
    std::vector<std::string> keys;
    for (const Option& option : options()) keys.push_back(option.key);
    return {Code::kInvalid, fmt::format("unknown key \"{}\"{}", key, hint(key, keys, "\"\"")), 0};
}

std::vector<std::string> sections() {
    std::vector<std::string> out{std::string(kModuleOptions)};
    for (const Option& option : options()) {
        const std::string section = option.key.substr(0, option.key.find('.'));
        if (std::ranges::find(out, section) == out.end()) out.push_back(section);
    }
    return out;
}

// What somebody wrote, for messages.
std::string found(const toml::node& node) {
    if (const auto text = node.value_exact<std::string>()) return fmt::format("the string \"{}\"", *text);
    if (const auto flag = node.value_exact<bool>()) return *flag ? "true" : "false";
    if (const auto number = node.value_exact<std::int64_t>()) return fmt::format("the integer {}", *number);
    if (const auto number = node.value_exact<double>()) return fmt::format("the number {}", *number);
    if (node.is_table()) return "a table";
    const toml::array* array = node.as_array();
    if (array == nullptr) return "a date or a time";
    for (const toml::node& element : *array) {
        if (!element.is_string()) return "an array with " + found(element);
    }
    return "an array of strings";
}

std::string expected(const Option& option) {
    Config example;
    if (!option.set(example, option.example)) return option.type;
    const std::string text = option.toml(example);
    switch (option.kind) {
        case Option::Kind::kText:
            return "a string such as " + text;
        case Option::Kind::kSize:
            return fmt::format("a string such as {} or an integer of bytes", text);
        case Option::Kind::kInteger:
            return "an integer such as " + text;
        case Option::Kind::kBoolean:
            return "true or false, without quotes";
        case Option::Kind::kList:
            return "an array of strings such as " + text;
    }
    return option.type;
}

// The text of a string, an integer, true or false; nothing for anything else.
std::optional<std::string> scalar(const toml::node& node) {
    if (const auto text = node.value_exact<std::string>()) return *text;
    if (const auto flag = node.value_exact<bool>()) return *flag ? "true" : "false";
    if (const auto number = node.value_exact<std::int64_t>()) return std::to_string(*number);
    return {};
}

// Nothing when the node is not of the option's type.
std::optional<Parts> parts_of(const Option& option, const toml::node& node) {
    const Option::Kind kind = option.kind;
    if (kind == Option::Kind::kList) {
        const toml::array* array = node.as_array();
        if (array == nullptr) return {};
        Parts parts;
        for (const toml::node& element : *array) {
            if (!element.is_string()) return {};
            parts.push_back(*element.value_exact<std::string>());
        }
        return parts;
    }
    const bool fits = (node.is_string() && (kind == Option::Kind::kText || kind == Option::Kind::kSize)) ||
                      (node.is_integer() && (kind == Option::Kind::kInteger || kind == Option::Kind::kSize)) ||
                      (node.is_boolean() && kind == Option::Kind::kBoolean);
    if (!fits) return {};
    return Parts{*scalar(node)};
}

// Takes what a file says into a Config.
class Reader {
public:
    Reader(std::string_view name, Config& config) : name_(name), config_(config) {}

    Result<void> read(const toml::table& file) {
        const std::vector<std::string> known = sections();
        for (const auto& [key, node] : file) {
            const std::string section(key.str());
            if (std::ranges::find(known, section) == known.end()) {
                if (node.is_table())
                    return refuse(node, fmt::format("unknown section [{}]{}", section, hint(section, known, "[]")));
                PEGA_TRY(set(section, node));
                continue;
            }
            const toml::table* table = node.as_table();
            if (table == nullptr)
                return refuse(node, fmt::format("key \"{0}\": found {1}, expected a section [{0}]", section, found(node)));
            if (section == kModuleOptions) {
                PEGA_TRY(modules(*table));
            } else {
                for (const auto& [inner, value] : *table) PEGA_TRY(set(section + "." + std::string(inner.str()), value));
            }
        }
        return {};
    }

private:
    unexpected<Error> refuse(const toml::node& node, const std::string& why) const {
        return fail(Code::kInvalid, fmt::format("{}:{}: {}", name_, node.source().begin.line, why));
    }

    Result<void> set(const std::string& key, const toml::node& node) {
        const Option* option = find_option(key);
        if (option == nullptr) return refuse(node, unknown_key(key).message);
        const auto parts = parts_of(*option, node);
        if (!parts) return refuse(node, fmt::format("key \"{}\": found {}, expected {}", key, found(node), expected(*option)));
        if (auto done = option->set(config_, *parts); !done)
            return refuse(node, fmt::format("key \"{}\": {}", key, done.error().message));
        config_.origins[key] = fmt::format("{}:{}: key \"{}\"", name_, node.source().begin.line, key);
        return {};
    }

    Result<void> modules(const toml::table& table) {
        for (const auto& [key, node] : table) {
            const toml::table* section = node.as_table();
            if (section == nullptr) {
                return refuse(node, fmt::format("key \"{}.{}\": options of modules are in a section [module.NAME]",
                                                kModuleOptions, key.str()));
            }
            PEGA_TRY(module_options(std::string(key.str()), "", *section));
        }
        return {};
    }

    // `prefix` is that of tables within the section.
    Result<void> module_options(const std::string& module, const std::string& prefix, const toml::table& table) {
        for (const auto& [key, node] : table) {
            const std::string option = prefix + std::string(key.str());
            if (const toml::table* inner = node.as_table()) {
                PEGA_TRY(module_options(module, option + ".", *inner));
                continue;
            }
            const auto value = scalar(node);
            if (!value) {
                return refuse(node,
                              fmt::format("key \"{}.{}.{}\": found {}, expected a string such as \"0.5\", an integer, true or "
                                          "false: the module gets it as text",
                                          kModuleOptions, module, option, found(node)));
            }
            config_.fabric.options[module][option] = *value;
        }
        return {};
    }

    const std::string_view name_;
    Config& config_;
};

}  // namespace

Result<void> set_option(Config& config, std::string_view key, std::string_view value) {
    const Option* option = find_option(key);
    if (option == nullptr) return fail(unknown_key(key));
    const auto parts = option->from_flag(value);
    auto set = parts ? option->set(config, *parts) : Result<void>(fail(parts.error()));
    if (!set) set.error().message = fmt::format("{}: {}", option->flag(), set.error().message);
    if (set) config.origins[option->key] = option->flag();
    return set;
}

Result<void> parse_config(std::string_view text, std::string_view name, Config& config) {
    try {
        return Reader(name, config).read(toml::parse(text));
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

}  // namespace pegaflow::server
