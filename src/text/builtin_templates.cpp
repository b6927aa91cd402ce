#include "builtin_templates.hpp"

namespace outrider::detail {
namespace {

constexpr std::string_view kChatml = R"(
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{% endif %})";

constexpr std::string_view kLlama3 = R"(
{{- bos_token }}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message.role + '<|end_header_id|>\n\n' + message.content | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %})";

/// What Llama 2, Mistral and Vicuna have in common: a system text, then users and assistants turn about, a user first.
constexpr std::string_view kTurnAbout = R"(
{%- set system = '' %}
{%- set turns = messages %}
{%- if messages[0].role == 'system' %}
    {%- set system = messages[0].content %}
    {%- set turns = messages[1:] %}
{%- endif %}
{%- for turn in turns %}
    {%- if turn.role != ('user' if loop.index0 % 2 == 0 else 'assistant') %}
        {{- raise_exception('users and assistants take turns, a user first, after an optional system turn; turn ' ~
                            loop.index ~ ' is of the role ' ~ turn.role) }}
    {%- endif %}
{%- endfor %}
{%- if turns | length % 2 == 0 and add_generation_prompt %}
    {{- raise_exception('the last turn must be the user\'s') }}
{%- endif %})";

constexpr std::string_view kLlama2 = R"(
{%- for turn in turns %}
    {%- if turn.role == 'assistant' %}
        {{- ' ' + turn.content | trim + ' ' + eos_token }}
    {%- else %}
        {%- set content = turn.content %}
        {%- if loop.first and system %}
            {%- set content = '<<SYS>>\n' + system + '\n<</SYS>>\n\n' + content %}
        {%- endif %}
        {{- bos_token }}{{ '[INST] ' + content | trim + ' [/INST]' }}
    {%- endif %}
{%- endfor %})";

/// The marks are words in the first two versions and tokens from the third on, which has no space before [/INST].
constexpr std::string_view kMistral = R"(
{{- bos_token }}
{%- for turn in turns %}
    {%- if turn.role == 'assistant' %}
        {{- ' ' + turn.content + eos_token }}
    {%- else %}
        {{- '[INST] ' + (system + '\n\n' if loop.first and system else '') + turn.content }}
        {{- '[/INST]' if marks_are_tokens else ' [/INST]' }}
    {%- endif %}
{%- endfor %})";

constexpr std::string_view kVicuna = R"(
{{- bos_token }}
{{- system or 'A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, ' ~
              'detailed, and polite answers to the user\'s questions.' }}{{ ' ' }}
{%- for turn in turns %}
    {{- 'USER: ' + turn.content + ' ' if turn.role == 'user' else 'ASSISTANT: ' + turn.content + eos_token }}
{%- endfor %}
{%- if add_generation_prompt %}{{- 'ASSISTANT:' }}{% endif %})";

constexpr std::string_view kZephyr = R"(
{%- for message in messages %}
    {%- if message.role not in ['system', 'user', 'assistant'] %}
        {{- raise_exception('the role ' ~ message.role ~ '; expected system, user or assistant') }}
    {%- endif %}
    {{- '<|' + message.role + '|>\n' + message.content + eos_token + '\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|assistant|>\n' }}{% endif %})";

std::string turn_about(std::string_view turns) { return std::string(kTurnAbout) += turns; }

}  // namespace

std::span<const BuiltinTemplate> builtin_templates() {
    static const BuiltinTemplate all[] = {
        {"chatml", std::string(kChatml), {"<|im_start|>", "<|im_end|>"}, false},
        {"llama2", turn_about(kLlama2), {}, true},
        {"llama3", std::string(kLlama3), {"<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"}, false},
        {"mistral", turn_about(kMistral), {}, true},
        {"vicuna", turn_about(kVicuna), {}, true},
        {"zephyr", std::string(kZephyr), {}, true},
    };
    return all;
}

}  // namespace outrider::detail
