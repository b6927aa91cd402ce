// The interpreter of chat templates: Jinja's meaning by golden texts, origins of characters, errors and limits.
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <nlohmann/json.hpp>

#include <ctime>
#include <fstream>
#include <string>
#include <vector>

#include <outrider/core/error.hpp>

#include "text/jinja/from_json.hpp"
#include "text/jinja/template.hpp"

using namespace outrider;
using namespace outrider::jinja;
using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::MessageMatches;
using Json = nlohmann::ordered_json;

namespace {

Variables variables_of(const Json& json) {
    Meter meter{Limits{}};
    Variables variables;
    for (const auto& [name, value] : json.items()) variables.emplace_back(name, from_json(value, meter));
    return variables;
}

std::string no_date(const std::string& format) { return "<" + format + ">"; }

Text run(std::string_view source, const Json& variables = Json::object(), const Limits& limits = {}) {
    return Template::parse(source).render(variables_of(variables), no_date, limits);
}

/// The text with what users wrote between | and |.
std::string marked(std::string_view source, const Json& variables) {
    std::string result;
    run(source, variables).for_runs([&](std::string_view part, Origin origin) {
        const std::string bar = origin == Origin::user ? "|" : "";
        result += bar + std::string(part) + bar;
    });
    return result;
}

void refused(std::string_view source, const char* why, const Json& variables = Json::object()) {
    INFO(source);
    CHECK_THROWS_MATCHES(run(source, variables), Error, MessageMatches(ContainsSubstring(why)));
}

}  // namespace

TEST_CASE("jinja: expressions and statements mean what they mean to Jinja") {  // make_chat_golden.py
    std::ifstream file(OUTRIDER_SOURCE_DIR "/tests/golden/chat/expressions.json");
    const Json golden = Json::parse(file);
    const Variables variables = variables_of(golden["variables"]);
    int texts = 0, errors = 0;
    for (const Json& row : golden["rows"]) {
        const auto source = row["source"].get<std::string>();
        INFO(source);
        if (row["text"].is_null()) {
            CHECK_THROWS_AS(Template::parse(source).render(variables, no_date), Error);
            ++errors;
        } else {
            std::string text;
            CHECK_NOTHROW(text = Template::parse(source).render(variables, no_date).bytes());
            CHECK(text == row["text"].get<std::string>());
            ++texts;
        }
    }
    CHECK(texts == 189);
    CHECK(errors == 83);
}

TEST_CASE("jinja: every operation keeps what users wrote apart") {
    const Json x = {{"x", " aB "}, {"l", {"p", "q"}}, {"d", {{"k", "v"}}}};
    CHECK(marked("{{ x }}", x) == "| aB |");
    CHECK(marked("<{{ x ~ '.' }}>", x) == "<| aB |.>");
    CHECK(marked("{{ '<' + x.strip() + '>' }}", x) == "<|aB|>");
    CHECK(marked("{{ x | trim | upper }}{{ x.lower() }}{{ x.title() }}", x) == "|AB ab  Ab |");
    CHECK(marked("{{ ('-' + x)[1:3] }}{{ (x + '-')[::-1] }}", x) == "| a|-| Ba |");
    CHECK(marked("{{ x.replace('a', '<>') }}{{ 'xay' | replace('a', x) }}", x) == "| |<>|B |x| aB |y");
    CHECK(marked("{{ l | join(',') }}{{ ';'.join(l) }}", x) == "|p|,|qp|;|q|");
    CHECK(marked("{{ x.split('a') | join('_') }}", x) == "| |_|B |");
    CHECK(marked("{{ d | tojson }}{{ l }}", x) == "{\"|k|\": \"|v|\"}['|p|', '|q|']");
    CHECK(marked("{{ '%s=%s' % (x, 1) }}{{ '{}!'.format(x) }}", x) == "| aB |=1| aB |!");
    CHECK(marked("{{ x * 2 }}{{ x.center(6, '*') }}", x) == "| aB  aB |*| aB |*");
    CHECK(marked("{% set y %}[{{ x }}]{% endset %}{{ y | indent }}", x) == "[| aB |]");
    CHECK(marked("{% macro m(a) %}<{{ a }}{{ caller() }}>{% endmacro %}{% call m(x) %}{{ x }}.{% endcall %}", x) ==
          "<| aB  aB |.>");
    CHECK(marked("{% for c in x.strip() %}{{ c }}-{% endfor %}", x) == "|a|-|B|-");
    CHECK(marked("{% set n = namespace(v='<') %}{% set n.v = n.v ~ x %}{{ n.v }}{{ x | e }}", {{"x", "<"}}) ==
          "<|<&lt;|");
    CHECK(marked("{{ x | length }}{{ l | length }}", x) == "42");
}

