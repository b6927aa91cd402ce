#include "trap_device.hpp"

#include <ATen/ATen.h>
#include <ATen/EmptyTensor.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/view_native.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/library.h>

#include <fmt/ranges.h>

#include <execinfo.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <set>
#include <unordered_map>
#include <utility>

namespace outrider::trap {
namespace {

constexpr std::size_t kReserve = std::size_t{4} << 30;  // of addresses; pages come when they are touched
constexpr std::size_t kBlock = 512, kPage = std::size_t{1} << 21;

/// All memory of the device, and who may look at it.
struct Arena {
    char* base = nullptr;
    std::size_t used = 0, live = 0, most = kReserve;
    int depth = 0;  // of device operations
    bool trapping = false;
    std::mutex mutex;
    std::map<std::size_t, std::set<void*>> free;  // blocks by size; the lowest is used first, so that rounds repeat
    std::unordered_map<void*, std::size_t> sizes;
    std::map<const char*, std::int64_t> made;  // blocks asked for while a CaptureLint looks, and which one each is
    std::int64_t asked = 0;                    // of these

    void protect(int how) const {
        if (!trapping || used == 0) return;
        if (mprotect(base, (used + kPage - 1) / kPage * kPage, how) != 0) std::perror("mprotect"), std::abort();
    }
    [[nodiscard]] bool holds(const void* at) const { return at >= base && at < base + kReserve; }
};

Arena arena;
std::string stage_name = "outside";
std::map<std::string, Counts> all_counts;
CaptureLint* lint = nullptr;

Counts& now() { return all_counts[stage_name]; }

void note_fault(const std::string& what) {
    if (lint != nullptr) lint->faults.push_back(stage_name + ": " + what);
}

/// Device memory is open while one lives.
struct Unlock {
    Unlock() {
        if (arena.depth++ == 0) arena.protect(PROT_READ | PROT_WRITE);
    }
    ~Unlock() {
        if (--arena.depth == 0) arena.protect(PROT_NONE);
    }
};

void on_fault(int, siginfo_t* info, void*) {
    dprintf(STDERR_FILENO, "*** %s at %p in stage %s\n",
            arena.holds(info->si_addr) ? "the host touched device memory" : "segmentation fault", info->si_addr,
            stage_name.c_str());
    void* frames[40];
    backtrace_symbols_fd(frames, backtrace(frames, 40), STDERR_FILENO);
    _exit(kFaultStatus);
}

// ---- Memory.

struct DeviceAllocator final : c10::Allocator {
    c10::DataPtr allocate(std::size_t n) override {
        const std::lock_guard lock(arena.mutex);
        const std::size_t bytes = std::max(kBlock, (n + kBlock - 1) / kBlock * kBlock);
        ++now().allocations;
        TORCH_CHECK(arena.live + bytes <= arena.most, "the trap device is out of memory");
        void* at = nullptr;
        if (const auto found = arena.free.find(bytes); found != arena.free.end() && !found->second.empty()) {
            at = found->second.extract(found->second.begin()).value();
        } else {
            TORCH_CHECK(arena.used + bytes < kReserve, "the trap device is out of memory");
            ++now().fresh;
            note_fault(fmt::format("a block of {} bytes had to be made", bytes));
            at = arena.base + arena.used;
            arena.used += bytes;
            arena.protect(arena.depth > 0 ? PROT_READ | PROT_WRITE : PROT_NONE);
        }
        arena.sizes[at] = bytes;
        arena.live += bytes;
        if (lint != nullptr) arena.made[static_cast<char*>(at)] = arena.asked++;
        return {at, at, &release, c10::Device(c10::kPrivateUse1, 0)};
    }
    static void release(void* at) {
        const std::lock_guard lock(arena.mutex);
        const std::size_t bytes = arena.sizes[at];
        arena.live -= bytes;
        arena.free[bytes].insert(at);
    }
    c10::DeleterFnPtr raw_deleter() const override { return &release; }
    void copy_data(void* to, const void* from, std::size_t count) const override {
        const Unlock unlock;
        std::memcpy(to, from, count);
    }
};

/// Host memory that the device may read while the host goes on.
struct PinnedAllocator final : c10::Allocator {
    c10::DataPtr allocate(std::size_t n) override {
        const std::size_t bytes = std::max(kBlock, (n + kBlock - 1) / kBlock * kBlock);
        void* at = std::aligned_alloc(kBlock, bytes);
        TORCH_CHECK(at != nullptr, "no memory to pin");
        blocks()[static_cast<char*>(at)] = bytes;
        return {at, at, &release, c10::Device(c10::kCPU)};
    }
    static void release(void* at) {
        if (at == nullptr) return;
        blocks().erase(static_cast<char*>(at));
        std::free(at);
    }
    c10::DeleterFnPtr raw_deleter() const override { return &release; }
    void copy_data(void* to, const void* from, std::size_t count) const override { std::memcpy(to, from, count); }

