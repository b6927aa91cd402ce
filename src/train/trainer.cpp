#include "trainer.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include <fmt/ranges.h>
#include <outrider/core/detail/clock.hpp>
#include <outrider/core/detail/translate.hpp>
#include <outrider/core/error.hpp>
#include <outrider/core/detail/utf8_stream.hpp>
#include <outrider/formats/detail/atomic_file.hpp>
#include <outrider/train/detail/teacher_forcing.hpp>

#include "checkpoint.hpp"
#include "feature_store.hpp"
#include "target/cuda_module.hpp"
#include "train_step.hpp"

namespace outrider {

namespace {

double seconds_since(double begin) { return now_seconds() - begin; }

double rms(const at::Tensor& x) { return std::sqrt(x.to(at::kFloat).square().mean().item<double>()); }

/// Whether bfloat16 products are faster than float32 ones here.
bool multiplies_bf16() {
#if defined(__x86_64__) && defined(__GNUC__)
    return __builtin_cpu_supports("avx512bf16") != 0;
#else
    return false;
#endif
}

/// A drafter or a run that is there is worth hours; it goes only when that was said.
void check_output(const TrainOptions& options) {
    const std::filesystem::path& folder = options.output;
    require(!std::filesystem::exists(folder) || std::filesystem::is_directory(folder),
            "train: '{}' is no folder; a drafter is one", folder.string());
    if (options.resume || options.overwrite || options.features_only) return;
    for (const char* file : {"config.json", "model.safetensors", "checkpoint.safetensors"})
        require(!std::filesystem::exists(folder / file),
                "train: '{}' holds a drafter already ({}); resume goes on with it, force (TrainOptions::overwrite) "
                "replaces "
                "it, another folder keeps both",
                folder.string(), file);
}

void check(const TrainOptions& options, const TrainTarget& target) {
    check_options(options);
    require(target.encode.chat != nullptr || target.encode.raw != nullptr,
            "train: the target has no encoder for prompts");
    require(is_valid_utf8(target.name), "train: the target's name is no UTF-8, and config.json holds it; give another");
    check_output(options);
    open_device(options.device);
}

/// All conversations; a limit is not applied here, so that the features of a first part are found by later runs on
/// more.
std::vector<Conversation> read_all(const TrainOptions& options, const TrainTarget& target) {
    ConversationOptions all = options.conversations;
    all.limit = 0;
    return read_conversations(options.data, target.encode, all);
}

/// Throws Error where the target is to compute features of layers that it does not have.
std::vector<std::int64_t> checked_layers(const TrainTarget& target, const std::vector<std::int64_t>& layers) {
    require(target.verifier == nullptr || layers.empty() || layers.back() <= target.head.feature_layers,
            "train: features after layers {}: this target offers layers 1 to {}", detail::listed(layers),
            target.head.feature_layers);
    return layers;
}

/// The run: everything that lives from the first step to the last.
class Trainer {
public:
    Trainer(const TrainOptions& options, const TrainTarget& target, const LearnerMaker& make,
            const std::vector<std::int64_t>& feature_layers)
        : options_(options),
          target_(target),
          began_(now_seconds()),
          conversations_(read_all(options, target)),
          first_((static_cast<std::size_t>(options.held_out) + FeatureStore::kShard - 1) / FeatureStore::kShard *
                 FeatureStore::kShard),
          store_(options.features.empty() ? options.output / "features" : options.features, target.head.fingerprint,
                 target.head.hidden, conversations_, target.verifier, checked_layers(target, feature_layers)),
          compute_(options.bf16 && (!options.device.is_cpu() || multiplies_bf16()) ? at::kBFloat16 : at::kFloat) {
        if (!options.device.is_cpu()) store_.keep_on(options.device, options.device_feature_bytes);
        drop_held_out_prompts();
        if (!options.features_only) with_memory([&] { prepare(make); });
    }

