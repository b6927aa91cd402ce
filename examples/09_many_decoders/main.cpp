// Several decoders over one model, each on a thread of its own and with its own drafter and settings. They share the
// weights; each has its own caches, and the texts are those that each gives alone.
//     09_many_decoders MODEL.gguf "Name three rivers of Europe."
#include <fmt/format.h>
#include <outrider/outrider.hpp>

#include <cstdio>
#include <string>
#include <thread>
#include <vector>

namespace {

struct Job {
    std::string drafter;
    double temperature;
};
const std::vector<Job> kJobs{{"none", 0.0}, {"ngram", 0.0}, {"ngram", 0.8}, {"none", 0.8}};

std::string answer(const outrider::LlamaModel& model, const Job& job, const char* question) {
    outrider::SpeculativeDecoder decoder{outrider::make_drafter(job.drafter, model.head()),
                                         outrider::LlamaVerifier{model}};
    return decoder.generate(model.chat(question), {.max_tokens = 32, .temperature = job.temperature, .seed = 1}).text;
}

bool run(const char* path, const char* question) {
    const auto model = outrider::LlamaModel::load(path, {.threads = 1});  // of each decoder
    std::vector<std::string> together(kJobs.size());
    {
        std::vector<std::jthread> threads;
        for (std::size_t i = 0; i < kJobs.size(); ++i)
            threads.emplace_back([&, i] { together[i] = answer(model, kJobs[i], question); });
    }
    bool same = together[0] == together[1] && together[2] == together[3];  // whatever drafts
    for (std::size_t i = 0; i < kJobs.size(); ++i) same = same && together[i] == answer(model, kJobs[i], question);
    fmt::print("{}\n{}\n{}\n", together[0], together[2], same ? "each as alone" : "NOT AS ALONE");
    return same;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 3) {
        fmt::print(stderr, "usage: {} MODEL.gguf PROMPT\n", argv[0]);
        return 2;
    }
    try {
        return run(argv[1], argv[2]) ? 0 : 1;
    } catch (const outrider::Error& error) {
        fmt::print(stderr, "{}\n", error.what());
        return 1;
    }
}
