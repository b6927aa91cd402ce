#include <outrider/train/train_ctc.hpp>

#include <ATen/Parallel.h>
#include <nlohmann/json.hpp>

#include <chrono>
#include <cmath>
#include <numbers>

#include <outrider/core/error.hpp>
#include <outrider/draft/ctc_draft.hpp>
#include <outrider/train/adamw.hpp>
#include <outrider/train/ctc_loss.hpp>
#include <outrider/train/feature_store.hpp>
#include <outrider/train/teacher_forcing.hpp>

#include "anchor_batches.hpp"
#include "ctc_checkpoint.hpp"

namespace outrider {

namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begin) { return std::chrono::duration<double>(Clock::now() - begin).count(); }

double rms(const at::Tensor& x) { return std::sqrt(x.to(at::kFloat).square().mean().item<double>()); }

/// Whether bfloat16 products are faster than float32 ones here.
bool multiplies_bf16() {
#if defined(__x86_64__) && defined(__GNUC__)
    return __builtin_cpu_supports("avx512bf16") != 0;
#else
    return false;
#endif
}

void check(const CtcTrainOptions& options, const TrainTarget& target) {
    require(!options.output.empty(), "train: no output folder given");
    require(target.encode != nullptr, "train: the target has no encoder for prompts");
    require(options.labels > 0 && options.labels <= 15, "train: {} labels an anchor, expected 1 to 15", options.labels);
    require(options.batch_anchors > 0 && options.group_anchors > 0,
            "train: batches of {} anchors in groups of {}, expected above 0", options.batch_anchors,
            options.group_anchors);
    require(options.anchors > 0 || options.minutes > 0,
            "train: {} minutes and {} anchors, expected one of them above 0", options.minutes, options.anchors);
    require(options.held_out > 0, "train: {} held-out conversations, expected at least 1", options.held_out);
}

/// The run: everything that lives from the first step to the last.
class CtcTrainer {
    static constexpr std::size_t kParts = 2;

public:
    CtcTrainer(const CtcTrainOptions& options, const TrainTarget& target)
        : options_(options),
          target_(target),
          began_(Clock::now()),
          conversations_(read_conversations(options.data, target.encode, options.conversations)),
          first_((static_cast<std::size_t>(options.held_out) + FeatureStore::kShard - 1) / FeatureStore::kShard *
                 FeatureStore::kShard),
          store_(options.features.empty() ? options.output / "features" : options.features, target.head.fingerprint,
                 target.head.hidden, conversations_, target.verifier),
          sampler_(make_sampler()),
          compute_(options.bf16 && multiplies_bf16() ? at::kBFloat16 : at::kFloat) {
        at::set_num_threads(1);  // the parts of a batch are what runs in parallel
        drop_held_out_prompts();
        make_config();
        tables_ = make_ctc_tables(config_, target.head, compute_, at::kCPU);
        weights_ = init_ctc_weights(config_, target.head, options.seed);
        std::vector<at::Tensor> leaves;
        for (auto& [name, weight] : weights_.named()) leaves.push_back(weight->set_requires_grad(true));
        optimiser_.emplace(
            leaves, AdamWOptions{.weight_decay = options.weight_decay, .clip = options.clip, .ema = options.ema});
        for (std::int64_t k = 0; k < options.labels; ++k)
            loss_options_.weights.push_back(std::pow(options.label_decay, static_cast<double>(k)));
        loss_options_.kind = options.loss;
        if (options.resume) {
            run_ = read_ctc_checkpoint(checkpoint_path(), weights_, *optimiser_);
            sampler_.restore(run_.place);
            before_ = run_.seconds;
        }
    }

    CtcTrainResult run() {
        CtcTrainResult result;
        double reported = consumed(), saved = consumed(), evaluated = consumed();
        for (bool go_on = true; go_on && fraction() < 1.0;) {
            step();
            const double now = consumed();
            if (now - reported < options_.report_seconds && fraction() < 1.0) continue;
            CtcTrainProgress line = progress(now - reported);
            if (now - evaluated >= 60 * options_.evaluate_minutes || fraction() >= 1.0)
                evaluate(line), evaluated = consumed();
            if (now - saved >= 60 * options_.checkpoint_minutes || fraction() >= 1.0) save(line), saved = consumed();
            if (options_.progress && !options_.progress(line)) go_on = false;
            if (!go_on && !line.checkpoint) save(line);
            reported = consumed();
            result = {line, fraction() >= 1.0};
        }
        return result;
    }

private:
    [[nodiscard]] std::filesystem::path checkpoint_path() const { return options_.output / "checkpoint.safetensors"; }
    [[nodiscard]] double consumed() const { return before_ + seconds_since(began_); }
    [[nodiscard]] double fraction() const {
        return options_.anchors > 0 ? static_cast<double>(run_.anchors) / static_cast<double>(options_.anchors)
                                    : consumed() / (60 * options_.minutes);
    }