    static bool holds(const void* at) {
        auto after = blocks().upper_bound(static_cast<char*>(const_cast<void*>(at)));
        if (after == blocks().begin()) return false;
        --after;
        return static_cast<const char*>(at) < after->first + after->second;
    }

private:
    static std::map<char*, std::size_t>& blocks() {
        static auto* all = new std::map<char*, std::size_t>;  // tensors of static lifetime may end after it
        return *all;
    }
};

DeviceAllocator device_allocator;
PinnedAllocator pinned_allocator;

struct Hooks final : at::PrivateUse1HooksInterface {
    bool isBuilt() const override { return true; }
    bool isAvailable() const override { return true; }
    bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
    bool isPinnedPtr(const void* at) const override { return PinnedAllocator::holds(at); }
    c10::Allocator* getPinnedMemoryAllocator() const override { return &pinned_allocator; }
};

// ---- Operations.

bool ours(const at::Tensor& t) { return t.defined() && t.device().type() == c10::kPrivateUse1; }

char* address(const at::Tensor& t) {
    return static_cast<char*>(t.storage().mutable_data()) +
           t.storage_offset() * static_cast<std::int64_t>(t.element_size());
}

/// A CPU tensor over the same memory.
at::Tensor on_host(const at::Tensor& t) {
    return at::from_blob(address(t), t.sizes(), t.strides(), at::TensorOptions().dtype(t.scalar_type()));
}

at::Tensor make(c10::IntArrayRef size, c10::IntArrayRef stride, at::ScalarType type) {
    return at::detail::empty_strided_generic(size, stride, &device_allocator,
                                             c10::DispatchKeySet(c10::DispatchKey::PrivateUse1), type);
}

at::Tensor to_device(const at::Tensor& cpu) {
    at::Tensor t = make(cpu.sizes(), cpu.strides(), cpu.scalar_type());
    const Unlock unlock;
    on_host(t).copy_(cpu);
    return t;
}

/// A graph has memory of its own for what is made in it, so such blocks go by the order in which they are asked for.
std::string place_of(const at::Tensor& t) {
    if (!ours(t)) return "host";
    const char* at = address(t);
    auto after = arena.made.upper_bound(at);
    if (after != arena.made.begin() && at < (--after)->first + arena.sizes[const_cast<char*>(after->first)])
        return fmt::format("made {} + {}", after->second, at - after->first);
    return fmt::format("{}", at - arena.base);
}

void trace(const std::string& name, const std::vector<at::Tensor>& tensors) {
    if (lint == nullptr) return;
    std::string line = name;
    for (const at::Tensor& t : tensors) {
        line += fmt::format(" {} [{}] / [{}]", place_of(t), fmt::join(t.sizes(), " "), fmt::join(t.strides(), " "));
    }
    lint->trace.push_back(std::move(line));
}

void count(const std::string& name) {
    ++now().operations;
    ++now().names[name];
}

at::Tensor empty(c10::IntArrayRef size, std::optional<at::ScalarType> dtype, std::optional<at::Layout>,
                 std::optional<at::Device>, std::optional<bool>, std::optional<at::MemoryFormat> format) {
    return at::detail::empty_generic(size, &device_allocator, c10::DispatchKeySet(c10::DispatchKey::PrivateUse1),
                                     dtype.value_or(at::kFloat), format);
}
at::Tensor empty_strided(c10::IntArrayRef size, c10::IntArrayRef stride, std::optional<at::ScalarType> dtype,
                         std::optional<at::Layout>, std::optional<at::Device>, std::optional<bool>) {
    return make(size, stride, dtype.value_or(at::kFloat));
}

at::Tensor copy_from(const at::Tensor& from, const at::Tensor& to, bool non_blocking) {
    const auto bytes = static_cast<std::int64_t>(std::min(from.nbytes(), to.nbytes()));
    if (from.numel() == 0) return to;
    trace("copy", {from, to});
    const Unlock unlock;
    if (ours(from) && ours(to)) {
        count("copy on the device");
        on_host(to).copy_(on_host(from));
    } else if (ours(from)) {
        ++now().to_host, now().to_host_bytes += bytes;
        note_fault(fmt::format("a copy to the host of {} bytes", bytes));
        to.copy_(on_host(from));
    } else {
        const bool pinned = PinnedAllocator::holds(from.const_data_ptr());
        ++now().to_device, now().to_device_bytes += bytes;
        if (!pinned || !non_blocking) ++now().blocking_to_device;
        if (!pinned) note_fault(fmt::format("a copy from memory that is not pinned, of {} bytes", bytes));
        on_host(to).copy_(from);
    }
    return to;
}

at::Scalar local_scalar(const at::Tensor& self) {
    ++now().to_host, now().to_host_bytes += static_cast<std::int64_t>(self.element_size());
    ++now().names["item"];
    note_fault("item()");
    const Unlock unlock;
    return on_host(self).item();
}

at::Tensor as_strided(const at::Tensor& self, c10::IntArrayRef size, c10::IntArrayRef stride,
                      std::optional<std::int64_t> offset) {
    ++now().views;
    return at::native::as_strided_tensorimpl(self, size, stride, offset);
}
at::Tensor view(const at::Tensor& self, c10::IntArrayRef size) {
    ++now().views;
    return at::native::view(self, size);
}
at::Tensor reshape_alias(const at::Tensor& self, c10::IntArrayRef size, c10::IntArrayRef stride) {
    ++now().views;
    return at::native::_reshape_alias(self, size, stride);
}

/// An output that the operation is to give a size.
bool unsized(const at::Tensor& t) { return t.dim() == 1 && t.numel() == 0; }

/// One operation on CPU tensors over the device's memory.
class Launch {
public:
    Launch(const c10::OperatorHandle& op, torch::jit::Stack* stack) : op_(op), stack_(stack) {
        const std::size_t n = op.schema().arguments().size();
        given_.assign(stack->end() - static_cast<std::ptrdiff_t>(n), stack->end());
        torch::jit::drop(*stack, n);
    }

