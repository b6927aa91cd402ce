#include "checkpoint.hpp"

#include <fmt/format.h>

#include <system_error>
#include <utility>

#include <outrider/core/detail/rng.hpp>
#include <outrider/core/error.hpp>
#include <outrider/formats/detail/named_tensors.hpp>

#include "formats/gguf.hpp"

namespace outrider {
namespace {

Checkpoint open_gguf(const std::filesystem::path& path, std::int64_t context) {
    const GgufFile file = GgufFile::open(path);
    const ModelConfig config = ModelConfig::from_gguf(file, context);
    return {config, std::make_shared<WeightSource>(WeightSource::from_gguf(file, config)), Tokenizer::from_gguf(file)};
}

Checkpoint open_folder(const std::filesystem::path& folder, std::int64_t context) {
    ModelConfig config = ModelConfig::from_hf(folder, context);
    const NamedTensors file = NamedTensors::open(folder);
    std::string note;
    if (const bool tied = WeightSource::has_tied_output(file, config); tied != config.tied_output) {
        config.tied_output = tied;
        note = fmt::format(
            "{}: config.json says tie_word_embeddings, and lm_head.weight differs from the embedding; the file's "
            "own output matrix is used",
            folder.string());
    }
    return {config, std::make_shared<WeightSource>(WeightSource::from_hf(file, config)), Tokenizer::from_folder(folder),
            std::move(note)};
}

}  // namespace

Checkpoint Checkpoint::open(const std::filesystem::path& path, std::int64_t context) {
    std::error_code error;
    require(std::filesystem::exists(path, error), ErrorKind::damaged_file,
            "model {}: no such file or folder; expected a GGUF file or a "
            "Hugging Face folder with config.json, weights (*.safetensors or pytorch_model*.bin) and tokenizer.json or "
            "tokenizer.model",
            path.string());
    Checkpoint opened = std::filesystem::is_directory(path) ? open_folder(path, context) : open_gguf(path, context);
    // A token that was added and never trained, for padding often, may lie beyond the rows; nobody may write it.
    for (auto id = static_cast<TokenId>(opened.config.vocabulary); id < opened.tokenizer->size(); ++id)
        require(opened.tokenizer->is_added(id), ErrorKind::damaged_file,
                "model {}: its tokenizer has {} tokens, its embedding {} rows; the files do "
                "not belong together",
                path.string(), opened.tokenizer->size(), opened.config.vocabulary);
    return opened;
}

std::string tokenizer_fingerprint(const Tokenizer& tokenizer) {
    std::uint64_t hash = mix64(static_cast<std::uint64_t>(tokenizer.size()));
    for (TokenId token = 0; token < static_cast<TokenId>(tokenizer.size()); ++token) {
        for (const char c : tokenizer.piece(token)) hash = mix64(hash ^ static_cast<unsigned char>(c));
        hash = mix64(hash ^ 0x100);
    }
    return fmt::format("{:016x}", hash);
}

}  // namespace outrider
