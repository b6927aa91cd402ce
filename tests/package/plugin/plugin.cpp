// C functions over outrider. Threads of the kernels' team, thread-local memory, vtables and exceptions all cross the
// border of this library's code and outrider's.
#include <outrider/core/detail/version.hpp>
#include <outrider/core/error.hpp>
#include <outrider/target/llama_model.hpp>
#include <outrider/target/llama_verifier.hpp>

#include <cstring>

#define PLUGIN_API extern "C" __attribute__((visibility("default")))

PLUGIN_API const char* plugin_version() { return outrider::kVersion; }

/// Loads `path`; how wide its hidden states are, or -1 with the error's text in `why`.
PLUGIN_API long plugin_hidden(const char* path, char* why, std::size_t size) {
    try {
        const outrider::LlamaModel model = outrider::LlamaModel::load(path);
        const outrider::LlamaVerifier verifier(model);
        return static_cast<long>(model.head().hidden);
    } catch (const outrider::Error& error) {
        std::strncpy(why, error.what(), size - 1);
        return -1;
    }
}
