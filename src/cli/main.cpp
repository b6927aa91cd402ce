// The program `outrider`. Exit status: 0 done, 1 failed, 2 wrong usage, 128 + number of the signal that stopped it.
#include <fmt/format.h>

#include <exception>

#include "arguments.hpp"
#include "output.hpp"

namespace {

int run(int argc, char** argv) {
    const auto parsed = outrider::cli::parse(argc, argv);
    if (const int* status = std::get_if<int>(&parsed)) return *status;
    const auto& command = std::get<outrider::cli::Command>(parsed);
    const int status = std::visit([](const auto& arguments) { return outrider::cli::run(arguments); }, command);
    outrider::cli::flush_output();
    return status;
}

}  // namespace

int main(int argc, char** argv) {
    using outrider::cli::tell;
    outrider::cli::prepare_streams();
    try {
        return run(argc, argv);
    } catch (const std::exception& error) {
        tell(fmt::format("outrider: {}\n", error.what()));
    }
    return 1;
}