    TrainResult run() {
        if (options_.features_only) return compute_features();
        TrainResult result;
        result.finished = fraction() >= 1.0;  // a run that is resumed may have nothing left to do
        result.last.step = run_.step, result.last.anchors = run_.anchors, result.last.seconds = consumed();
        double reported = consumed(), saved = consumed(), evaluated = consumed();
        for (bool go_on = true; go_on && fraction() < 1.0;) {
            with_memory([this] { step(); });
            const double now = consumed();
            if (now - reported < options_.report_seconds && fraction() < 1.0) continue;
            TrainProgress line;
            with_memory([&] { line = progress(now - reported); });
            if (now - evaluated >= 60 * options_.evaluate_minutes || fraction() >= 1.0)
                with_memory([&] { evaluate(line); }), evaluated = consumed();
            if (now - saved >= 60 * options_.checkpoint_minutes || fraction() >= 1.0) save(line), saved = consumed();
            if (!tell(line)) go_on = false;
            if (!go_on && !line.checkpoint) save(line);
            reported = consumed();
            result = {line, fraction() >= 1.0};
        }
        return result;
    }

private:
    /// Network, order of the text and optimiser, as they are before the first step or after the last one taken.
    void prepare(const LearnerMaker& make) {
        if (options_.resume) run_ = read_run_state(checkpoint_path());
        require_text();
        drop_missing_features();
        learner_ = make(basis());
        sampler_ = make_sampler();
        column_.assign(static_cast<std::size_t>(target_.head.vocabulary), -1);
        const std::vector<TokenId> columns = learner_->vocabulary();
        for (std::size_t i = 0; i < columns.size(); ++i)
            column_[static_cast<std::size_t>(columns[i])] = static_cast<std::int32_t>(i);
        const StepParts parts{*learner_,
                              [this](std::span<const AnchorGroup> groups) { return batch_of(groups); },
                              {.weight_decay = options_.weight_decay, .clip = options_.clip, .ema = options_.ema}};
        step_ = options_.device.is_cpu() ? host_step(parts, options_.threads) : device_step(parts, options_.device);
        if (!options_.resume) return;
        OptimiserState state = step_->state();
        read_checkpoint(checkpoint_path(), learner_->names(), state);
        step_->restore(state);
        sampler_->restore(run_.place);
        before_ = run_.seconds;
    }

    TrainResult compute_features() {
        TrainResult result{{}, true};
        double reported = consumed();
        for (std::size_t i = 0; i < used().size(); ++i) {
            (void)store_.features(i);
            result.last.feature_tokens = store_.computed_tokens();
            result.last.seconds = consumed();
            result.last.fraction = static_cast<double>(i + 1) / static_cast<double>(used().size());
            if (consumed() - reported < options_.report_seconds) continue;
            reported = consumed();
            if (!tell(result.last)) return {result.last, false};
        }
        return result;
    }

    /// Whether the run is to go on. What the callback throws is the host's.
    [[nodiscard]] bool tell(const TrainProgress& line) const {
        return !options_.progress || detail::as_host([&] { return options_.progress(line); });
    }

    [[nodiscard]] std::filesystem::path checkpoint_path() const { return options_.output / "checkpoint.safetensors"; }
    [[nodiscard]] double consumed() const { return before_ + seconds_since(began_); }
    [[nodiscard]] double fraction() const {
        return options_.anchors > 0 ? static_cast<double>(run_.anchors) / static_cast<double>(options_.anchors)
                                    : consumed() / (60 * options_.minutes);
    }
    /// What the run takes of the text: all, or the first ones up to the limit.
    [[nodiscard]] std::span<const Conversation> used() const {
        const auto limit = static_cast<std::size_t>(options_.conversations.limit);
        return std::span(conversations_)
            .first(limit > 0 ? std::min(limit, conversations_.size()) : conversations_.size());
    }
    [[nodiscard]] bool available(std::size_t conversation) {
        return !options_.stored_features || store_.ready(conversation);
    }
    static void learn_nothing_from(Conversation& conversation) {
        conversation.answer = static_cast<std::int64_t>(conversation.tokens.size());
    }

