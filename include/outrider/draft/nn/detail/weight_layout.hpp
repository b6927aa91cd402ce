// Names and sizes that the lists of weights of all kinds have in common.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include <outrider/draft/nn/detail/drafter_files.hpp>

namespace outrider {

/// Output matrices that a config of K heads asks for.
[[nodiscard]] inline std::size_t output_count(HeadOutput output, std::int64_t heads) {
    return output == HeadOutput::own ? static_cast<std::size_t>(heads) : output == HeadOutput::shared ? 1U : 0U;
}

/// "output.3", or "output" where all heads share one.
[[nodiscard]] inline std::string output_name(const char* base, std::size_t index, std::size_t count) {
    return count == 1 ? std::string(base) : std::string(base) + "." + std::to_string(index);
}

/// Rows of the output matrices; -1 with an empty vocabulary.
[[nodiscard]] inline std::int64_t output_rows(const std::vector<TokenId>& vocabulary) {
    return vocabulary.empty() ? -1 : static_cast<std::int64_t>(vocabulary.size());
}

}  // namespace outrider