    /// With all features on disk an epoch is one block, else the blocks are what is computed before training goes on.
    [[nodiscard]] AnchorSampler make_sampler() {
        std::vector<std::size_t> shards;
        bool all_ready = true;
        for (std::size_t shard = first_ / FeatureStore::kShard; shard < store_.shards(); ++shard) {
            const bool ready = store_.ready(shard);
            if (ready || !options_.stored_features) {
                shards.push_back(shard);
                trained_ +=
                    std::min(conversations_.size(), (shard + 1) * FeatureStore::kShard) - shard * FeatureStore::kShard;
            }
            all_ready = all_ready && (ready || options_.stored_features);
        }
        const std::size_t block = all_ready ? std::max<std::size_t>(1, shards.size()) : AnchorSampler::kBlock;
        return {conversations_,         std::move(shards),      block,
                options_.group_anchors, options_.batch_anchors, options_.seed};
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
            if (held.contains(prompt(conversations_[i])))
                conversations_[i].answer = static_cast<std::int64_t>(conversations_[i].tokens.size());
        sampler_.restore({});
    }

    void make_config() {
        const TargetHead& head = target_.head;
        config_.hidden = head.hidden;
        config_.head_dim = head.hidden % 64 == 0 ? 64 : head.hidden;
        config_.heads = options_.heads > 0 ? options_.heads : head.hidden / config_.head_dim;
        config_.kv_heads = options_.kv_heads > 0    ? options_.kv_heads
                           : config_.heads % 3 == 0 ? config_.heads / 3
                                                    : config_.heads;
        config_.intermediate = options_.intermediate > 0 ? options_.intermediate : (head.hidden * 8 / 3 + 63) / 64 * 64;
        config_.frames = options_.frames;
        config_.conditioning = options_.conditioning;
        config_.prefix_rank = options_.prefix_rank;
        config_.norm_eps = head.norm_eps;
        config_.target_fingerprint = head.fingerprint;
        config_.target_name = target_.name;
        if (options_.resume) {
            // Columns and scales are the first run's, also where the text has grown since.
            const CtcConfig first = read_ctc_config(options_.output);
            require(first.target_fingerprint == head.fingerprint, "train: {} belongs to target {}, this target is {}",
                    options_.output.string(), first.target_fingerprint, head.fingerprint);
            config_.vocabulary = first.vocabulary;
            config_.embedding_scale = first.embedding_scale, config_.feature_scale = first.feature_scale;
        } else {
            config_.vocabulary = frequent_tokens(std::span(conversations_).subspan(first_), options_.vocabulary);
            config_.embedding_scale = 1.0 / rms(head.embed(config_.vocabulary));
            config_.feature_scale = 1.0 / rms(store_.features(0));
        }
        column_.assign(static_cast<std::size_t>(head.vocabulary), -1);
        for (std::size_t i = 0; i < config_.vocabulary.size(); ++i)
            column_[static_cast<std::size_t>(config_.vocabulary[i])] = static_cast<std::int32_t>(i);
    }

    [[nodiscard]] AnchorBatch batch_of(std::span<const AnchorGroup> groups) {
        return make_anchor_batch(groups, conversations_, store_, column_, options_.labels,
                                 prefix_rows(options_.loss, options_.labels));
    }