    /// A prompt may occur twice, answered greedily and by sampling; then the second answer must not be trained on.
    void drop_held_out_prompts() {
        const auto prompt = [](const Conversation& c) {
            return std::vector<TokenId>(c.tokens.begin(), c.tokens.begin() + static_cast<std::ptrdiff_t>(c.answer));
        };
        std::map<std::vector<TokenId>, bool> held;
        for (std::size_t i = 0; i < std::min(first_, conversations_.size()); ++i)
            held[prompt(conversations_[i])] = true;
        for (std::size_t i = first_; i < conversations_.size(); ++i)
            if (held.contains(prompt(conversations_[i]))) learn_nothing_from(conversations_[i]);
    }

    /// Says what is wrong with a text before anything else stumbles over it.
    void require_text() const {
        const auto teaches = [](const Conversation& c) {
            return c.answer < static_cast<std::int64_t>(c.tokens.size());
        };
        const auto text = used().subspan(std::min(first_, used().size()));
        require(std::ranges::any_of(text, teaches),
                "train: the text has {} conversations, and {} are held out to measure on (whole shards of {}), so that "
                "none "
                "is left to train on; give more text, or hold out fewer",
                used().size(), std::min(first_, used().size()), FeatureStore::kShard);
    }

    /// With stored_features, what is not on disk is left out. A resumed run leaves out what it began without.
    void drop_missing_features() {
        for (std::size_t i = first_; i < used().size(); ++i) {
            Conversation& conversation = conversations_[i];
            const std::pair name(conversation.text, conversation.row);
            if (options_.stored_features && !options_.resume && !store_.ready(i)) run_.left_out.insert(name);
            if (run_.left_out.contains(name))
                learn_nothing_from(conversation);
            else
                ++trained_;
        }
        require(trained_ > 0, "train: no features of the text are on disk; leave out stored_features to compute them");
    }

    [[nodiscard]] LearnerBasis basis() {
        const TargetHead& head = target_.head;
        LearnerBasis basis{head, target_.name, options_.seed, compute_, options_.label_decay, options_.device};
        if (options_.resume) {
            basis.folder = options_.output;
        } else if (!options_.from.empty()) {
            basis.folder = options_.from, basis.take_weights = true;
        } else {
            const auto text = used().subspan(std::min(first_, used().size()));
            basis.vocabulary = frequent_tokens(text, options_.vocabulary);
            std::size_t some = 0;
            while (some + 1 < used().size() && !available(some)) ++some;
            basis.embedding_scale = 1.0 / rms(head.embed(basis.vocabulary));
            basis.feature_scale = 1.0 / rms(store_.features(some).slice(1, 0, head.hidden));
        }
        return basis;
    }

    [[nodiscard]] AnchorSampler make_sampler() {
        std::vector<std::size_t> shards;
        constexpr std::size_t kShard = FeatureStore::kShard;
        for (std::size_t begin = first_; begin < used().size(); begin += kShard) shards.push_back(begin / kShard);
        const std::int64_t group = options_.group_anchors > 0 ? options_.group_anchors : learner_->group_anchors();
        return {used(), std::move(shards), group, options_.batch_anchors, options_.seed};
    }

    [[nodiscard]] AnchorBatch batch_of(std::span<const AnchorGroup> groups) {
        return make_anchor_batch(groups, conversations_, store_, column_, learner_->needs());
    }

    [[nodiscard]] double rate() const {
        const double part = std::min(1.0, fraction());
        const double rise = std::min(1.0, (static_cast<double>(run_.step) + 1) / 20.0) *
                            std::min(1.0, options_.warmup > 0 ? part / options_.warmup + 0.02 : 1.0);
        const double fall = 0.5 * (1.0 + std::cos(std::numbers::pi * part));
        return options_.learning_rate * rise * (options_.final_rate + (1.0 - options_.final_rate) * fall);
    }

