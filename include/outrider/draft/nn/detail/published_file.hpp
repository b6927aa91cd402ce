// Reading a file of published heads: its tensors by name, each asked for once, and the hints beside it.
#pragma once

#include <ATen/core/Tensor.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <limits>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <outrider/core/error.hpp>

#include <outrider/draft/nn/detail/aten.hpp>
#include <outrider/formats/detail/json_text.hpp>
#include <outrider/formats/detail/named_tensors.hpp>

namespace outrider::published {

namespace fs = std::filesystem;

/// What Medusa's tensors begin with in a whole model.
inline constexpr std::string_view kMedusaPrefix = "medusa_head.";

/// The config.json beside the weights, whose values are hints: null counts as left out. Throws Error for a file that is
/// no JSON object and for values of another kind, with file and key.
class Hints {
public:
    explicit Hints(const fs::path& path)
        : name_(((fs::is_directory(path) ? path : path.parent_path()) / "config.json").string()) {
        if (!fs::exists(name_)) return;
        file_ = outrider::detail::read_json(name_);
        require(file_.is_object(), ErrorKind::damaged_file, "{}: expected a JSON object", name_);
    }

    [[nodiscard]] bool has(const char* key) const { return !outrider::detail::field(file_, key).is_null(); }

    [[nodiscard]] double number(const char* key, double fallback) const {
        const nlohmann::json& value = outrider::detail::field(file_, key);
        if (value.is_null()) return fallback;
        if (!value.is_number() || !(value.get<double>() > 0)) wrong(key, value, "a positive number");
        return value.get<double>();
    }

    [[nodiscard]] std::int64_t integer(const char* key, std::int64_t fallback) const {
        const nlohmann::json& value = outrider::detail::field(file_, key);
        if (value.is_null()) return fallback;
        if (!value.is_number_integer() || value > std::numeric_limits<std::int32_t>::max())
            wrong(key, value, "an integer");
        return value.get<std::int64_t>();
    }

    [[nodiscard]] std::string text(const char* key, const char* fallback) const {
        const nlohmann::json& value = outrider::detail::field(file_, key);
        if (value.is_null()) return fallback;
        if (!value.is_string()) wrong(key, value, "a string");
        return value.get<std::string>();
    }

private:
    [[noreturn]] void wrong(const char* key, const nlohmann::json& value, const char* expected) const {
        fail(ErrorKind::damaged_file, "{}: {} is {}; expected {}", name_, key, outrider::detail::shown(value),
             expected);
    }

    std::string name_;
    nlohmann::json file_;
};

inline NamedTensors open_heads(const fs::path& path) {
    if (fs::is_directory(path))
        for (const char* name :
             {"medusa_lm_head.safetensors", "medusa_lm_head.pt", "hydra_lm_head.safetensors", "hydra_lm_head.pt"})
            if (fs::exists(path / name)) return NamedTensors::open(path / name);
    try {
        return NamedTensors::open(path);
    } catch (const Error& error) {
        fail(ErrorKind::damaged_file,
             "{}: these look like published heads (a file, or a folder whose config.json names no kind), and cannot be "
             "read: {}. "
             "Expected medusa_lm_head or hydra_lm_head (.safetensors or .pt), a whole model with heads, or the folder "
             "of a "
             "drafter that was trained here",
             path.string(), error.what());
    }
}

/// Takes tensors by name and knows at the end which were never asked for.
class Taker {
public:
    explicit Taker(const NamedTensors& file, std::string_view prefix) : file_(&file) {
        for (const std::string& name : file.names())
            if (name.starts_with(prefix)) left_.insert(name);
    }

    /// In the file's own type where that is a real one of 16 bits, else float32.
    at::Tensor operator()(const std::string& name) {
        require(file_->has(name), ErrorKind::damaged_file, "{}: tensor {} is missing", file_->name(), name);
        left_.erase(name);
        const SafeTensor& tensor = file_->tensor(name);
        if (tensor.dtype != SafeDtype::f16 && tensor.dtype != SafeDtype::bf16) {
            at::Tensor out = aten::empty(tensor.shape, at::kFloat);
            to_floats(tensor, {out.mutable_data_ptr<float>(), static_cast<std::size_t>(out.numel())});
            return out;
        }
        at::Tensor out = aten::empty(tensor.shape, tensor.dtype == SafeDtype::f16 ? at::kHalf : at::kBFloat16);
        std::memcpy(out.mutable_data_ptr(), tensor.data.data(), tensor.data.size());
        return out;
    }

    void ignore(const std::string& name) { left_.erase(name); }
    [[nodiscard]] bool has(const std::string& name) const { return file_->has(name); }
    [[nodiscard]] const std::string& file() const { return file_->name(); }

    void finish() const {
        require(left_.empty(), ErrorKind::damaged_file,
                "{}: tensor {} is unknown; this is not a checkpoint of a known form", file_->name(),
                left_.empty() ? "" : *left_.begin());
    }

private:
    const NamedTensors* file_;
    std::set<std::string> left_;
};

/// The numbers at the front of a name behind `prefix`: "3.0.linear.weight" gives {3, 0} of at most `most`.
inline std::vector<std::int64_t> numbers_of(std::string_view name, std::string_view prefix, std::size_t most) {
    std::vector<std::int64_t> numbers;
    if (!name.starts_with(prefix)) return numbers;
    const char *at = name.data() + prefix.size(), *end = name.data() + name.size();
    while (numbers.size() < most && at < end) {
        std::int64_t number = 0;
        const auto result = std::from_chars(at, end, number);
        if (result.ec != std::errc{} || number < 0 || result.ptr == end || *result.ptr != '.') break;
        numbers.push_back(number);
        at = result.ptr + 1;
    }
    return numbers;
}

/// Largest first and second number of the names behind `prefix` that end in `suffix`; -1: none.
inline std::pair<std::int64_t, std::int64_t> extent(const NamedTensors& file, std::string_view prefix,
                                                    std::string_view suffix) {
    std::pair<std::int64_t, std::int64_t> most{-1, -1};
    for (const std::string& name : file.names()) {
        const auto numbers = numbers_of(name, prefix, 2);
        if (numbers.size() < 2 || !name.ends_with(suffix)) continue;
        most = {std::max(most.first, numbers[0]), std::max(most.second, numbers[1])};
    }
    return most;
}

/// What the names of Medusa's tensors begin with in this file.
inline std::string_view medusa_prefix(const NamedTensors& file) {
    const std::vector<std::string> names = file.names();
    const bool whole = std::any_of(names.begin(), names.end(),
                                   [](const std::string& name) { return name.starts_with(kMedusaPrefix); });
    return whole ? kMedusaPrefix : std::string_view{};
}

}  // namespace outrider::published