TEST_CASE("jinja: what a template may not do is said with its line") {
    refused("{{ 1 }}\n{{ missing.x }}", "line 2: 'missing' is undefined");
    refused("a\n{{ raise_exception('no ' ~ 'way') }}", "line 2: the template refuses the conversation: no way");
    refused("{% include 'x' %}", "include");
    refused("{{ x | nothing_such }}", "there is no filter 'nothing_such'");
    refused("{% if 1 is nothing_such %}{% endif %}", "there is no test 'nothing_such'");
    refused("{% for x in y recursive %}{% endfor %}", "recursive");
    refused("{{ l.append(1) }}", "'append' of list changes its object", {{"l", {1}}});
    refused("{{ d.update({}) }}", "'update' of dict changes its object", {{"d", {{"a", 1}}}});
    refused("{% if x %}", "endif");
    refused("{{ 'x", "a string without an end");
    refused("{# x", "a comment without an end");
    refused("{{ 1 / 0 }}", "a division by zero");
    refused("{{ 9223372036854775807 + 1 }}", "beyond 64 bits");
    refused("{{ 10 ** 30 }}", "beyond 64 bits");
    CHECK(run("{{ strftime_now('%Y') }}").view() == "<%Y>");
    CHECK(run("{% if false %}{{ x | nothing_such }}{% endif %}ok").view() == "ok");
}

