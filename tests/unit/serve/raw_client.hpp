// An HTTP client by hand, which can do what well-behaved ones cannot: leave in the middle, read slowly, say nothing.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>

namespace outrider::test {

/// A connection of its own to this machine, and what is said on it. Closes it when it is destroyed.
class RawClient {
public:
    /// `missing`: bytes that are announced and never sent.
    RawClient(int port, const std::string& path, const std::string& body, std::size_t missing = 0) : RawClient(port) {
        send("POST " + path +
             " HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n" +
             "Content-Length: " + std::to_string(body.size() + missing) + "\r\n\r\n" + body);
    }
    /// A connection alone; `six`: to ::1.
    explicit RawClient(int port, bool six = false) : socket_(::socket(six ? AF_INET6 : AF_INET, SOCK_STREAM, 0)) {
        sockaddr_in place{};
        place.sin_family = AF_INET;
        place.sin_port = htons(static_cast<std::uint16_t>(port));
        place.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        sockaddr_in6 place6{};
        place6.sin6_family = AF_INET6;
        place6.sin6_port = place.sin_port;
        place6.sin6_addr = in6addr_loopback;
        const auto* address =
            six ? reinterpret_cast<const sockaddr*>(&place6) : reinterpret_cast<const sockaddr*>(&place);
        if (::connect(socket_, address, six ? sizeof place6 : sizeof place) != 0) {
            ::close(socket_);
            throw std::runtime_error("nobody listens");
        }
    }
    RawClient(const RawClient&) = delete;
    RawClient& operator=(const RawClient&) = delete;
    ~RawClient() { ::close(socket_); }

    /// Reads until the server closes, or until so many bytes are there; sleeps before every piece.
    RawClient& read(std::size_t most = std::string::npos, std::chrono::microseconds sleep = {}) {
        char piece[512];
        while (all_.size() < most) {
            if (sleep.count() > 0) std::this_thread::sleep_for(sleep);
            const auto size = ::recv(socket_, piece, sizeof piece, 0);
            if (size <= 0) break;
            all_.append(piece, static_cast<std::size_t>(size));
        }
        return *this;
    }

    /// Of what was read; 0: nothing.
    [[nodiscard]] int status() const { return all_.size() < 12 ? 0 : std::atoi(all_.c_str() + 9); }
    /// Chunks joined.
    [[nodiscard]] std::string body() const {
        const std::size_t head = all_.find("\r\n\r\n");
        if (head == std::string::npos) return {};
        std::string rest = all_.substr(head + 4);
        if (all_.find("Transfer-Encoding: chunked") >= head) return rest;
        std::string joined;
        for (std::size_t at = 0; at < rest.size();) {
            const std::size_t line = rest.find("\r\n", at);
            const auto size = std::strtoul(rest.c_str() + at, nullptr, 16);
            if (line == std::string::npos || size == 0) break;
            joined += rest.substr(line + 2, size);
            at = line + 2 + size + 2;
        }
        return joined;
    }

    /// Whether all of it was taken; a server that had enough takes no more, and `read` tells why.
    bool send(const std::string& bytes) const {
        for (std::size_t sent = 0; sent < bytes.size();) {
            const auto size = ::send(socket_, bytes.data() + sent, bytes.size() - sent, MSG_NOSIGNAL);
            if (size <= 0) return false;
            sent += static_cast<std::size_t>(size);
        }
        return true;
    }

private:
    int socket_;
    std::string all_;
};

}  // namespace outrider::test
