// What the matrices of one target pass cost: every matrix of SmolLM2-135M's shapes, quantising the rows included, by
// weight format, rows and vector path, beside the memory and multiply rates of the machine.
//
//   kernels_pass [--isa NAME,..] [--format NAME,..] [--rows N,..] [--threads N] [--repeats N] [--json FILE]
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <map>
#include <memory>
#include <numeric>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include <outrider/core/detail/rng.hpp>
#include <outrider/core/error.hpp>
#include "kernels/isa.hpp"
#include "kernels/packed_linear.hpp"
#include <outrider/core/detail/thread_team.hpp>

using namespace outrider;

namespace {

constexpr int kLayers = 30;
constexpr WeightFormat kFileFormats[] = {WeightFormat::q4_0, WeightFormat::q4_1, WeightFormat::q5_0,
                                         WeightFormat::q5_1, WeightFormat::q8_0, WeightFormat::q4_k,
                                         WeightFormat::q5_k, WeightFormat::q6_k};

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

std::vector<std::string> split(const std::string& list) {
    std::vector<std::string> parts;
    std::stringstream stream(list);
    for (std::string part; std::getline(stream, part, ',');) parts.push_back(part);
    return parts;
}

/// `stored` is the published file's mix: q4_1 layers and a q8_0 output matrix.
PackedLinear random_matrix(const std::string& format, bool output, std::int64_t out, std::int64_t in, ThreadTeam& team,
                           std::uint64_t seed) {
    const RandomKey key(seed, 0, 0);
    for (const WeightFormat f : {WeightFormat::f32, WeightFormat::bf16, WeightFormat::int8}) {
        if (name(f) != format) continue;
        std::vector<float> weights(static_cast<std::size_t>(out * in));
        for (std::size_t i = 0; i < weights.size(); ++i)
            weights[i] = static_cast<float>(key.bits(i) >> 40) * 1e-8F - 0.08F;
        return PackedLinear::pack(f, weights, out, in, &team);
    }
    for (const WeightFormat f : kFileFormats) {
        if (name(f) != format && !(format == "stored" && f == (output ? WeightFormat::q8_0 : WeightFormat::q4_1)))
            continue;
        std::vector<std::byte> bytes(static_cast<std::size_t>(out * in / block_shape(f).values * block_shape(f).bytes));
        for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(key.bits(i) & 0x3b);
        return PackedLinear::pack_blocks(f, bytes, out, in, &team);
    }
    fail("kernels_pass: no format {}; take f32, bf16, int8, stored, q4_0, q4_1, q8_0, ...", format);
}

struct Layer {
    PackedLinear qkv, out, gate_up, down;
};

struct Model {
    std::vector<Layer> layers;
    PackedLinear output;

    Model(const std::string& format, ThreadTeam& team) {
        for (std::uint64_t i = 0; i < kLayers; ++i)
            layers.push_back({random_matrix(format, false, 576 + 192 + 192, 576, team, 4 * i),
                              random_matrix(format, false, 576, 576, team, 4 * i + 1),
                              random_matrix(format, false, 2 * 1536, 576, team, 4 * i + 2),
                              random_matrix(format, false, 576, 1536, team, 4 * i + 3)});
        output = random_matrix(format, true, 49152, 576, team, 1000);
    }

    [[nodiscard]] std::size_t bytes() const {
        std::size_t sum = output.bytes();
        for (const Layer& l : layers) sum += l.qkv.bytes() + l.out.bytes() + l.gate_up.bytes() + l.down.bytes();
        return sum;
    }
};

struct Buffers {
    std::vector<float> hidden, wide, logits;
    PackedRows rows;

