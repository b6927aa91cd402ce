// outrider compact: a trained drafter in its small form.
#include <fmt/format.h>

#include <cstdint>
#include <filesystem>

#include <outrider/draft/nn/detail/compact_drafter.hpp>

#include "arguments.hpp"
#include "output.hpp"

namespace outrider::cli {
namespace {

double megabytes(const std::filesystem::path& folder) {
    return static_cast<double>(std::filesystem::file_size(folder / "model.safetensors") +
                               std::filesystem::file_size(folder / "config.json")) *
           1e-6;
}

}  // namespace

int run(const CompactArguments& arguments) {
    compact_drafter(arguments.drafter, arguments.output);
    print(fmt::format("{:.1f} MB to {:.1f} MB\n", megabytes(arguments.drafter), megabytes(arguments.output)));
    return 0;
}

}  // namespace outrider::cli
