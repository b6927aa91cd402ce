// The comparison of keys.
#pragma once

#include <cstddef>
#include <string>

namespace outrider::serve {

/// Whether they are equal, in a time that depends on the length of `given` alone.
[[nodiscard]] inline bool same_secret(const std::string& given, const std::string& secret) noexcept {
    volatile unsigned char different = given.size() == secret.size() ? 0 : 1;
    for (std::size_t i = 0; i < given.size(); ++i) {
        const char other = secret.empty() ? '\0' : secret[i % secret.size()];
        different = static_cast<unsigned char>(different | (given[i] ^ other));
    }
    return different == 0;
}

}  // namespace outrider::serve
