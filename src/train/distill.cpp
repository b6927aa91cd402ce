#include <outrider/train/distill.hpp>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <array>
#include <utility>

#include <outrider/core/detail/rng.hpp>
#include <outrider/core/detail/utf8_stream.hpp>
#include <outrider/core/error.hpp>

namespace outrider {

namespace {

constexpr std::size_t kRun = 6;  ///< words

/// Calls `f` with the hash of every run of kRun words.
template <typename F>
void for_runs(std::string_view text, F&& f) {
    std::array<std::uint64_t, kRun> words{};
    std::size_t count = 0;
    std::uint64_t word = 0;
    const auto end_word = [&] {
        if (word == 0) return;
        words[count++ % kRun] = std::exchange(word, 0);
        if (count < kRun) return;
        std::uint64_t run = 0;
        for (std::size_t i = 0; i < kRun; ++i) run = mix64(run ^ words[(count + i) % kRun]);
        f(run);
    };
    for (const char c : text) {
        const auto u = static_cast<unsigned char>(c);
        const bool letter = u >= 'a' && u <= 'z', capital = u >= 'A' && u <= 'Z', digit = u >= '0' && u <= '9';
        if (letter || capital || digit || u >= 0x80)
            word = mix64(word ^ (capital ? u - 'A' + 'a' : u));
        else
            end_word();
    }
    end_word();
}

std::string_view trimmed(std::string_view text) {
    constexpr std::string_view kSpaces = " \t\r\n\v\f";
    const auto first = text.find_first_not_of(kSpaces);
    if (first == std::string_view::npos) return {};
    return text.substr(first, text.find_last_not_of(kSpaces) - first + 1);
}

struct Job {
    SequenceId sequence;
    DistilledText text;
};

Job begin_job(AnyDecoder& decoder, DistillPrompt prompt, GenerationOptions options) {
    options.stream = prompt.stream;
    DistilledText text{
        std::move(prompt.id), std::move(prompt.messages), std::ssize(prompt.prompt.tokens), options.temperature, {},
        prompt.sample,        std::move(prompt.raw)};
    return {decoder.join(std::move(prompt.prompt), std::move(options)), std::move(text)};
}

}  // namespace

std::string distilled_line(const DistilledText& text) {
    nlohmann::ordered_json line = {
        {"id", text.id}, {"temperature", text.temperature}, {"finish", to_string(text.answer.finish)}};
    if (text.raw) {
        line["prompt"] = to_valid_utf8(*text.raw), line["completion"] = to_valid_utf8(text.answer.text);
    } else {
        nlohmann::ordered_json& messages = line["messages"] = nlohmann::ordered_json::array();
        for (const ChatMessage& message : text.messages)
            messages.push_back(nlohmann::ordered_json::parse(message.to_json()));
        messages.push_back({{"role", "assistant"}, {"content", to_valid_utf8(text.answer.text)}});
    }
    line["prompt_tokens"] = text.prompt_tokens, line["completion_ids"] = text.answer.tokens;
    if (text.sample > 0) line["sample"] = text.sample;
    return line.dump();
}

DistillTotals distill(AnyDecoder& decoder, const std::function<std::optional<DistillPrompt>()>& next,
                      const std::function<bool(const DistilledText&)>& take, const GenerationOptions& options) {
    std::vector<Job> jobs;
    DistillTotals totals;
    const auto finish = [&](Job& job) {
        if (!decoder.finished(job.sequence)) return false;
        job.text.answer = decoder.take(job.sequence);
        return true;
    };
    for (bool more = true, go_on = true; go_on;) {
        while (more && jobs.size() < decoder.max_batch()) {
            std::optional<DistillPrompt> prompt = next();
            more = prompt.has_value();
            if (!more) break;
            jobs.push_back(begin_job(decoder, std::move(*prompt), options));
        }
        if (jobs.empty()) break;
        decoder.step();
        const auto ended = std::stable_partition(jobs.begin(), jobs.end(), [&](Job& job) { return !finish(job); });
        for (auto job = ended; job != jobs.end() && go_on; ++job) {
            ++totals.texts, totals.tokens += std::ssize(job->text.answer.tokens);
            go_on = take(job->text);
        }
        jobs.erase(ended, jobs.end());
        if (!go_on)
            for (const Job& job : jobs) decoder.cancel(job.sequence), (void)decoder.take(job.sequence);
    }
    return totals;
}

void PromptOverlap::add(std::string_view prompt) {
    for_runs(prompt, [this](std::uint64_t run) { runs_.insert(run); });
}

double PromptOverlap::share(std::string_view text) const {
    std::int64_t runs = 0, common = 0;
    for_runs(text, [&](std::uint64_t run) { ++runs, common += runs_.contains(run) ? 1 : 0; });
    return runs == 0 ? 0.0 : static_cast<double>(common) / static_cast<double>(runs);
}

SelfPrompts::SelfPrompts(AnyDecoder& decoder, UserTurn opening, std::function<Prompt(std::string_view)> encode,
                         SelfPromptOptions options, std::uint64_t first)
    : decoder_(decoder),
      opening_(std::move(opening)),
      encode_(std::move(encode)),
      options_(std::move(options)),
      number_(first) {
    require(options_.at_once > 0, "SelfPrompts: {} prompts drawn at once; expected at least 1", options_.at_once);
    require(options_.drawing.temperature > 0,
            "SelfPrompts: temperature {}; prompts drawn greedily are all the same, expected above 0",
            options_.drawing.temperature);
    require(options_.raw_tokens >= 0, "SelfPrompts: {} tokens of a raw text; expected at least 1, or 0 for chats",
            options_.raw_tokens);
    if (raw()) options_.drawing.max_tokens = options_.raw_tokens;
    options_.drawing.seed = options_.drawing.seed.value_or(0);
    options_.drawing.stop.insert(options_.drawing.stop.end(), opening_.stop.begin(), opening_.stop.end());
}

DistillPrompt SelfPrompts::next() {
    if (ready_.empty()) draw();
    DistillPrompt prompt = std::move(ready_.back());
    ready_.pop_back();
    return prompt;
}

bool SelfPrompts::usable(const GenerationResult& result, std::string_view text) {
    constexpr std::size_t kBeginning = 60;  // prompts that begin alike are answered alike
    // A user's words are whole when they end; of a text that ended, nothing is left to continue.
    const bool long_enough =
        raw() ? result.finish == FinishReason::length
              : result.finish == FinishReason::stop && std::ssize(result.tokens) >= options_.min_tokens;
    return long_enough && !text.empty() && to_valid_utf8(text) == text &&
           options_.excluded.share(text) <= options_.most_overlap && seen_.emplace(text.substr(0, kBeginning)).second;
}

void SelfPrompts::draw() {
    std::vector<SequenceId> sequences;
    const std::uint64_t begin = number_;
    for (std::int64_t i = 0; i < options_.at_once; ++i) {
        GenerationOptions own = options_.drawing;
        own.stream = number_++;
        sequences.push_back(decoder_.join(opening_.prompt, std::move(own)));
    }
    while (!std::all_of(sequences.begin(), sequences.end(), [&](SequenceId id) { return decoder_.finished(id); }))
        decoder_.step();
    for (std::size_t i = 0; i < sequences.size(); ++i) {
        const GenerationResult result = decoder_.take(sequences[i]);
        const std::string_view text = trimmed(result.text);
        ++drawn_;
        const std::uint64_t number = begin + i;
        DistillPrompt prompt{fmt::format("self/{}/{}", *options_.drawing.seed, number), {}, {}, number};
        // What was drawn in few tokens may be read in more.
        if (usable(result, text)) prompt.prompt = encode_(text);
        const std::int64_t length = std::ssize(prompt.prompt.tokens);
        if (length == 0 || length >= decoder_.verifier().context()) {
            ++dropped_;
            continue;
        }
        if (raw())
            prompt.raw = text;
        else
            prompt.messages = {{"user", std::string(text)}};
        ready_.push_back(std::move(prompt));
    }
    require(!ready_.empty(),
            "SelfPrompts: none of {} prompts that the target made up can be used (they must {}, fit into its "
            "context, differ, and not resemble the excluded ones); {}",
            sequences.size(), raw() ? "not end before they are continued" : "end by themselves",
            raw() ? "take fewer tokens for prompts" : "is it tuned on conversations? A base model writes raw text");
    std::reverse(ready_.begin(), ready_.end());
}

}  // namespace outrider
