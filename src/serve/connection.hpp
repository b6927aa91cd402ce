// One connection of the HTTP server, with bounds on what it may take before anything is known of who is there.
#pragma once

#include <httplib.h>

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

namespace outrider::serve {

struct ConnectionLimits {
    std::size_t head = std::size_t{64} << 10;   ///< bytes of a request's first line and headers together
    std::size_t body = std::size_t{4} << 20;    ///< bytes of a body as it is sent, the marks of its chunks too
    std::chrono::milliseconds idle{5'000};      ///< until a request begins
    std::chrono::milliseconds stalled{10'000};  ///< for a read or a write that makes no progress
    std::chrono::milliseconds arrival{20'000};  ///< from a request's first byte to its last
    std::chrono::milliseconds answer{610'000};  ///< from then to the last byte of its answer
};

/// cpp-httplib bounds the time of a single read, and the length that a body announces. A byte now and then, a line
/// without an end and a body in chunks pass both; here a request has so many bytes and so much time. Owns the socket.
class Connection final : public httplib::Stream {
public:
    /// Why reading ended before the request did.
    enum class Fault : std::uint8_t { none, long_head, long_body, slow };

    Connection(socket_t socket, const ConnectionLimits& limits);
    Connection(const Connection&) = delete;
    Connection& operator=(const Connection&) = delete;
    /// Closes it. What the client still sends of a refused request is read for a moment, or it would not see why.
    ~Connection() override;

    /// Of the request that this thread handles: cpp-httplib does all of it on one thread, and does not hand it on.
    [[nodiscard]] static Connection& current() noexcept;

    /// Waits for the first byte of the next request, as long as `go_on`. False: none came.
    [[nodiscard]] bool wait_request(const std::function<bool()>& go_on);
    /// Reads its first line and headers, which `read` then gives. False: they did not come whole, or are too long.
    /// What is asked of ranges is hidden: cpp-httplib matches it by std::regex, which takes stack for each character,
    /// and would write a text as often as it is asked for.
    [[nodiscard]] bool read_head();
    /// The bytes of a body may follow.
    void begin_body() noexcept;
    /// Nothing of the request is left to be read, so that another one may follow.
    void end_request() noexcept { whole_ = true; }
    [[nodiscard]] bool whole() const noexcept { return whole_; }
    [[nodiscard]] bool answered() const noexcept { return answered_; }
    [[nodiscard]] Fault fault() const noexcept { return fault_; }
    /// Whether the other side has closed.
    [[nodiscard]] bool gone() const;

    bool is_readable() const override;
    ssize_t read(char* out, size_t size) override;
    ssize_t write(const char* bytes, size_t size) override;
    void get_remote_ip_and_port(std::string& ip, int& port) const override;
    void get_local_ip_and_port(std::string& ip, int& port) const override;
    socket_t socket() const override { return socket_; }
    // What some versions of cpp-httplib ask for, and others do not know.
    bool is_writable() const;
    bool wait_readable() const { return is_readable(); }
    bool wait_writable() const { return is_writable(); }
    time_t duration() const { return 0; }

private:
    using Clock = std::chrono::steady_clock;

    [[nodiscard]] ssize_t receive(char* out, size_t size);
    [[nodiscard]] bool ready(short events, std::chrono::milliseconds most, Clock::time_point end) const;

    socket_t socket_;
    ConnectionLimits limits_;
    Clock::time_point arrived_by_, answered_by_;
    std::size_t left_ = 0;  ///< bytes that may still be read
    bool in_body_ = false, whole_ = false, answered_ = false;
    Fault fault_ = Fault::none;
    std::string head_;
    std::size_t head_at_ = 0;
    std::array<char, 4096> buffer_;  ///< what comes behind it
    std::size_t at_ = 0, filled_ = 0;
    Connection* outer_;  ///< that this thread handled before
};

}  // namespace outrider::serve