TEST_CASE("jinja: no template runs for long, fills the memory or the stack") {
    refused("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", "more than");
    refused("{% set n = namespace(s='xxxxxxxx') %}{% for i in range(99) %}{% set n.s = n.s + n.s %}{% endfor %}",
            "bytes");
    refused("{% set n = namespace(l=[1]) %}{% for i in range(99) %}{% set n.l = n.l + n.l %}{% endfor %}", "bytes");
    refused("{{ 'x' * 999999999999 }}", "more than");
    refused("{{ '%99999999s' % 1 }}", "wider");
    refused("{{ range(1000000) }}", "range: more than");
    refused("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "nested deeper");
    refused("{% set n = namespace(l=[]) %}{% for i in range(9999) %}{% set n.l = [n.l] %}{% endfor %}",
            "nested deeper");
    refused("{% set n = namespace(d={}) %}{% for i in range(9999) %}{% set n.d = {'a': n.d} %}{% endfor %}",
            "nested deeper");
    // Shared parts: small in memory, endless when printed or compared.
    const std::string shared =
        "{% set n = namespace(l=[], m=[]) %}{% for i in range(190) %}{% set n.l = [n.l, n.l] %}"
        "{% set n.m = [n.m, n.m] %}{% endfor %}";
    refused(shared + "{{ n.l }}", "more than");
    refused(shared + "{{ n.l | tojson }}", "more than");
    refused(shared + "{{ n.l == n.m }}", "more than");
    refused("{{ " + std::string(100000, '(') + "1" + std::string(100000, ')') + " }}", "nested deeper");
    refused("{{ " + std::string(100000, '-') + "1 }}", "nested deeper");
    std::string sum = "{{ 1";
    for (int i = 0; i < 10000; ++i) sum += "+1";
    refused(sum + " }}", "levels");
    std::string blocks;
    for (int i = 0; i < 10000; ++i) blocks += "{% if 1 %}";
    refused(blocks, "nested deeper");
    // A namespace that holds itself, and a macro that its own scope holds, are let go.
    CHECK(run("{% set n = namespace() %}{% set n.n = n %}{% macro m() %}{% set n.m = m %}{% endmacro %}{{ m() }}x")
              .view() == "x");
}

TEST_CASE("jinja: no operation over large texts and lists takes long") {
    // Each has few statements and many bytes; what it costs has to be counted.
    const std::string loop = "{% for i in range(99999) %}", end = "{% endfor %}";
    const std::string two = "{% set a = 'ab' * 3000000 %}{% set b = 'ab' * 2999999 + 'ac' %}";
    const std::vector<std::string> sources = {
        two + loop + "{% if a == b %}{% endif %}" + end,
        two + loop + "{% if a < b %}{% endif %}" + end,
        two + loop + "{% if a is sameas b %}{% endif %}" + end,
        two + loop + "{% if a in [b, b] %}{% endif %}" + end,
        two + loop + "{% if {a: 1}[b] is defined %}{% endif %}" + end,
        two + loop + "{% if a.startswith('q') %}{% endif %}" + end,
        two + loop + "{% if a.isalpha() %}{% endif %}" + end,
        two + loop + "{% if a | length == 1 %}{% endif %}" + end,
        two + loop + "{% if a[i] == 'x' %}{% endif %}" + end,
        two + loop + "{% if a[i:i + 1] == 'x' %}{% endif %}" + end,
        two + loop + "{% if a.strip() %}{% endif %}" + end,
        two + loop + "{% if a.count('x') %}{% endif %}" + end,
        two + loop + "{% if a.find('x') %}{% endif %}" + end,
        two + loop + "{% if 'x' in a %}{% endif %}" + end,
        two + loop + "{% if [a, b] | min %}{% endif %}" + end,
        two + loop + "{% if missing[a] %}{% endif %}{% if {}[a] %}{% endif %}" + end,
        "{% set a = 'a' * 20000000 %}{{ ('a' * 10000000 + 'b') in a }}",
        "{% set a = 'a' * 20000000 %}{{ a.replace('a' * 10000000 + 'b', '') | length }}",
        "{% set a = 'a' * 20000000 %}{{ a.split('a' * 10000000 + 'b') | length }}",
        "{% set a = 'a' * 20000000 %}{{ a.rfind('b' + 'a' * 10000000) }}",
        "{% set a = 'ab' * 1000000 %}{{ a.strip('b' * 1000000 + 'a') }}",
        "{{ (user * 1000).replace('', 'x') | list | length }}",
        "{{ (user * 1000).replace('', 'x').split('x') | length }}",
        "{{ ('a ' * 3000000).rsplit() | length }}",
        "{{ ('\n' * 99999999).splitlines() | length }}",
        "{{ ('\n' * 99999999) | indent | length }}",
        "{{ ('{:.9999f}' * 99999).format(1, 1) }}",
        "{{ ('%(a).9999f' * 99999) % {'a': 1} }}",
        "{{ 'x'.center(9223372036854775807, '\u00e9') }}",
        "{{ 'x'.ljust(4611686018427387905, '\u00e9') }}",
        "{{ '' | indent(9223372036854775807, true) }}",
        loop + "{% set x = range(99999) %}" + end,
        loop + "{% set x = range(99999) | list | sort | last %}" + end,
        loop + "{% set x = '1' | slice(99999) | list %}" + end,
        "{% set n = namespace(**dict(range(9999) | map('string') | map('list') | list)) %}",
        "{{ ('&' * 90000000) | e | length }}",
    };
    for (const std::string& source : sources) {
        INFO(source);
        const auto begin = std::clock();
        try {
            const Text text = run(source, {{"user", std::string(999, 'u')}});
            CHECK(text.size() <= Limits{}.bytes);
        } catch (const Error& error) {
            CHECK(std::string(error.what()).size() < 1000);
        }
        CHECK(static_cast<double>(std::clock() - begin) / CLOCKS_PER_SEC < 60);
    }
}

TEST_CASE("jinja: integers at the ends of their range") {
    const std::string least = "{% set least = -9223372036854775807 - 1 %}{% set most = 9223372036854775807 %}";
    for (const char* use : {"'abc'.center(X)",
                            "'abc'.ljust(X)",
                            "'abc'.zfill(X)",
                            "'-bc'.zfill(X)",
                            "'abc'[X]",
                            "'abc'[X:]",
                            "'abc'[:X]",
                            "'abc'[::X]",
                            "[1, 2][X]",
                            "[1, 2][X:]",
                            "[1, 2][::X]",
                            "'a b'.split(' ', X)",
                            "'a b'.rsplit(none, X)",
                            "'aa'.replace('a', 'b', X)",
                            "'abc'.find('c', X)",
                            "'abc'.find('c', 0, X)",
                            "'abc'.startswith('a', X)",
                            "'a\tb'.expandtabs(X)",
                            "'abc' | truncate(X)",
                            "'abc' | truncate(9, true, '', X)",
                            "'abc' | indent(X)",
                            "'abc' | center(X)",
                            "X | round(-1)",
                            "X | round(-19)",
                            "5 | round(X)",
                            "X | abs",
                            "-X",
                            "X // -1",
                            "X % -1",
                            "X // 3",
                            "X % 3",
                            "X + 1",
                            "X - 1",
                            "X * 2",
                            "X ** 2",
                            "2 ** X",
                            "'ab' * X",
                            "[1] * X",
                            "range(X)",
                            "range(X, X)",
                            "range(0, most, X)",
                            "range(least, X, most)",
                            "range(X, 5) | string",
                            "[1] | batch(X) | list",
                            "[1] | slice(X) | list",
                            "'%d' % X",
                            "'%x' % X",
                            "'{:d}'.format(X)",
                            "'{:,}'.format(X)",
                            "X | string",
                            "X | tojson",
                            "{} | tojson(indent=X)",
                            "X | float | int",
                            "X is divisibleby(-1)",
                            "X is odd",
                            "'5' | int(0, X)",
                            "[X, 1] | sum",
                            "[X, 1.5] | min",
                            "X == X + 0.0",
                            "X in [X]"}) {
        for (const char* number : {"least", "most", "(least + 1)", "(most - 1)"}) {
            std::string source = use;
            for (std::size_t at = source.find('X'); at != std::string::npos; at = source.find('X', at))
                source.replace(at, 1, number);
            INFO(source);
            try {
                const Text text = run(least + "{{ " + source + " }}");
                CHECK(text.size() < 1100);
            } catch (const Error& error) {
                CHECK(std::string(error.what()).size() < 1000);
            }
        }
    }
    CHECK(run("{{ 9223372036854775807 | round(-2) }}").view() == "9223372036854775800");
}
