// Everything. A host that wants short builds includes the headers it uses.
#pragma once

#include <outrider/core/clock.hpp>
#include <outrider/core/detokenizer.hpp>
#include <outrider/core/error.hpp>
#include <outrider/core/options.hpp>
#include <outrider/core/rng.hpp>
#include <outrider/core/stats.hpp>
#include <outrider/core/types.hpp>
#include <outrider/core/utf8_stream.hpp>
#include <outrider/core/version.hpp>

#include <outrider/tree/accept_walk.hpp>
#include <outrider/tree/dice.hpp>
#include <outrider/tree/draft_samples.hpp>
#include <outrider/tree/listed_law.hpp>
#include <outrider/tree/lossy_rules.hpp>
#include <outrider/tree/node_rules.hpp>
#include <outrider/tree/path_rules.hpp>
#include <outrider/tree/ranked_tree.hpp>
#include <outrider/tree/token_tree.hpp>
#include <outrider/tree/tree_layout.hpp>
#include <outrider/tree/tree_template.hpp>

#include <outrider/ctc/alignment_sampling.hpp>
#include <outrider/ctc/collapse.hpp>
#include <outrider/ctc/draft_law.hpp>
#include <outrider/ctc/frames.hpp>
#include <outrider/ctc/prefix_forward.hpp>
#include <outrider/ctc/prefix_tree.hpp>
#include <outrider/ctc/static_tree.hpp>
#include <outrider/ctc/top_k.hpp>

#include <outrider/tensor/attention.hpp>
#include <outrider/tensor/gumbel.hpp>
#include <outrider/tensor/isa.hpp>
#include <outrider/tensor/kv_cache.hpp>
#include <outrider/tensor/packed_linear.hpp>
#include <outrider/tensor/row_ops.hpp>
#include <outrider/tensor/thread_team.hpp>
#include <outrider/tensor/warp.hpp>

#include <outrider/io/chat_template.hpp>
#include <outrider/io/ggml_types.hpp>
#include <outrider/io/gguf.hpp>
#include <outrider/io/hf_config.hpp>
#include <outrider/io/mapped_file.hpp>
#include <outrider/io/named_tensors.hpp>
#include <outrider/io/safetensors.hpp>
#include <outrider/io/tokenizer.hpp>
#include <outrider/io/torch_archive.hpp>

#include <outrider/interface/acceptance_policy.hpp>
#include <outrider/interface/causal_model.hpp>
#include <outrider/interface/concepts.hpp>
#include <outrider/interface/draft_model.hpp>
#include <outrider/interface/feature_columns.hpp>
#include <outrider/interface/prompt.hpp>
#include <outrider/interface/round.hpp>
#include <outrider/interface/target_head.hpp>
#include <outrider/interface/tree_extender.hpp>
#include <outrider/interface/verifier.hpp>

#include <outrider/model/llama_config.hpp>
#include <outrider/model/llama_model.hpp>
#include <outrider/model/target_pass.hpp>
#include <outrider/model/weights.hpp>

#include <outrider/draft/added_value.hpp>
#include <outrider/draft/calibration.hpp>
#include <outrider/draft/ctc_config.hpp>
#include <outrider/draft/ctc_draft.hpp>
#include <outrider/draft/ctc_network.hpp>
#include <outrider/draft/draft_cost.hpp>
#include <outrider/draft/head_options.hpp>
#include <outrider/draft/hydra_config.hpp>
#include <outrider/draft/hydra_draft.hpp>
#include <outrider/draft/hydra_network.hpp>
#include <outrider/draft/lm_draft.hpp>
#include <outrider/draft/medusa_config.hpp>
#include <outrider/draft/medusa_draft.hpp>
#include <outrider/draft/medusa_network.hpp>
#include <outrider/draft/merged_draft.hpp>
#include <outrider/draft/network_parts.hpp>
#include <outrider/draft/ngram_draft.hpp>
#include <outrider/draft/no_draft.hpp>
#include <outrider/draft/owed_sequence.hpp>
#include <outrider/draft/published_heads.hpp>
#include <outrider/draft/trained_draft.hpp>

#include <outrider/verify/llama_causal_model.hpp>
#include <outrider/verify/llama_verifier.hpp>
#include <outrider/verify/pass_times.hpp>

#include <outrider/accept/draw_accept.hpp>
#include <outrider/accept/greedy_match.hpp>
#include <outrider/accept/logit_rows.hpp>
#include <outrider/accept/lossy_accept.hpp>
#include <outrider/accept/sampled_match.hpp>

#include <outrider/decode/any_decoder.hpp>
#include <outrider/decode/auto_budget.hpp>
#include <outrider/decode/limit_depth.hpp>
#include <outrider/decode/make_drafter.hpp>
#include <outrider/decode/make_policy.hpp>
#include <outrider/decode/owed_feedback.hpp>
#include <outrider/decode/pass_cost.hpp>
#include <outrider/decode/result.hpp>
#include <outrider/decode/round_checks.hpp>
#include <outrider/decode/sequence_book.hpp>
#include <outrider/decode/session.hpp>
#include <outrider/decode/sink.hpp>
#include <outrider/decode/speculative_decoder.hpp>
#include <outrider/decode/stage.hpp>
#include <outrider/decode/stop_filter.hpp>
#include <outrider/decode/token_stream.hpp>
#include <outrider/decode/tree_budget.hpp>

#include <outrider/train/adamw.hpp>
#include <outrider/train/conversations.hpp>
#include <outrider/train/ctc_loss.hpp>
#include <outrider/train/ctc_recursion.hpp>
#include <outrider/train/distill.hpp>
#include <outrider/train/feature_store.hpp>
#include <outrider/train/label_loss.hpp>
#include <outrider/train/loss_stats.hpp>
#include <outrider/train/teacher_forcing.hpp>
#include <outrider/train/train_ctc.hpp>
#include <outrider/train/train_hydra.hpp>
#include <outrider/train/train_medusa.hpp>
#include <outrider/train/train_options.hpp>
