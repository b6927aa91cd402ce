// The small Hugging Face model with four layers: its two, and copies of them in the other order.
#pragma once

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <outrider/io/safetensors.hpp>

namespace outrider::testing {

/// In a folder of the test's own.
class DeepFolder {
public:
    static constexpr std::int64_t kLayers = 4;

    DeepFolder() : path_(std::filesystem::temp_directory_path() / fmt::format("outrider-deep-{}", ::getpid())) {
        const std::filesystem::path from = OUTRIDER_SOURCE_DIR "/tests/golden/model/tiny-hf";
        std::filesystem::remove_all(path_);
        std::filesystem::copy(from, path_);
        std::ifstream stream(from / "config.json");
        nlohmann::json config = nlohmann::json::parse(stream);
        config["num_hidden_layers"] = kLayers;
        std::ofstream(path_ / "config.json") << config.dump();
        const SafeTensors file = SafeTensors::open(from);
        std::vector<SafeTensorView> tensors;
        for (const SafeTensor& t : file.tensors()) {
            tensors.push_back({t.name, t.dtype, t.shape, t.data});
            for (const int layer : {0, 1}) {
                const std::string own = fmt::format("model.layers.{}.", layer);
                if (!t.name.starts_with(own)) continue;
                const std::string copy = fmt::format("model.layers.{}.{}", 3 - layer, t.name.substr(own.size()));
                tensors.push_back({copy, t.dtype, t.shape, t.data});
            }
        }
        write_safetensors(path_ / "model.safetensors", tensors);
    }
    ~DeepFolder() { std::filesystem::remove_all(path_); }
    DeepFolder(const DeepFolder&) = delete;
    DeepFolder& operator=(const DeepFolder&) = delete;

    const std::filesystem::path& path() const { return path_; }

private:
    std::filesystem::path path_;
};

}  // namespace outrider::testing
