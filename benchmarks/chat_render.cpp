// What rendering a conversation by its chat template costs, without and with the ids.
//   chat_render TOKENIZER.json FOLDER [TURNS]
// FOLDER holds *.jinja files. Prints the median of each in microseconds, best templates first, and templates that
// refuse the conversation by name.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>
#include <vector>

#include <outrider/core/error.hpp>
#include <outrider/text/chat_template.hpp>
#include <outrider/text/tokenizer.hpp>

namespace {

using namespace outrider;

constexpr int kRuns = 51;
constexpr std::string_view kTokens = R"({"bos_token": "<s>", "eos_token": "</s>"})";

/// Users and assistants by turns, with 72 words each.
std::vector<ChatMessage> conversation(int turns) {
    std::vector<ChatMessage> messages;
    for (int turn = 0; turn < turns; ++turn) {
        std::string text = "Turn " + std::to_string(turn) + ".";
        for (int i = 0; i < 10; ++i) text += " The tide comes in twice a day.\n";
        messages.push_back({.role = turn % 2 == 0 ? "user" : "assistant", .content = std::move(text)});
    }
    if (turns % 2 == 0) messages.push_back({.role = "user", .content = "And then?"});
    return messages;
}

template <typename F>
double median_us(F&& f) {
    std::vector<double> times;
    for (int run = 0; run < kRuns; ++run) {
        const auto begin = std::chrono::steady_clock::now();
        f();
        times.push_back(std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - begin).count());
    }
    std::ranges::nth_element(times, times.begin() + kRuns / 2);
    return times[kRuns / 2];
}

std::string read(const std::filesystem::path& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

struct Row {
    std::string name;
    double render = 0, encode = 0;
};

void measure(const Tokenizer& tokenizer, const std::filesystem::path& folder, int turns) {
    const std::vector<ChatMessage> messages = conversation(turns);
    std::vector<Row> rows;
    std::vector<std::string> refused;
    for (const auto& file : std::filesystem::directory_iterator(folder)) {
        if (file.path().extension() != ".jinja") continue;
        try {
            const ChatTemplate one = ChatTemplate::parse(read(file.path()));
            Row row{file.path().stem().string()};
            row.render = median_us([&] { (void)one.render(messages, tokenizer, kTokens); });
            row.encode = median_us([&] { (void)one.encode(messages, tokenizer, kTokens); });
            rows.push_back(row);
        } catch (const Error&) {
            refused.push_back(file.path().stem().string());
        }
    }
    std::ranges::sort(rows, {}, &Row::render);
    std::printf("| template | text, µs | text and ids, µs |\n|---|---:|---:|\n");
    for (const Row& row : rows) std::printf("| %s | %.0f | %.0f |\n", row.name.c_str(), row.render, row.encode);
    for (const std::string& name : refused) std::printf("refuses the conversation: %s\n", name.c_str());
}

}  // namespace

int main(int count, char** arguments) try {
    if (count < 3) {
        std::fprintf(stderr, "usage: chat_render TOKENIZER.json FOLDER [TURNS]\n");
        return 2;
    }
    measure(*Tokenizer::from_json(arguments[1]), arguments[2], count > 3 ? std::max(std::atoi(arguments[3]), 1) : 100);
    return 0;
} catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
}