    /// Names what to do where a device's memory does not suffice.
    template <typename Work>
    void with_memory(const Work& work) const {
        try {
            work();
        } catch (const Error&) {
            throw;
        } catch (const std::exception& error) {
            const std::string_view what = error.what();
            if (options_.device.is_cpu() || detail::kind_of(what) != ErrorKind::out_of_memory) throw;
            fail(ErrorKind::out_of_memory,
                 "train: {} has not the memory for this ({}); take fewer anchors a step (batch_anchors, now {}) or a "
                 "smaller drafter, or keep fewer features there (device_feature_bytes, now {})",
                 options_.device.str(), std::string(what.substr(0, what.find('\n'))), options_.batch_anchors,
                 options_.device_feature_bytes);
        }
    }

    void step() {
        const std::vector<AnchorGroup> groups = sampler_->next();
        rate_ = rate();
        step_->run(groups, rate_);
        for (const AnchorGroup& group : groups)
            run_.anchors += static_cast<std::int64_t>(group.committed.size()),
                anchors_since_ += static_cast<std::int64_t>(group.committed.size());
        ++run_.step;
        run_.place = sampler_->place();
    }

    TrainProgress progress(double seconds) {
        const StepReport report = step_->take();
        const LossStats& stats = report.stats;
        run_.skipped_anchors += stats.skipped, run_.skipped_steps += report.skipped_steps;
        TrainProgress line;
        line.step = run_.step, line.anchors = run_.anchors, line.epoch = run_.place.epoch;
        line.seconds = consumed(), line.fraction = std::min(1.0, fraction());
        line.loss = stats.per_token(learner_->label_weights());
        for (std::size_t k = 0; k < stats.nll.size(); ++k)
            line.loss_by_label.push_back(stats.count[k] > 0 ? stats.nll[k] / static_cast<double>(stats.count[k]) : 0.0);
        line.anchors_per_second = static_cast<double>(anchors_since_) / seconds;
        line.learning_rate = rate_, line.gradient_norm = report.gradient_norm;
        line.skipped_anchors = run_.skipped_anchors, line.skipped_steps = run_.skipped_steps;
        line.feature_tokens = store_.computed_tokens();
        anchors_since_ = 0;
        return line;
    }

    void evaluate(TrainProgress& line) {
        const at::NoGradGuard no_grad;
        const std::vector<at::Tensor> weights = step_->averages();
        std::vector<AnchorBatch> batches;
        std::vector<TeacherText> texts;
        const auto count = std::min({first_, used().size(), static_cast<std::size_t>(options_.evaluate_conversations)});
        for (std::size_t i = 0; i < count; ++i) {
            const Conversation& conversation = conversations_[i];
            const std::vector<AnchorGroup> groups = anchor_groups(conversation, i, kHeldOutAnchors, 0);
            if (groups.empty() || !available(i)) continue;
            batches.push_back(batch_of(std::span(groups).first(1)));
            texts.push_back({conversation.tokens, conversation.answer, store_.features(i)});
        }
        const LossStats stats = step_->held_out(weights, batches);
        learner_->measure(weights, batches);
        line.held_out_loss = stats.per_token(learner_->label_weights());
        const std::unique_ptr<DraftModel> draft = learner_->draft(weights);
        const DecodeStats rounds = teacher_forced_rounds(*draft, texts, 16);
        line.held_out_beta = rounds.beta();
        for (const std::int64_t kept : rounds.accepted_per_depth)
            line.held_out_accepted.push_back(static_cast<double>(kept) / static_cast<double>(rounds.rounds));
        last_evaluation_ = line;
    }

