// The other end of a connection: whether it is still there.
#pragma once

#include <string>

namespace outrider::serve {

/// While a handler waits for the decoder, the library that speaks HTTP does not look at the connection, and does not
/// tell which one it is. The peer's address and port do.
class Peer {
public:
    /// Of a connection of this process that is open while the object lives. Where it cannot be found (a system without
    /// /proc), the peer counts as there.
    Peer(const std::string& address, int port, int local_port);

    /// Whether the other side has closed the connection.
    [[nodiscard]] bool gone() const;

private:
    int socket_ = -1;
};

}  // namespace outrider::serve