    explicit Buffers(std::int64_t n)
        : hidden(static_cast<std::size_t>(n * 576), 0.5F),
          wide(static_cast<std::size_t>(n * 3072), 0.25F),
          logits(static_cast<std::size_t>(n * 49152)) {}
};

void pass(ThreadTeam& team, const Model& model, Buffers& b, std::int64_t n) {
    team.run([&](TeamMember& m) {
        const auto product = [&](const PackedLinear& w, const float* x, std::int64_t ldx, float* y) {
            b.rows.assign(m, x, n, w.in(), ldx, w.format());
            m.barrier();
            w.multiply(m, b.rows, y, w.out());
            m.barrier();
        };
        for (const Layer& l : model.layers) {
            product(l.qkv, b.hidden.data(), 576, b.wide.data());
            product(l.out, b.wide.data(), 576, b.hidden.data());
            product(l.gate_up, b.hidden.data(), 576, b.wide.data());
            product(l.down, b.wide.data(), 3072, b.hidden.data());
        }
        product(model.output, b.hidden.data(), 576, b.logits.data());
    });
}

/// Bytes a second that the team reads from memory: 96 MB in large pages, the best of many short runs.
double bandwidth(ThreadTeam& team) {
    constexpr std::size_t kBytes = std::size_t{96} << 20;
    const std::unique_ptr<std::uint64_t, decltype(&std::free)> data(
        static_cast<std::uint64_t*>(std::aligned_alloc(std::size_t{2} << 20, kBytes)), &std::free);
    require(data != nullptr, "kernels_pass: no memory for {} bytes", kBytes);
#if defined(__linux__)
    madvise(data.get(), kBytes, MADV_HUGEPAGE);
#endif
    std::fill_n(data.get(), kBytes / 8, 1);
    double best = 0;
    std::uint64_t total = 0;
    for (int repeat = 0; repeat < 30; ++repeat) {
        std::vector<std::uint64_t> sums(static_cast<std::size_t>(team.size()) * 8);
        const double start = now();
        team.run([&](TeamMember& m) {
            const auto range = m.range(static_cast<std::int64_t>(kBytes / 64));
            const std::uint64_t *p = data.get() + range.begin * 8, *end = data.get() + range.end * 8;
            std::uint64_t s[8] = {};
            for (; p < end; p += 8)
                for (int i = 0; i < 8; ++i) s[i] += p[i];
            sums[static_cast<std::size_t>(m.index()) * 8] = std::accumulate(s, s + 8, std::uint64_t{0});
        });
        best = std::max(best, static_cast<double>(kBytes) / (now() - start));
        total = std::accumulate(sums.begin(), sums.end(), std::uint64_t{0});
    }
    require(total == kBytes / 8, "kernels_pass: read {} words of {}", total, kBytes / 8);  // so that the sums are used
    return best;
}

/// Multiply-adds a second of one large product whose weights stay in the second-level cache.
double multiply_rate(ThreadTeam& team, const std::string& format) {
    const std::int64_t n = 24, in = 512, out = 512;
    const PackedLinear w = random_matrix(format, false, out, in, team, 1);
    std::vector<float> x(static_cast<std::size_t>(n * in), 0.5F), y(static_cast<std::size_t>(n * out));
    PackedRows rows;
    double best = 0;
    for (int repeat = 0; repeat < 20; ++repeat) {
        const double start = now();
        team.run([&](TeamMember& m) {
            rows.assign(m, x.data(), n, in, in, w.format());
            m.barrier();
            for (int i = 0; i < 20; ++i) w.multiply(m, rows, y.data(), out);
        });
        best = std::max(best, 20.0 * static_cast<double>(n * in * out) / (now() - start));
    }
    return best;
}

int run(const std::map<std::string, std::string>& options) {
    const auto option = [&](const std::string& key, const std::string& otherwise) {
        const auto it = options.find(key);
        return it == options.end() ? otherwise : it->second;
    };
    ThreadTeam team(std::stoi(option("--threads", "0")));
    const int repeats = std::stoi(option("--repeats", "9"));
    const auto formats = split(option("--format", "stored,int8,bf16"));
    const auto rows = split(option("--rows", "1,2,4,6,8,12,16,24,32,64"));
    std::vector<Isa> isas = available_isas();
    if (options.contains("--isa")) {
        const auto wanted = split(options.at("--isa"));
        std::erase_if(isas, [&](Isa i) { return std::find(wanted.begin(), wanted.end(), name(i)) == wanted.end(); });
    } else {
        isas.erase(isas.begin());  // scalar takes a second a pass
    }
    const double bytes_per_second = bandwidth(team);
    fmt::print("{} threads, memory {:.1f} GB/s\n", team.size(), bytes_per_second * 1e-9);
    std::string json =
        fmt::format("{{\"threads\": {}, \"bytes_per_second\": {:.4g}, \"rows\": [", team.size(), bytes_per_second);
    const char* comma = "";
    for (const std::string& format : formats) {
        const double start = now();
        const Model model(format, team);
        const auto megabytes = static_cast<double>(model.bytes()) * 1e-6;
        fmt::print("\n{}: {:.1f} MB made in {:.2f} s, {:.2f} ms to read\n", format, megabytes, now() - start,
                   megabytes / bytes_per_second * 1e9);
        std::map<std::pair<std::size_t, std::string>, double> best;
        for (int repeat = 0; repeat < repeats; ++repeat)  // arms alternate, so that noise hits all alike
            for (const std::string& n : rows) {
                Buffers buffers(std::stoll(n));
                for (std::size_t i = 0; i < isas.size(); ++i) {
                    force_isa(isas[i]);
                    pass(team, model, buffers, std::stoll(n));
                    const double begin = now();
                    pass(team, model, buffers, std::stoll(n));
                    double& least = best.try_emplace({i, n}, 1e9).first->second;
                    least = std::min(least, now() - begin);
                }
            }
        fmt::print("{:>8}", "ms");
        for (const std::string& n : rows) fmt::print("{:>8}", n);
        fmt::print("{:>12}\n", "G mult/s");
        for (std::size_t i = 0; i < isas.size(); ++i) {
            force_isa(isas[i]);
            const double rate = multiply_rate(team, format);
            fmt::print("{:>8}", name(isas[i]));
            for (const std::string& n : rows) {
                const double seconds = best.at({i, n});
                fmt::print("{:>8.2f}", seconds * 1e3);
                json += fmt::format(
                    "{}\n{{\"format\": \"{}\", \"isa\": \"{}\", \"rows\": {}, \"ms\": {:.4f}, "
                    "\"megabytes\": {:.2f}, \"multiplies_per_second\": {:.4g}}}",
                    comma, format, name(isas[i]), n, seconds * 1e3, megabytes, rate);
                comma = ",";
            }
            fmt::print("{:>12.0f}\n", rate * 1e-9);
        }
    }
    if (options.contains("--json")) {
        std::FILE* file = std::fopen(options.at("--json").c_str(), "w");
        require(file != nullptr, "kernels_pass: cannot write {}", options.at("--json"));
        fmt::print(file, "{}\n]}}\n", json);
        std::fclose(file);
    }
    return 0;
}

}  // namespace

int main(int argc, char** argv) {
    try {
        std::map<std::string, std::string> options;
        for (int i = 1; i < argc; i += 2) {
            require(i + 1 < argc && std::string_view(argv[i]).starts_with("--"), "kernels_pass: {} wants a value",
                    argv[i]);
            options[argv[i]] = argv[i + 1];
        }
        return run(options);
    } catch (const std::exception& error) {
        fmt::print(stderr, "{}\n", error.what());
        return 1;
    }
}
