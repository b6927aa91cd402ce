// A request that the server does not serve, in the words of the API.
#pragma once

#include <nlohmann/json.hpp>

#include <stdexcept>
#include <string>
#include <utility>

namespace outrider::serve {

/// Becomes {"error": {"message", "type", "param", "code"}} with this HTTP status.
class ApiError : public std::runtime_error {
public:
    ApiError(int status, std::string code, const std::string& message, std::string param = {})
        : std::runtime_error(message), status_(status), code_(std::move(code)), param_(std::move(param)) {}

    [[nodiscard]] int status() const noexcept { return status_; }
    [[nodiscard]] nlohmann::ordered_json body() const {
        const char* type = status_ == 401   ? "authentication_error"
                           : status_ == 429 ? "rate_limit_error"
                           : status_ < 500  ? "invalid_request_error"
                                            : "server_error";
        const nlohmann::ordered_json param = param_.empty() ? nlohmann::ordered_json() : nlohmann::ordered_json(param_);
        return {{"error", {{"message", what()}, {"type", type}, {"param", param}, {"code", code_}}}};
    }

private:
    int status_;
    std::string code_, param_;
};

}  // namespace outrider::serve