    void run() {
        const std::string& overload = op_.operator_name().overload_name;
        const std::string& whole = op_.operator_name().name;
        const std::string name =
            (whole.starts_with("aten::") ? whole.substr(6) : whole) + (overload.empty() ? "" : "." + overload);
        count(name);
        note(name);
        const Unlock unlock;
        used_.resize(given_.size());
        for (std::size_t i = 0; i < given_.size(); ++i) push(i);
        op_.redispatchBoxed(c10::DispatchKeySet(c10::DispatchKey::CPU), stack_);
        const std::size_t m = op_.schema().returns().size();
        const std::vector<c10::IValue> got(stack_->end() - static_cast<std::ptrdiff_t>(m), stack_->end());
        torch::jit::drop(*stack_, m);
        for (std::size_t r = 0; r < m; ++r) give_back(r, got[r]);
    }

private:
    void note(const std::string& name) const {
        if (lint == nullptr) return;
        std::vector<at::Tensor> tensors;
        for (const c10::IValue& v : given_) {
            if (v.isTensor() && v.toTensor().defined()) tensors.push_back(v.toTensor());
            if (v.isTensorList())
                for (const at::Tensor& t : v.toTensorVector()) tensors.push_back(t);
        }
        trace(name, tensors);
    }

    void push(std::size_t i) {
        const c10::IValue& v = given_[i];
        if (v.isTensor() && ours(v.toTensor())) {
            const at::Tensor& t = v.toTensor();
            const auto* alias = op_.schema().arguments()[i].alias_info();
            const bool to_size = alias != nullptr && alias->isWrite() && unsized(t);
            used_[i] = to_size ? at::empty({0}, at::TensorOptions().dtype(t.scalar_type())) : on_host(t);
            stack_->emplace_back(used_[i]);
        } else if (v.isTensorList()) {
            c10::List<at::Tensor> list;
            for (const at::Tensor& t : v.toTensorVector()) list.push_back(ours(t) ? on_host(t) : t);
            stack_->emplace_back(list);
        } else if (v.isOptionalTensorList()) {
            c10::List<std::optional<at::Tensor>> list;
            for (const std::optional<at::Tensor>& t : v.toOptionalTensorList().vec())
                list.push_back(t && ours(*t) ? std::optional(on_host(*t)) : t);
            stack_->emplace_back(list);
        } else if (v.isDevice()) {
            stack_->emplace_back(c10::Device(at::kCPU));
        } else {
            stack_->push_back(v);
        }
    }

