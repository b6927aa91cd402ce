// The program `outrider`. Exit status: 0 done, 1 failed, 2 wrong usage.
#include <c10/util/Exception.h>
#include <fmt/format.h>

#include <cstdio>
#include <exception>

#include "arguments.hpp"

int main(int argc, char** argv) {
    const auto parsed = outrider::cli::parse(argc, argv);
    if (const int* status = std::get_if<int>(&parsed)) return *status;
    try {
        const auto& command = std::get<outrider::cli::Command>(parsed);
        return std::visit([](const auto& arguments) { return outrider::cli::run(arguments); }, command);
    } catch (const c10::Error& error) {
        fmt::print(stderr, "outrider: {}\n", error.what_without_backtrace());
    } catch (const std::exception& error) {
        fmt::print(stderr, "outrider: {}\n", error.what());
    }
    return 1;
}
