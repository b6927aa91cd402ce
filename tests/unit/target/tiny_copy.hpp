// A copy of the small Hugging Face model that a test may change.
#pragma once

#include <filesystem>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include <outrider/formats/detail/safetensors.hpp>

#include "../temporary_folder.hpp"

namespace outrider::testing {

/// In a folder of its own, gone when the test ends.
class TinyCopy {
public:
    TinyCopy() { std::filesystem::copy(kFrom, path()); }

    [[nodiscard]] const std::filesystem::path& path() const { return folder_.path(); }

    void configure(const std::string& key, const nlohmann::json& value) const {
        std::ifstream stream(path() / "config.json");
        nlohmann::json config = nlohmann::json::parse(stream);
        config[key] = value;
        (void)folder_.write("config.json", config.dump());
    }

    /// Rewrites the weights as `change` leaves them; views of the original's.
    template <typename Change>
    void rewrite(Change&& change) const {
        const SafeTensors file = SafeTensors::open(kFrom);
        std::vector<SafeTensorView> tensors;
        for (const SafeTensor& t : file.tensors()) tensors.push_back({t.name, t.dtype, t.shape, t.data});
        std::forward<Change>(change)(tensors);
        write_safetensors(path() / "model.safetensors", tensors);
    }

private:
    static inline const std::filesystem::path kFrom = OUTRIDER_SOURCE_DIR "/tests/golden/model/tiny-hf";
    test::TemporaryFolder folder_;
};

}  // namespace outrider::testing