    void give_back(std::size_t r, const c10::IValue& got) {
        const auto* alias = op_.schema().returns()[r].alias_info();
        if (alias != nullptr && alias->isWrite()) {
            stack_->emplace_back(written(*alias));
        } else if (got.isTensor() && got.toTensor().defined()) {
            stack_->emplace_back(to_device(got.toTensor()));
        } else if (got.isTensorList()) {
            c10::List<at::Tensor> list;
            for (const at::Tensor& t : got.toTensorVector()) list.push_back(to_device(t));
            stack_->emplace_back(list);
        } else {
            stack_->push_back(got);
        }
    }

    /// The argument that the operation wrote to; where it came empty, with the size that the operation gave it.
    at::Tensor written(const c10::AliasInfo& alias) const {
        for (std::size_t i = 0; i < given_.size(); ++i) {
            const auto* of = op_.schema().arguments()[i].alias_info();
            if (of == nullptr || of->beforeSets() != alias.beforeSets()) continue;
            const at::Tensor& t = given_[i].toTensor();
            if (unsized(t) && used_[i].defined() && used_[i].numel() > 0) {
                const at::Tensor sized = to_device(used_[i]);
                t.unsafeGetTensorImpl()->set_storage_keep_dtype(sized.storage());
                t.unsafeGetTensorImpl()->set_sizes_and_strides(sized.sizes(), sized.strides());
            }
            return t;
        }
        TORCH_CHECK(false, "no argument for an output of ", op_.schema().name());
    }

