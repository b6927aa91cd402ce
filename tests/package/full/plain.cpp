// Links io and the kernels without a tensor library, and sees that a loader's error says what is wrong.
#include <outrider/core/error.hpp>
#include <outrider/io/gguf.hpp>

#include <cstdio>
#include <string_view>

int main() {
    try {
        (void)outrider::GgufFile::open("nowhere.gguf");
    } catch (const outrider::Error& error) {
        std::printf("%s\n", error.what());
        return std::string_view(error.what()).find("nowhere.gguf") != std::string_view::npos ? 0 : 1;
    }
    return 1;
}
