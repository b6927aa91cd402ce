// cpp-httplib's server over connections that are bounded, with a bounded number of them.
#pragma once

#include <httplib.h>

#include <cstddef>

#include "serve/connection.hpp"

namespace outrider::serve {

class HttpServer final : public httplib::Server {
public:
    /// `connections` are served beside each other, four times as many wait; more are answered with 503.
    HttpServer(const ConnectionLimits& limits, std::size_t connections);

private:
    bool process_and_close_socket(socket_t socket) override;

    /// cpp-httplib's own steps for one request, whatever arguments its version wants.
    template <typename Self>
    static bool process(Self& self, Connection& connection, bool last, bool& closed);

    ConnectionLimits limits_;
};

}  // namespace outrider::serve
