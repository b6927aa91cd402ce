#include "serve/http_server.hpp"

#include <sys/socket.h>
#include <unistd.h>

#include <condition_variable>
#include <functional>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

namespace outrider::serve {
namespace {

constexpr std::string_view kFull =
    "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 1\r\nContent-Type: application/json\r\n"
    "Content-Length: 145\r\n\r\n"
    R"({"error":{"message":"as many connections wait as may; try again later, or raise --connections",)"
    R"("type":"server_error","param":null,"code":"busy"}})";
constexpr std::string_view kLongHead =
    "HTTP/1.1 431 Request Header Fields Too Large\r\nConnection: close\r\nContent-Type: application/json\r\n"
    "Content-Length: 154\r\n\r\n"
    R"({"error":{"message":"the first line and headers are too long; send fewer and shorter ones",)"
    R"("type":"invalid_request_error","param":null,"code":"too_long"}})";
constexpr std::string_view kSlow =
    "HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: 152\r\n\r\n"
    R"({"error":{"message":"the first line and headers did not arrive in time; send them faster",)"
    R"("type":"invalid_request_error","param":null,"code":"timeout"}})";

thread_local bool refusing = false;  // this thread runs a connection that nobody has room for

/// Threads, and room for the connections that wait for one, made once: taking one needs no memory.
class Workers final : public httplib::TaskQueue {
public:
    using Job = std::function<void()>;
    /// Nothing in older versions of cpp-httplib, bool in later ones.
    using Taken = decltype(std::declval<httplib::TaskQueue&>().enqueue(std::declval<Job>()));

    explicit Workers(std::size_t threads) : room_(4 * threads) {
        threads_.reserve(threads);
        try {
            while (threads_.size() < threads) threads_.emplace_back([this] { work(); });
        } catch (...) {  // the system gives no more: those that there are will do
            if (threads_.empty()) throw;
        }
    }

    Taken enqueue(Job job) override {
        if (add(job)) return Taken(true);
        refusing = true;
        job();
        refusing = false;
        return Taken(true);
    }

    void shutdown() override {
        {
            const std::scoped_lock lock(mutex_);
            ending_ = true;
        }
        news_.notify_all();
        for (std::thread& thread : threads_) thread.join();
    }

private:
    bool add(Job& job) {
        {
            const std::scoped_lock lock(mutex_);
            if (waiting_ == room_.size()) return false;
            room_[(first_ + waiting_++) % room_.size()] = std::move(job);
        }
        news_.notify_one();
        return true;
    }

    void work() {
        while (true) {
            Job job;
            {
                std::unique_lock lock(mutex_);
                news_.wait(lock, [&] { return waiting_ > 0 || ending_; });
                if (waiting_ == 0) return;
                job = std::exchange(room_[first_], nullptr);
                first_ = (first_ + 1) % room_.size(), --waiting_;
            }
            job();
        }
    }

    std::mutex mutex_;
    std::condition_variable news_;
    std::vector<Job> room_;
    std::size_t first_ = 0, waiting_ = 0;
    bool ending_ = false;
    std::vector<std::thread> threads_;
};

void refuse(socket_t socket) {
    (void)::send(socket, kFull.data(), kFull.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    char piece[4096];
    while (::recv(socket, piece, sizeof piece, MSG_DONTWAIT) > 0) {  // or the answer is lost
    }
    ::shutdown(socket, SHUT_WR);
    ::close(socket);
}

void refuse_head(Connection& connection) {
    if (connection.fault() == Connection::Fault::none) return;  // it is closed
    const std::string_view text = connection.fault() == Connection::Fault::slow ? kSlow : kLongHead;
    (void)connection.write(text.data(), text.size());
}

}  // namespace

HttpServer::HttpServer(const ConnectionLimits& limits, std::size_t connections) : limits_(limits) {
    new_task_queue = [connections] { return new Workers(connections); };
}

template <typename Self>
bool HttpServer::process(Self& self, Connection& connection, bool last, bool& closed) {
    if constexpr (requires { self.process_request(connection, last, closed, nullptr); }) {
        return self.process_request(connection, last, closed, nullptr);
    } else {
        std::string remote, local;
        int remote_port = 0, local_port = 0;
        connection.get_remote_ip_and_port(remote, remote_port);
        connection.get_local_ip_and_port(local, local_port);
        return self.process_request(connection, remote, remote_port, local, local_port, last, closed, nullptr);
    }
}

bool HttpServer::process_and_close_socket(socket_t socket) {
    if (refusing) return refuse(socket), false;
    Connection connection(socket, limits_);
    // What is thrown here, by a handler or by memory that is short while an answer is written, would end the program:
    // it ends this connection.
    try {
        for (std::size_t left = keep_alive_max_count_; left > 0 && svr_sock_ != INVALID_SOCKET; --left) {
            bool closed = false;
            if (!connection.wait_request([this] { return svr_sock_ != INVALID_SOCKET; })) return true;
            if (!connection.read_head()) return refuse_head(connection), false;
            const bool fine = process(*this, connection, left == 1, closed);
            if (fine && !closed && connection.whole()) continue;
            return fine;
        }
    } catch (...) {
        return false;
    }
    return true;
}

}  // namespace outrider::serve
