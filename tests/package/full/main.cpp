// Uses one thing of each layer that can be used without a model file. With the path of the quickstart's model: an
// engine finds the drafter that was installed, with no help of its host.
#include <outrider/outrider.hpp>

#include <cstdio>
#include <filesystem>
#include <string_view>

const char* version_of_the_other_unit();

namespace {

constexpr int kSkipped = 77;

int find_drafter_of(const char* model) {
    if (!std::filesystem::exists(model)) {
        std::printf("skipped: no model at %s; cmake/install_dependencies.sh --model fetches it\n", model);
        return kSkipped;
    }
    const auto engine = outrider::Engine::open({.model = model});
    std::printf("%s\n", engine.drafter().c_str());
    const bool found = engine.drafter().find("share/outrider/drafters/smollm2-135m-") != std::string::npos;
    return found && engine.drafter().ends_with("+ngram") ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
    if (std::string_view(version_of_the_other_unit()) != outrider::kVersion) return 1;
    try {
        if (argc > 1) return find_drafter_of(argv[1]);
        (void)outrider::LlamaModel::load("nowhere.gguf");
    } catch (const outrider::Error& error) {
        std::printf("%s\n", error.what());
        return std::string_view(error.what()).find("nowhere.gguf") != std::string_view::npos ? 0 : 1;
    }
    return 1;
}
