// The trap device itself: what it computes, what it counts, and that it catches what it is for.
#include "trap_device.hpp"

#include "child_process.hpp"

#include <ATen/ATen.h>

#include <catch2/catch_test_macros.hpp>
#include <string>

using namespace outrider;

namespace {

const at::Device kTrap(at::kPrivateUse1, 0);

at::Tensor on_device(const at::Tensor& cpu) { return cpu.to(kTrap); }

}  // namespace

TEST_CASE("The trap device computes what the CPU computes, and counts it by stage") {
    trap::start();
    const at::Tensor a = at::arange(12, at::kFloat).view({3, 4}), b = at::ones({4, 2});
    const at::Tensor x = on_device(a), y = on_device(b);
    trap::clear_counts();
    {
        const trap::Trapping trapping;
        at::Tensor product;
        {
            const trap::Stage stage("product");
            product = at::silu(x.mm(y)) + 1;
        }
        {
            const trap::Stage stage("read");
            CHECK(at::equal(product.cpu(), at::silu(a.mm(b)) + 1));
            CHECK(product.select(0, 0).select(0, 0).item<float>() == (at::silu(a.mm(b)) + 1)[0][0].item<float>());
        }
        {
            const trap::Stage stage("write");
            const at::Tensor pinned = at::empty({8}, at::TensorOptions().dtype(at::kFloat).pinned_memory(true));
            CHECK(pinned.is_pinned());
            at::Tensor target = at::empty({8}, at::TensorOptions().device(kTrap));
            target.copy_(pinned, true);
            target.copy_(at::zeros({8}));
        }
    }
    const trap::Counts product = trap::counts_of("product"), read = trap::counts_of("read"),
                       write = trap::counts_of("write");
    CHECK(product.operations == 3);
    CHECK(product.names.at("mm.out") == 1);
    CHECK((product.to_host == 0 && product.to_device == 0 && product.allocations == 3));
    CHECK((read.operations == 0 && read.to_host == 2 && read.to_host_bytes == 6 * 4 + 4));
    CHECK((write.to_device == 2 && write.to_device_bytes == 64 && write.blocking_to_device == 1));
}

TEST_CASE("Freed blocks are used again, and only new ones are fresh") {
    trap::start();
    {
        const at::Tensor first = at::empty({3000}, at::TensorOptions().device(kTrap));
    }
    trap::clear_counts();
    const std::size_t before = trap::in_use();
    {
        const trap::Stage stage("again");
        for (int i = 0; i < 5; ++i) {
            const at::Tensor again = at::empty({3000}, at::TensorOptions().device(kTrap));
            CHECK(trap::in_use() == before + 12288);
        }
    }
    CHECK(trap::in_use() == before);
    CHECK((trap::counts_of("again").allocations == 5 && trap::counts_of("again").fresh == 0));
}

TEST_CASE("A host that touches device memory is caught, with the stage where it did") {
    trap::start();
    const at::Tensor x = on_device(at::ones({16}));
    const auto* raw = static_cast<const float*>(x.storage().data());
    const auto [fine, nothing] = trap::in_child([&] {
        const trap::Trapping trapping;
        (void)x.sum().item<float>();
    });
    CHECK((fine == 0 && nothing.empty()));
    const auto [read, said] = trap::in_child([&] {
        const trap::Trapping trapping;
        const trap::Stage stage("a planted read");
        volatile float seen = raw[3];
        (void)seen;
    });
    CHECK(read == trap::kFaultStatus);
    CHECK(said.find("the host touched device memory") != std::string::npos);
    CHECK(said.find("a planted read") != std::string::npos);
    const auto [wrote, line] = trap::in_child([&] {
        const trap::Trapping trapping;
        const trap::Stage stage("a planted write");
        *const_cast<volatile float*>(raw) = 2.0F;
    });
    CHECK(wrote == trap::kFaultStatus);
    CHECK(line.find("a planted write") != std::string::npos);
}

TEST_CASE("The capture lint names what a graph could not hold, and traces tell rounds apart") {
    trap::start();
    const at::Tensor x = on_device(at::ones({64})), y = on_device(at::ones({64}));
    at::Tensor out = at::empty_like(x);
    const at::Tensor pinned = at::ones({64}, at::TensorOptions().pinned_memory(true));
    const auto round = [&](const at::Tensor& of) {
        trap::CaptureLint lint;
        out.copy_(pinned, true);
        at::add_out(out, of, out);
        return std::pair(lint.faults, lint.trace);
    };
    CHECK(round(x).first.empty());
    CHECK(round(x).second == round(x).second);
    CHECK(round(x).second != round(y).second);  // another address
    trap::CaptureLint lint;
    out.copy_(at::ones({64}));
    (void)out.cpu();
    (void)out.sum().item<float>();
    const at::Tensor large = at::empty({777777}, x.options());
    CHECK(lint.faults.size() == 4);
}
