// SPDX-License-Identifier: Apache-2.0
#include "convert.hpp"

#include <pybind11/stl.h>

#include <cstring>

#include "pegaflow/abi/region.h"

namespace pegaflow::python {
namespace {

constexpr const char* kKinds[] = {"host", "gpu", "file", "remote"};

const char* type_name(py::handle object) { return Py_TYPE(object.ptr())->tp_name; }

[[noreturn]] void wrong_type(const std::string& what, const char* expected, py::handle got) {
    throw py::type_error(text("{}: expected {}, got {}", what, expected, type_name(got)));
}

py::object iterable(py::handle items, const std::string& what, const char* expected) {
    if (PyUnicode_Check(items.ptr()) != 0) wrong_type(what, expected, items);
    PyObject* const sequence = PySequence_Fast(items.ptr(), "");
    if (sequence == nullptr) {
        PyErr_Clear();
        wrong_type(what, expected, items);
    }
    return py::reinterpret_steal<py::object>(sequence);
}

std::uint64_t to_unsigned(py::handle item, std::uint64_t most, const std::string& what, std::size_t place) {
    const auto number = py::reinterpret_steal<py::object>(PyNumber_Index(item.ptr()));
    if (!number) {
        PyErr_Clear();
        wrong_type(text("{}[{}]", what, place), "an integer", item);
    }
    const std::uint64_t value = PyLong_AsUnsignedLongLong(number.ptr());
    const bool overflow = PyErr_Occurred() != nullptr;
    PyErr_Clear();
    if (overflow || value > most) {
        raise_invalid(text("{}[{}]: {} is not between 0 and {}", what, place, py::str(number).cast<std::string>(), most));
    }
    return value;
}

std::string_view view_of(py::handle item) {
    return {PyBytes_AS_STRING(item.ptr()), static_cast<std::size_t>(PyBytes_GET_SIZE(item.ptr()))};
}

std::string to_text(py::handle item, const std::string& what) {
    if (PyUnicode_Check(item.ptr()) == 0) wrong_type(what, "str", item);
    return item.cast<std::string>();
}

// The items of a tuple (or list) of exactly `count`.
py::object tuple_of(py::handle item, Py_ssize_t count, const std::string& what, const char* expected) {
    py::object parts = iterable(item, what, expected);
    if (PySequence_Fast_GET_SIZE(parts.ptr()) != count) {
        throw py::type_error(text("{}: expected {}, got {} items", what, expected, PySequence_Fast_GET_SIZE(parts.ptr())));
    }
    return parts;
}

}  // namespace

Ids to_ids(py::handle items, const std::string& what, bool none_allowed) {
    const py::object list = iterable(items, what, "a list of block ids");
    Ids out;
    out.reserve(static_cast<std::size_t>(PySequence_Fast_GET_SIZE(list.ptr())));
    for (const py::handle item : list) {
        const bool none = none_allowed && item.is_none();
        out.push_back(none ? kNoBlock : static_cast<std::uint32_t>(to_unsigned(item, kNoBlock - 1, what, out.size())));
    }
    return out;
}

Indices to_indices(py::handle items, const std::string& what) {
    const py::object list = iterable(items, what, "a list of integers");
    Indices out;
    out.reserve(static_cast<std::size_t>(PySequence_Fast_GET_SIZE(list.ptr())));
    for (const py::handle item : list) out.push_back(to_unsigned(item, UINT64_MAX, what, out.size()));
    return out;
}

Hashes to_hashes(py::handle items, const std::string& what) {
    const py::object list = iterable(items, what, "a list of bytes");
    Hashes out;
    out.owners.reserve(static_cast<std::size_t>(PySequence_Fast_GET_SIZE(list.ptr())));
    out.views.reserve(out.owners.capacity());
    for (const py::handle item : list) {
        if (PyBytes_Check(item.ptr()) == 0) wrong_type(text("{}[{}]", what, out.views.size()), "bytes", item);
        out.views.push_back(view_of(item));
        out.owners.push_back(py::reinterpret_borrow<py::object>(item));
    }
    return out;
}

LeaseId to_lease(py::handle bytes, const std::string& what) {
    if (PyBytes_Check(bytes.ptr()) == 0) wrong_type(what, "bytes", bytes);
    const std::string_view view = view_of(bytes);
    LeaseId lease{};
    if (view.size() != lease.size()) {
        raise_invalid(view.empty() ? "query lease id must be non-empty"
                                   : text("query lease id must be {} bytes, got {}", lease.size(), view.size()));
    }
    std::memcpy(lease.data(), view.data(), lease.size());
    return lease;
}

py::bytes from_lease(const std::optional<LeaseId>& lease) {
    return lease ? py::bytes(reinterpret_cast<const char*>(lease->data()), lease->size()) : py::bytes();
}

std::uint32_t to_kind(const std::string& name) {
    for (std::uint32_t kind = 0; kind < PEGA_MEMORY_KINDS; ++kind) {
        if (name == kKinds[kind]) return kind;
    }
    raise_invalid(text("memory of kind \"{}\" is not known; there are: host, gpu, file, remote", name));
}

const char* kind_name(std::uint32_t kind) { return kind < PEGA_MEMORY_KINDS ? kKinds[kind] : "unknown"; }

Saves::Saves(py::handle items) {
    constexpr const char* kExpected = "a tuple of layer name, block ids and block hashes";
    for (const py::handle item : iterable(items, "saves", "a list")) {
        const std::string what = text("saves[{}]", layers.size());
        const py::object parts = tuple_of(item, 3, what, kExpected);
        names.push_back(to_text(parts[py::int_(0)], what + ": layer name"));
        ids.push_back(to_ids(parts[py::int_(1)], what + ": block ids"));
        hashes.push_back(to_hashes(parts[py::int_(2)], what + ": block hashes"));
        layers.push_back({names.back(), ids.back(), hashes.back().views});
    }
}

Loads::Loads(py::handle layer_groups, py::handle items) {
    for (const py::handle group : iterable(layer_groups, "layer_groups", "a list")) {
        const std::string what = text("layer_groups[{}]", names.size());
        auto& texts = names.emplace_back();
        for (const py::handle name : iterable(group, what, "a list of layer names")) texts.push_back(to_text(name, what));
        groups.emplace_back(name_views.emplace_back(texts.begin(), texts.end()));
    }
    for (const py::handle item : iterable(items, "loads", "a list")) {
        const std::string what = text("loads[{}]", loads.size());
        const py::object parts = tuple_of(item, 2, what, "a tuple of lease and block ids by group");
        const LeaseId lease = to_lease(parts[py::int_(0)], what + ": lease");
        auto& by_group = targets.emplace_back();
        for (const py::handle list : iterable(parts[py::int_(1)], what, "a list of lists of block ids"))
            by_group.emplace_back(ids.emplace_back(to_ids(list, what + ": block ids", true)));
        loads.push_back({lease, by_group});
    }
}

}  // namespace pegaflow::python