    void save(TrainProgress& line) {
        run_.seconds = consumed();
        detail::make_folders(options_.output);
        const OptimiserState state = step_->state();
        write_checkpoint(checkpoint_path(), learner_->names(), state, run_);
        nlohmann::ordered_json record = learner_->record();
        record.update({{"label_decay", options_.label_decay},
                       {"conversations", trained_},
                       {"held_out", first_},
                       {"greedy_only", options_.conversations.greedy_only},
                       {"anchors", run_.anchors},
                       {"steps", run_.step},
                       {"epochs", run_.place.epoch},
                       {"seconds", std::round(run_.seconds)},
                       {"learning_rate", options_.learning_rate},
                       {"batch_anchors", options_.batch_anchors},
                       {"ema", options_.ema},
                       {"seed", options_.seed},
                       {"products", compute_ == at::kBFloat16 ? "bfloat16" : "float32"},
                       {"training_loss", line.loss},
                       {"skipped_anchors", run_.skipped_anchors},
                       {"skipped_steps", run_.skipped_steps}});
        if (last_evaluation_) {
            record["held_out_loss"] = *last_evaluation_->held_out_loss;
            record["held_out_beta_16_nodes"] = *last_evaluation_->held_out_beta;
        }
        learner_->write(options_.output, state.average, record.dump());
        line.checkpoint = true;
    }

    static constexpr std::int64_t kHeldOutAnchors = 32;  ///< of a conversation, in the held-out loss

    TrainOptions options_;
    TrainTarget target_;
    double began_;
    std::vector<Conversation> conversations_;
    std::size_t first_, trained_ = 0;  ///< held-out conversations come first; how many are trained on
    FeatureStore store_;
    at::ScalarType compute_;
    std::unique_ptr<Learner> learner_;
    std::optional<AnchorSampler> sampler_;
    std::unique_ptr<TrainStep> step_;
    std::vector<std::int32_t> column_;
    RunState run_;
    double before_ = 0.0, rate_ = 0.0;
    std::int64_t anchors_since_ = 0;
    std::optional<TrainProgress> last_evaluation_;
};

}  // namespace

std::string describe(const TrainProgress& p) {
    if (p.step == 0)
        return fmt::format("{:5.1f} %  {:7.0f} s  features of {} tokens computed", 100 * p.fraction, p.seconds,
                           p.feature_tokens);
    std::string text = fmt::format("{:5.1f} %  {:7.0f} s  step {:6}  anchors {:8}  epoch {}  loss {:.3f} (",
                                   100 * p.fraction, p.seconds, p.step, p.anchors, p.epoch, p.loss);
    for (std::size_t k = 0; k < p.loss_by_label.size(); ++k)
        text += fmt::format("{}{:.2f}", k > 0 ? " " : "", p.loss_by_label[k]);
    text += fmt::format(")  {:4.0f} anchors/s  lr {:.2e}  |g| {:.2f}", p.anchors_per_second, p.learning_rate,
                        p.gradient_norm);
    if (p.skipped_anchors + p.skipped_steps > 0)
        text += fmt::format("  skipped {} anchors, {} steps", p.skipped_anchors, p.skipped_steps);
    if (p.feature_tokens > 0) text += fmt::format("  features of {} tokens computed", p.feature_tokens);
    if (p.held_out_loss)
        text += fmt::format("  held out: loss {:.3f}, beta {:.3f}", *p.held_out_loss, *p.held_out_beta);
    for (std::size_t d = 0; d < p.held_out_accepted.size(); ++d)
        text += fmt::format("{}{:.3f}", d == 0 ? " accepted " : " ", p.held_out_accepted[d]);
    if (p.checkpoint) text += "  checkpoint";
    return text;
}

TrainResult run_training(const TrainOptions& options, const TrainTarget& target, const LearnerMaker& make,
                         const std::vector<std::int64_t>& feature_layers) {
    return detail::translate([&] {
        check(options, target);
        return Trainer(options, target, make, feature_layers).run();
    });
}

}  // namespace outrider
