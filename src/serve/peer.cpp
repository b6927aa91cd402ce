#include "serve/peer.hpp"

#include <netdb.h>
#include <poll.h>
#include <sys/socket.h>

#include <cstdlib>
#include <filesystem>
#include <system_error>

namespace outrider::serve {
namespace {

struct End {
    std::string address;
    int port = 0;
};

/// The local (getsockname) or remote (getpeername) end of a socket; port 0 for what is none.
End end_of(int socket, int (*ask)(int, sockaddr*, socklen_t*)) {
    sockaddr_storage name{};
    socklen_t size = sizeof name;
    char host[NI_MAXHOST], port[NI_MAXSERV];
    if (ask(socket, reinterpret_cast<sockaddr*>(&name), &size) != 0) return {};
    if (name.ss_family != AF_INET && name.ss_family != AF_INET6) return {};
    if (getnameinfo(reinterpret_cast<sockaddr*>(&name), size, host, sizeof host, port, sizeof port,
                    NI_NUMERICHOST | NI_NUMERICSERV) != 0)
        return {};
    return {host, std::atoi(port)};
}

int local_name(int socket, sockaddr* name, socklen_t* size) { return ::getsockname(socket, name, size); }
int remote_name(int socket, sockaddr* name, socklen_t* size) { return ::getpeername(socket, name, size); }

}  // namespace

Peer::Peer(const std::string& address, int port, int local_port) {
    std::error_code error;
    for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd", error)) {
        const int socket = std::atoi(entry.path().filename().c_str());
        const End remote = end_of(socket, remote_name);
        if (remote.port != port || remote.address != address || end_of(socket, local_name).port != local_port) continue;
        socket_ = socket;
        return;
    }
}

bool Peer::gone() const {
    if (socket_ < 0) return false;
    pollfd state{socket_, POLLRDHUP, 0};
    return ::poll(&state, 1, 0) > 0 && (state.revents & (POLLRDHUP | POLLHUP | POLLERR)) != 0;
}

}  // namespace outrider::serve
