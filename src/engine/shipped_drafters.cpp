// Where drafters lie that were installed with the library, or stand in the source folder that it was built in.
#include <ATen/Parallel.h>
#include <dlfcn.h>

#include <cstdlib>
#include <filesystem>
#include <system_error>
#include <vector>

#include <outrider/engine.hpp>

namespace outrider {
namespace {

namespace fs = std::filesystem;

/// The file that a function was loaded from; empty where the system does not say it in full.
fs::path file_of(void* function) {
    Dl_info info{};
    if (dladdr(function, &info) == 0 || info.dli_fname == nullptr) return {};
    const fs::path file = info.dli_fname;
    return file.is_absolute() ? file.lexically_normal() : fs::path();
}

/// The folder so many above the one that holds `file`.
fs::path above(const fs::path& file, int folders) {
    fs::path folder = file.parent_path();
    for (; folders > 0; --folders) folder = folder.parent_path();
    return folder;
}

/// `folder` behind the places, where there is one that is not among them.
void add(std::vector<fs::path>& places, const fs::path& folder) {
    std::error_code error;
    if (folder.is_relative() || !fs::is_directory(folder, error)) return;
    for (const fs::path& place : places)
        if (fs::equivalent(place, folder, error)) return;
    places.push_back(folder);
}

}  // namespace

std::vector<fs::path> shipped_drafters() {
    std::vector<fs::path> places;
    if (const char* place = std::getenv("OUTRIDER_DRAFTERS"); place && *place) places.emplace_back(place);
    std::error_code error;
    const fs::path program = fs::read_symlink("/proc/self/exe", error);
    // bin/PROGRAM, lib/liboutrider.so, lib/ARCHITECTURE/liboutrider.so; build/PRESET/PROGRAM,
    // build/PRESET/tests/PROGRAM
    for (const fs::path& file : {program, file_of(reinterpret_cast<void*>(&shipped_drafters))})
        for (const int up : {1, 2, 3}) {
            if (file.empty()) continue;
            if (up < 3) add(places, above(file, up) / "share/outrider/drafters");
            if (up > 1) add(places, above(file, up) / "examples/drafters");
        }
    // An archive is part of a program that lies anywhere; its LibTorch may be the package's, lib/outrider/libtorch/lib.
    const fs::path torch = file_of(reinterpret_cast<void*>(&at::get_num_threads));
    if (above(torch, 1).filename() == "libtorch" && above(torch, 2).filename() == "outrider")
        for (const int up : {4, 5}) add(places, above(torch, up) / "share/outrider/drafters");
    return places;
}

}  // namespace outrider