    const c10::OperatorHandle& op_;
    torch::jit::Stack* stack_;
    std::vector<c10::IValue> given_;
    std::vector<at::Tensor> used_;
};

void fallback(const c10::OperatorHandle& op, torch::jit::Stack* stack) { Launch(op, stack).run(); }

TORCH_LIBRARY_IMPL(_, PrivateUse1, m) { m.fallback(torch::CppFunction::makeFromBoxedFunction<&fallback>()); }
TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
    m.impl("empty.memory_format", &empty);
    m.impl("empty_strided", &empty_strided);
    m.impl("_copy_from", &copy_from);
    m.impl("_local_scalar_dense", &local_scalar);
    m.impl("as_strided", &as_strided);
    m.impl("view", &view);
    m.impl("_reshape_alias", &reshape_alias);
    // One kernel on CUDA; without these they would be counted as the parts of their portable bodies.
    m.impl("_fused_rms_norm", torch::CppFunction::makeFromBoxedFunction<&fallback>());
    m.impl("scaled_dot_product_attention", torch::CppFunction::makeFromBoxedFunction<&fallback>());
}

/// One stream, on which everything has happened when the call returns: automatic differentiation, which has a thread
/// for the device, records events and waits for them.
struct Guard final : c10::impl::NoOpDeviceGuardImpl<c10::DeviceType::PrivateUse1> {
    static c10::Device device() { return {c10::DeviceType::PrivateUse1, 0}; }
    static c10::Stream stream() { return c10::Stream(c10::Stream::DEFAULT, device()); }

    c10::Device exchangeDevice(c10::Device) const override { return device(); }
    c10::Device getDevice() const override { return device(); }
    c10::Stream getStream(c10::Device) const noexcept override { return stream(); }
    c10::Stream getDefaultStream(c10::Device) const override { return stream(); }
    c10::Stream getNewStream(c10::Device, int) const override { return stream(); }
    c10::Stream exchangeStream(c10::Stream) const noexcept override { return stream(); }
    void record(void**, const c10::Stream&, c10::DeviceIndex, c10::EventFlag) const override {}
    void block(void*, const c10::Stream&) const override {}
    bool queryEvent(void*) const override { return true; }
};
C10_REGISTER_GUARD_IMPL(PrivateUse1, Guard);

void register_device() {
    void* at = mmap(nullptr, kReserve, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED) std::perror("mmap"), std::abort();
    arena.base = static_cast<char*>(at);
    madvise(at, kReserve, MADV_HUGEPAGE);  // few pages to lock and unlock around each operation
    c10::register_privateuse1_backend("trap");
    at::RegisterPrivateUse1HooksInterface(new Hooks);  // ATen keeps it
    c10::SetAllocator(c10::kPrivateUse1, &device_allocator);
}

}  // namespace

Counts& Counts::operator+=(const Counts& other) {
    operations += other.operations, views += other.views;
    to_device += other.to_device, to_device_bytes += other.to_device_bytes;
    to_host += other.to_host, to_host_bytes += other.to_host_bytes;
    blocking_to_device += other.blocking_to_device;
    allocations += other.allocations, fresh += other.fresh;
    for (const auto& [name, times] : other.names) names[name] += times;
    return *this;
}

void start() {
    static std::once_flag once;
    std::call_once(once, register_device);
}

Trapping::Trapping() {
    struct sigaction action{};
    action.sa_sigaction = &on_fault;
    action.sa_flags = SA_SIGINFO;
    sigaction(SIGSEGV, &action, nullptr);
    sigaction(SIGBUS, &action, nullptr);
    arena.trapping = true;
    arena.protect(PROT_NONE);
}
Trapping::~Trapping() {
    arena.protect(PROT_READ | PROT_WRITE);
    arena.trapping = false;
}

Stage::Stage(std::string name) : before_(std::exchange(stage_name, std::move(name))) {}
Stage::~Stage() { stage_name = std::move(before_); }

const std::map<std::string, Counts>& counts() { return all_counts; }
Counts counts_of(const std::string& stage) {
    const auto found = all_counts.find(stage);
    return found == all_counts.end() ? Counts{} : found->second;
}
void clear_counts() { all_counts.clear(); }
std::size_t in_use() { return arena.live; }

MemoryLimit::MemoryLimit(std::size_t bytes) { arena.most = bytes; }
MemoryLimit::~MemoryLimit() { arena.most = kReserve; }

CaptureLint::CaptureLint() {
    arena.made.clear(), arena.asked = 0;
    lint = this;
}
CaptureLint::~CaptureLint() { lint = nullptr; }

}  // namespace outrider::trap
