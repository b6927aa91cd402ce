#include "cuda_module.hpp"

#include <ATen/Context.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <fmt/format.h>

#include <dlfcn.h>
#include <link.h>

#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <mutex>
#include <string>
#include <string_view>

#include <outrider/core/error.hpp>

namespace outrider {
namespace {

constexpr const char* kFile = "liboutrider_cuda.so";

std::atomic<const cuda::Module*> opened_module{nullptr};

/// The folder of the program or library that this code is in; empty: not known.
std::filesystem::path own_folder() {
    static const char anchor = 0;
    Dl_info info{};
    link_map* map = nullptr;
    if (dladdr1(&anchor, &info, reinterpret_cast<void**>(&map), RTLD_DL_LINKMAP) == 0) return {};
    std::error_code error;
    std::filesystem::path file = map->l_name;
    if (file.empty()) file = std::filesystem::read_symlink("/proc/self/exe", error);
    return error ? std::filesystem::path() : file.parent_path();
}

std::string why_not() {
    const char* said = dlerror();
    return said == nullptr ? "for no reason given" : said;
}

void* open_library(const std::filesystem::path& path) { return dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL); }

/// The library outrider_cuda beside this one, or where the system looks for libraries; null: it is nowhere.
void* find_module(std::string& name) {
    if (const char* said = std::getenv("OUTRIDER_CUDA_MODULE")) {
        name = said;
        if (name == "none") return nullptr;
        void* handle = open_library(name);
        require(handle != nullptr, ErrorKind::not_supported, "OUTRIDER_CUDA_MODULE: {}", why_not());
        return handle;
    }
    const std::filesystem::path folder = own_folder();
    for (const std::filesystem::path& place : {folder / kFile, folder.parent_path() / kFile}) {
        std::error_code error;
        if (folder.empty() || !std::filesystem::exists(place, error)) continue;
        name = place.string();
        void* handle = open_library(place);
        require(handle != nullptr, ErrorKind::not_supported, "{}", why_not());
        return handle;
    }
    name = kFile;
    void* handle = open_library(kFile);
    if (handle != nullptr) return handle;
    const std::string why = why_not();
    require(why.find("No such file") != std::string::npos && why.starts_with(kFile), ErrorKind::not_supported, "{}",
            why);
    return nullptr;
}

const cuda::Module* open_module() {
    std::string name;
    void* handle = find_module(name);
    if (handle == nullptr) return nullptr;
    const auto entry = reinterpret_cast<cuda::ModuleEntry>(dlsym(handle, cuda::kModuleEntry));
    const cuda::Module* module = entry == nullptr ? nullptr : entry(cuda::kModuleInterface);
    require(module != nullptr, ErrorKind::not_supported,
            "{} belongs to another version of outrider; build and install both together, or set "
            "OUTRIDER_CUDA_MODULE=none to do without it",
            name);
    return module;
}

/// Registers LibTorch's CUDA part, unless the process is linked with it. Before anything asks LibTorch for CUDA, which
/// remembers the answer.
void open_torch(at::Device device) {
    if (at::CUDAHooksRegistry()->Has("CUDAHooks")) return;
    const void* handle = dlopen("libtorch_cuda.so", RTLD_NOW | RTLD_GLOBAL);
    require(
        handle != nullptr, ErrorKind::not_supported,
        "device {}: LibTorch's CUDA part cannot be opened: {}. Expected libtorch_cuda.so beside libtorch_cpu.so, and "
        "NVIDIA's libraries that it needs (in outrider's source folder cmake/install_dependencies.sh --cuda "
        "installs them; elsewhere name their folders in LD_LIBRARY_PATH). Use cpu otherwise",
        device.str(), why_not());
}

}  // namespace

void open_device(at::Device device) {
    if (!device.is_cuda()) return;
    static std::mutex mutex;
    const std::lock_guard lock(mutex);
    open_torch(device);
    if (opened_module == nullptr) opened_module = open_module();
    const cuda::Module* module = opened_module;
    const std::string why = module == nullptr ? std::string() : module->why_none();
    require(at::hasCUDA(), ErrorKind::not_supported,
            "device {}: no CUDA device is to be had{}{}; expected a machine with an NVIDIA GPU and its driver "
            "(nvidia-smi lists what it sees). Use cpu otherwise",
            device.str(), why.empty() ? "" : ": ", why);
    const int devices = at::detail::getCUDAHooks().deviceCount();
    require(device.index() < devices, ErrorKind::not_supported, "device {}: this machine has {}; expected cuda:0{}",
            device.str(), devices == 1 ? "one CUDA device" : fmt::format("{} CUDA devices", devices),
            devices == 1 ? "" : fmt::format(" to cuda:{}", devices - 1));
}

const cuda::Module* cuda_module() { return opened_module; }

std::string card(at::Device device) {
    const cuda::Module* module = device.is_cuda() ? cuda_module() : nullptr;
    return module == nullptr ? device.str() : module->card(device.has_index() ? device.index() : 0);
}

}  // namespace outrider