    /// Safe to call from several threads.
    [[nodiscard]] at::Tensor loss_of(const CtcWeights& weights, const AnchorBatch& batch, CtcLossStats& stats,
                                     ThreadTeam& alone) const {
        const bool conditioned = config_.conditioning == CtcConditioning::prefix;
        const CtcContext context =
            ctc_context(config_, weights, tables_, batch.next, batch.features, batch.positions, compute_);
        std::vector<CtcAnchors> anchors;
        for (std::size_t i = 0; i < batch.anchors.size(); ++i)
            anchors.push_back({context.keys.slice(0, batch.context_begin[i], batch.context_end[i]),
                               context.values.slice(0, batch.context_begin[i], batch.context_end[i]),
                               batch.anchors[i]});
        const CtcFrameScores frames = ctc_frames(config_, weights, tables_, context.fused.index_select(0, batch.row),
                                                 batch.committed, anchors, compute_);
        at::Tensor prefix;
        if (conditioned)
            prefix = ctc_prefix_scores(config_, weights, tables_, batch.last, batch.last_but_one,
                                       batch.features.index_select(0, batch.row), compute_);
        return ctc_loss({frames.logits, frames.gate, prefix, batch.labels}, loss_options_, stats, alone);
    }

    [[nodiscard]] double rate() const {
        const double part = std::min(1.0, fraction());
        const double rise = std::min(1.0, (static_cast<double>(run_.step) + 1) / 20.0) *
                            std::min(1.0, options_.warmup > 0 ? part / options_.warmup + 0.02 : 1.0);
        const double fall = 0.5 * (1.0 + std::cos(std::numbers::pi * part));
        return options_.learning_rate * rise * (options_.final_rate + (1.0 - options_.final_rate) * fall);
    }

    /// Gradients of a batch, part by part in parallel: threads meet once a step, not once an operation. The cut does
    /// not depend on the number of threads, so neither does the result.
    CtcLossStats differentiate(std::span<const AnchorGroup> groups) {
        const std::size_t parts = std::min<std::size_t>(kParts, groups.size());
        std::vector<AnchorBatch> batches;
        for (std::size_t i = 0; i < parts; ++i)
            batches.push_back(batch_of(groups.subspan(i * groups.size() / parts,
                                                      (i + 1) * groups.size() / parts - i * groups.size() / parts)));
        std::vector<CtcLossStats> stats(parts);
        std::vector<std::vector<at::Tensor>> gradients(parts);
        std::vector<double> share(parts, 0.0);
        team_.run([&](TeamMember& member) {
            const auto mine = member.range(static_cast<std::int64_t>(parts));
            for (auto i = static_cast<std::size_t>(mine.begin); i < static_cast<std::size_t>(mine.end); ++i) {
                ThreadTeam alone(1);
                CtcWeights leaves = weights_;
                for (auto& [name, weight] : leaves.named()) *weight = weight->detach().set_requires_grad(true);
                loss_of(leaves, batches[i], stats[i], alone).backward();
                for (auto& [name, weight] : leaves.named()) gradients[i].push_back(weight->grad());
                for (std::size_t k = 0; k < stats[i].count.size(); ++k)
                    share[i] += loss_options_.weights[k] * static_cast<double>(stats[i].count[k]);
            }
        });
        combine(gradients, share);
        CtcLossStats all;
        for (const CtcLossStats& part : stats) all += part;
        return all;
    }

    /// The parts' mean losses, weighted by their sums of label weights, are the batch's.
    void combine(const std::vector<std::vector<at::Tensor>>& gradients, const std::vector<double>& share) {
        double sum = 0.0;
        for (const double part : share) sum += part;
        const at::NoGradGuard no_grad;
        for (std::size_t w = 0; w < optimiser_->weights().size(); ++w) {
            at::Tensor total;
            for (std::size_t i = 0; i < gradients.size(); ++i) {
                if (!gradients[i][w].defined() || sum == 0.0) continue;
                const at::Tensor scaled = gradients[i][w] * (share[i] / sum);
                total = total.defined() ? total.add_(scaled) : scaled;
            }
            optimiser_->weights()[w].mutable_grad() = total;
        }
    }

    void step() {
        const std::vector<AnchorGroup> groups = sampler_.next();
        const CtcLossStats stats = differentiate(groups);
        rate_ = rate();
        const double norm = optimiser_->step(rate_, team_);
        if (std::isfinite(norm))
            gradient_norm_ = norm;
        else
            ++run_.skipped_steps;
        for (const AnchorGroup& group : groups)
            run_.anchors += static_cast<std::int64_t>(group.committed.size()),
                anchors_since_ += static_cast<std::int64_t>(group.committed.size());
        run_.skipped_anchors += stats.skipped;
        stats_ += stats;
        ++run_.step;
        run_.place = sampler_.place();
    }

