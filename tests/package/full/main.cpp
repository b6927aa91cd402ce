// Uses one thing of each layer that can be used without a model file.
#include <outrider/outrider.hpp>

#include <cstdio>
#include <string_view>

const char* version_of_the_other_unit();

int main() {
    if (std::string_view(version_of_the_other_unit()) != outrider::kVersion) return 1;
    try {
        (void)outrider::LlamaModel::load("nowhere.gguf");
    } catch (const outrider::Error& error) {
        std::printf("%s\n", error.what());
        return std::string_view(error.what()).find("nowhere.gguf") != std::string_view::npos ? 0 : 1;
    }
    return 1;
}
