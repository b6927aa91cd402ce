// usage: consumer MODEL. Loads the plugin, a model through it, and an error.
#include <dlfcn.h>

#include <cstdio>
#include <cstring>

int main(int argc, char** argv) {
    void* library = dlopen(PLUGIN, RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) {
        std::printf("%s\n", dlerror());
        return 1;
    }
    const auto hidden = reinterpret_cast<long (*)(const char*, char*, std::size_t)>(dlsym(library, "plugin_hidden"));
    char why[512] = "";
    if (hidden == nullptr || hidden("nowhere.gguf", why, sizeof why) != -1) return 1;
    std::printf("%s\n", why);
    if (std::strstr(why, "nowhere.gguf") == nullptr || argc < 2) return 1;
    const long width = hidden(argv[1], why, sizeof why);
    std::printf("%s: hidden states of %ld\n", argv[1], width);
    return width > 0 ? 0 : 1;
}