    CtcTrainProgress progress(double seconds) {
        CtcTrainProgress line;
        line.step = run_.step, line.anchors = run_.anchors, line.epoch = run_.place.epoch;
        line.seconds = consumed(), line.fraction = std::min(1.0, fraction());
        line.loss = stats_.per_token(loss_options_.weights);
        for (std::size_t k = 0; k < stats_.nll.size(); ++k)
            line.loss_by_label.push_back(stats_.count[k] > 0 ? stats_.nll[k] / static_cast<double>(stats_.count[k])
                                                             : 0.0);
        line.anchors_per_second = static_cast<double>(anchors_since_) / seconds;
        line.learning_rate = rate_, line.gradient_norm = gradient_norm_;
        line.skipped_anchors = run_.skipped_anchors, line.skipped_steps = run_.skipped_steps;
        line.feature_tokens = store_.computed_tokens();
        stats_ = {};
        anchors_since_ = 0;
        return line;
    }

    /// The averaged weights, as they are exported.
    [[nodiscard]] CtcWeights averaged() {
        CtcWeights weights = weights_;
        std::size_t i = 0;
        for (auto& [name, weight] : weights.named()) *weight = optimiser_->averages()[i++].clone();
        return weights;
    }

    void evaluate(CtcTrainProgress& line) {
        const at::NoGradGuard no_grad;
        const CtcWeights weights = averaged();
        CtcLossStats stats;
        std::vector<TeacherText> texts;
        const auto count =
            std::min({first_, conversations_.size(), static_cast<std::size_t>(options_.evaluate_conversations)});
        for (std::size_t i = 0; i < count; ++i) {
            const Conversation& conversation = conversations_[i];
            const std::vector<AnchorGroup> groups = anchor_groups(conversation, i, options_.group_anchors, 0);
            if (groups.empty()) continue;
            (void)loss_of(weights, batch_of(std::span(groups).first(1)), stats, team_);
            texts.push_back({conversation.tokens, conversation.answer, store_.features(i)});
        }
        line.held_out_loss = stats.per_token(loss_options_.weights);
        CtcDraft draft(config_, weights, target_.head);
        const DecodeStats rounds = teacher_forced_rounds(draft, texts, 16);
        line.held_out_beta = rounds.beta();
        for (const std::int64_t kept : rounds.accepted_per_depth)
            line.held_out_accepted.push_back(static_cast<double>(kept) / static_cast<double>(rounds.rounds));
        last_evaluation_ = line;
    }

    void save(CtcTrainProgress& line) {
        run_.seconds = consumed();
        std::filesystem::create_directories(options_.output);
        write_ctc_checkpoint(checkpoint_path(), weights_, *optimiser_, run_);
        nlohmann::ordered_json record = {{"loss", options_.loss == CtcLossKind::prefix ? "prefix" : "ctc"},
                                         {"labels", options_.labels},
                                         {"label_decay", options_.label_decay},
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
                                         {"skipped_steps", run_.skipped_steps}};
        if (last_evaluation_) {
            record["held_out_loss"] = *last_evaluation_->held_out_loss;
            record["held_out_beta_16_nodes"] = *last_evaluation_->held_out_beta;
        }
        config_.training = record.dump();
        write_ctc_weights(options_.output, averaged());
        write_ctc_config(options_.output, config_);
        line.checkpoint = true;
    }

    CtcTrainOptions options_;
    TrainTarget target_;
    Clock::time_point began_;
    std::vector<Conversation> conversations_;
    std::size_t first_, trained_ = 0;  ///< held-out conversations come first; how many are trained on
    FeatureStore store_;
    AnchorSampler sampler_;
    at::ScalarType compute_;
    ThreadTeam team_;
    CtcConfig config_;
    CtcTables tables_;
    CtcWeights weights_;
    std::optional<AdamW> optimiser_;
    CtcLossOptions loss_options_;
    std::vector<std::int32_t> column_;
    CtcRunState run_;
    double before_ = 0.0, rate_ = 0.0, gradient_norm_ = 0.0;
    CtcLossStats stats_;
    std::int64_t anchors_since_ = 0;
    std::optional<CtcTrainProgress> last_evaluation_;
};

}  // namespace

std::string describe(const CtcTrainProgress& p) {
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

CtcTrainResult train_ctc(const CtcTrainOptions& options, const TrainTarget& target) {
    check(options, target);
    return CtcTrainer(options, target).run();
}

}  // namespace outrider
