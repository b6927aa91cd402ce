// A tokenizer.json made in a test: all bytes, a few merges, a few special tokens.
#pragma once

#include <nlohmann/json.hpp>

#include <string>

namespace outrider::test {

/// Ids 0 to 255: the bytes in GPT-2's alphabet (0x00 first); then merges; then <start>, <end>, <end>> (special) and
/// <tool> (not special).
inline nlohmann::json tiny_json() {
    using nlohmann::json;
    json vocabulary = json::object();
    unsigned next = 256;
    for (unsigned byte = 0; byte < 256; ++byte) {
        const bool printable = (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte != 0xAD);
        const unsigned point = printable ? byte : next++;
        std::string entry;
        if (point >= 0x80) entry.push_back(static_cast<char>(0xC0 | (point >> 6)));
        entry.push_back(static_cast<char>(point < 0x80 ? point : 0x80 | (point & 0x3F)));
        vocabulary[entry] = byte;
    }
    const std::string space = "\xC4\xA0";  // byte 0x20
    const json merges = {"a b", "l l", "h e", "ll o", "he llo", space + " " + space, space + " w", "o r"};
    for (const json& merge : merges) {
        const auto line = merge.get<std::string>();
        const auto cut = line.find(' ');
        vocabulary[line.substr(0, cut) + line.substr(cut + 1)] = vocabulary.size();
    }
    json added = json::array();
    auto id = vocabulary.size() + 0;
    for (const char* text : {"<start>", "<end>", "<end>>", "<tool>"}) {
        added.push_back({{"id", id++}, {"content", text}, {"special", std::string(text) != "<tool>"}});
    }
    return {{"added_tokens", added},
            {"normalizer", nullptr},
            {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", true}}},
            {"post_processor", nullptr},
            {"model", {{"type", "BPE"}, {"vocab", vocabulary}, {"merges", merges}}}};
}

}  // namespace outrider::test
