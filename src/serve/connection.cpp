#include "serve/connection.hpp"

#include <netdb.h>
#include <poll.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <utility>

namespace outrider::serve {
namespace {

using namespace std::chrono_literals;

thread_local Connection* handled = nullptr;

void name_end(int socket, int (*ask)(int, sockaddr*, socklen_t*), std::string& ip, int& port) {
    sockaddr_storage name{};
    socklen_t size = sizeof name;
    char host[NI_MAXHOST], service[NI_MAXSERV];
    auto* address = reinterpret_cast<sockaddr*>(&name);
    if (ask(socket, address, &size) != 0) return;
    if (name.ss_family != AF_INET && name.ss_family != AF_INET6) return;
    if (getnameinfo(address, size, host, sizeof host, service, sizeof service, NI_NUMERICHOST | NI_NUMERICSERV) != 0)
        return;
    ip = host, port = std::atoi(service);
}

int local_name(int socket, sockaddr* name, socklen_t* size) { return ::getsockname(socket, name, size); }
int remote_name(int socket, sockaddr* name, socklen_t* size) { return ::getpeername(socket, name, size); }

/// Reads and forgets, until the other side closes, for so long at most; 0: what is there. Closing with bytes unread
/// would reset the connection, and the answer might be lost on its way.
void drain(int socket, std::chrono::milliseconds patience) {
    constexpr int kMost = 4096;  // pieces
    const auto end = std::chrono::steady_clock::now() + patience;
    ::shutdown(socket, SHUT_WR);
    char piece[16384];
    for (int i = 0; i < kMost; ++i) {
        const auto left = std::chrono::ceil<std::chrono::milliseconds>(end - std::chrono::steady_clock::now());
        pollfd state{socket, POLLIN, 0};
        if (left > 0ms && ::poll(&state, 1, static_cast<int>(left.count())) <= 0) return;
        if (left <= 0ms && patience > 0ms) return;
        if (::recv(socket, piece, sizeof piece, MSG_DONTWAIT) <= 0) return;
    }
}

void hide_ranges(std::string& head) {
    for (std::size_t line = head.find("\r\n"); line != std::string::npos; line = head.find("\r\n", line + 2))
        if (::strncasecmp(head.c_str() + line + 2, "range:", 6) == 0) head[line + 2] = 'x';
}

}  // namespace

Connection::Connection(socket_t socket, const ConnectionLimits& limits)
    : socket_(socket), limits_(limits), outer_(std::exchange(handled, this)) {}

Connection::~Connection() {
    handled = outer_;
    if (answered_ && !whole_) drain(socket_, fault_ == Fault::slow ? 0ms : 2000ms);
    ::shutdown(socket_, SHUT_RDWR);
    ::close(socket_);
}

Connection& Connection::current() noexcept { return *handled; }

bool Connection::ready(short events, std::chrono::milliseconds most, Clock::time_point end) const {
    const Clock::time_point until = std::min(end, Clock::now() + most);
    while (true) {
        const auto left = std::chrono::ceil<std::chrono::milliseconds>(until - Clock::now());
        pollfd state{socket_, events, 0};
        const int found = ::poll(&state, 1, static_cast<int>(std::max<std::int64_t>(0, left.count())));
        if (found > 0) return true;
        if (found < 0 && errno != EINTR) return false;
        if (left <= 0ms) return false;
    }
}

bool Connection::wait_request(const std::function<bool()>& go_on) {
    in_body_ = whole_ = answered_ = false;
    fault_ = Fault::none;
    left_ = limits_.head;
    const Clock::time_point end = Clock::now() + limits_.idle;
    while (at_ == filled_ && !ready(POLLIN, 50ms, end))
        if (Clock::now() >= end || !go_on()) return false;
    arrived_by_ = Clock::now() + limits_.arrival;
    answered_by_ = arrived_by_ + limits_.answer;
    return true;
}

bool Connection::read_head() {
    head_.clear(), head_at_ = 0;
    for (char byte = 0; !head_.ends_with("\r\n\r\n"); head_ += byte)
        if (receive(&byte, 1) <= 0) return false;
    hide_ranges(head_);
    return true;
}

void Connection::begin_body() noexcept { in_body_ = true, left_ = limits_.body; }

bool Connection::gone() const {
    pollfd state{socket_, POLLRDHUP, 0};
    return ::poll(&state, 1, 0) > 0 && (state.revents & (POLLRDHUP | POLLHUP | POLLERR)) != 0;
}

bool Connection::is_readable() const {
    return head_at_ < head_.size() || at_ < filled_ || ready(POLLIN, limits_.stalled, arrived_by_);
}

bool Connection::is_writable() const { return ready(POLLOUT, limits_.stalled, answered_by_) && !gone(); }

ssize_t Connection::read(char* out, size_t size) {
    if (head_at_ == head_.size()) return receive(out, size);
    const std::size_t taken = head_.copy(out, size, head_at_);
    head_at_ += taken;
    return static_cast<ssize_t>(taken);
}

ssize_t Connection::receive(char* out, size_t size) {
    if (left_ == 0) {
        fault_ = in_body_ ? Fault::long_body : Fault::long_head;
        return -1;
    }
    // Bytes that come steadily and too slowly never make a read wait: the clock is asked before each.
    if (at_ == filled_) {
        if (Clock::now() >= arrived_by_ || !ready(POLLIN, limits_.stalled, arrived_by_)) {
            fault_ = Fault::slow;
            return -1;
        }
        const ssize_t got = ::recv(socket_, buffer_.data(), buffer_.size(), 0);
        if (got <= 0) return got;
        at_ = 0, filled_ = static_cast<std::size_t>(got);
    }
    const std::size_t taken = std::min({size, filled_ - at_, left_});
    std::memcpy(out, buffer_.data() + at_, taken);
    at_ += taken, left_ -= taken;
    return static_cast<ssize_t>(taken);
}

ssize_t Connection::write(const char* bytes, size_t size) {
    if (!is_writable()) return -1;
    answered_ = true;
    return ::send(socket_, bytes, size, MSG_NOSIGNAL | MSG_DONTWAIT);
}

void Connection::get_remote_ip_and_port(std::string& ip, int& port) const { name_end(socket_, remote_name, ip, port); }
void Connection::get_local_ip_and_port(std::string& ip, int& port) const { name_end(socket_, local_name, ip, port); }

}  // namespace outrider::serve
