#include "inspect_page.hpp"

#include <algorithm>
#include <cmath>
#include <string_view>

namespace outrider::cli {
namespace {

/// The text that "%STORY%" in it stands for is JSON inside a script element that no browser runs.
constexpr std::string_view kPage = R"html(<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<title>outrider inspect</title>
<style>
body { font: 15px/1.45 system-ui, sans-serif; margin: 1.5rem auto; max-width: 70rem; padding: 0 1rem; color: #222; background: #fff; }
h1 { font-size: 1.15rem; } .muted { color: #667; }
#text { white-space: pre-wrap; border: 1px solid #ccd; border-radius: 6px; padding: .7rem; min-height: 3rem; }
#text .prompt { color: #889; } #text .accepted { background: #cdeccd; } #text .chosen { background: #ffe3a8; }
#tree { overflow: auto; border: 1px solid #ccd; border-radius: 6px; margin: .8rem 0; }
#steps { display: flex; gap: .6rem; align-items: center; margin: .8rem 0; } #steps input { flex: 1; }
button { font: inherit; padding: .15rem .8rem; }
.bar { display: flex; height: 1.3rem; border-radius: 4px; overflow: hidden; } .bar div { min-width: 1px; }
.key { display: inline-block; width: .8em; height: .8em; border-radius: 2px; margin: 0 .3em 0 1em; }
svg text { font: 13px ui-monospace, monospace; } svg .p { fill: #667; font-size: 11px; }
</style>
<h1>outrider inspect</h1>
<p class="muted" id="about"></p>
<div id="steps"><button id="back">&#9664;</button><input id="at" type="range" min="0" value="0"><button id="next">&#9654;</button><span id="where"></span></div>
<div id="text"></div>
<div id="tree"></div>
<div class="bar" id="bar"></div>
<p id="times" class="muted"></p>
<script type="application/json" id="story">%STORY%</script>
<script>
"use strict";
const story = JSON.parse(document.getElementById("story").textContent), rounds = story.rounds;
const get = id => document.getElementById(id);
const colours = {draft: "#7aa6d8", verify: "#d88a7a", accept: "#8fc48f", commit: "#c9b26b"};
function add(parent, name, attributes, text) {
  const svg = parent.namespaceURI === "http://www.w3.org/2000/svg" || name === "svg";
  const element = svg ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  return parent.appendChild(element);
}
function shown(piece) { return JSON.stringify(piece).slice(1, -1) || "\u2205"; }
function showText(at) {
  const box = get("text"); box.replaceChildren();
  add(box, "span", {class: "prompt"}, story.prompt);
  rounds.slice(0, at + 1).forEach((round, i) => round.emits.forEach((piece, k) => {
    const last = k === round.emits.length - 1 && round.emits.length > round.accepted;
    add(box, "span", i < at ? {} : {class: last ? "chosen" : "accepted"}, piece);
  }));
}
function showTree(round) {
  const nodes = round.nodes, box = get("tree"), rows = []; box.replaceChildren();
  let leaves = 0;
  const place = i => {
    const below = nodes.map((n, k) => k).filter(k => nodes[k].parent === i);
    if (below.length === 0) rows[i] = leaves++; else { below.forEach(place); rows[i] = (rows[below[0]] + rows[below[below.length - 1]]) / 2; }
  };
  place(0);
  const depth = [0]; nodes.forEach((n, i) => { if (i) depth[i] = depth[n.parent] + 1; });
  const x = i => 12 + depth[i] * 150, y = i => 20 + rows[i] * 34;
  const svg = add(box, "svg", {width: 170 + Math.max(...depth) * 150, height: 36 + (leaves - 1) * 34, role: "img"});
  nodes.forEach((n, i) => { if (i) add(svg, "path", {d: `M${x(n.parent) + 118},${y(n.parent)} C${x(n.parent) + 136},${y(n.parent)} ${x(i) - 20},${y(i)} ${x(i)},${y(i)}`, fill: "none", stroke: n.kept ? "#3c9a3c" : "#bbc", "stroke-width": n.kept ? 2.5 : 1.2}); });
  nodes.forEach((n, i) => {
    add(svg, "rect", {x: x(i), y: y(i) - 12, width: 118, height: 24, rx: 5, fill: i === 0 ? "#e6e8f4" : n.kept ? "#cdeccd" : "#f5f5f8", stroke: n.kept || i === 0 ? "#3c9a3c" : "#bbc"});
    add(svg, "text", {x: x(i) + 6, y: y(i) + 4}, shown(n.piece).slice(0, 10));
    if (i) add(svg, "text", {x: x(i) + 84, y: y(i) + 4, class: "p"}, n.p.toFixed(3));
    add(svg.lastChild, "title", {}, shown(n.piece));
  });
}
function showTimes(round) {
  const bar = get("bar"), words = get("times"); bar.replaceChildren(); words.replaceChildren();
  for (const [stage, seconds] of Object.entries(round.seconds)) {
    add(bar, "div", {style: `flex: ${Math.max(seconds, 1e-6)}; background: ${colours[stage]}`, title: stage});
    add(words, "span", {class: "key", style: `background: ${colours[stage]}`});
    add(words, "span", {}, `${stage} ${(1000 * seconds).toFixed(2)} ms`);
  }
}
function show(at) {
  at = Math.min(Math.max(at, 0), rounds.length - 1); get("at").value = at;
  if (rounds.length === 0) { get("where").textContent = "no rounds"; return; }
  const round = rounds[at];
  get("where").textContent = `round ${at + 1} of ${rounds.length}: ${round.accepted} of ${round.nodes.length - 1} nodes accepted`;
  showText(at); showTree(round); showTimes(round);
}
get("about").textContent = `${story.model}, drafter ${story.drafter}. Green: drafted and accepted. Amber: chosen by the target. Arrow keys step.`;
get("at").max = Math.max(rounds.length - 1, 0);
get("at").oninput = () => show(Number(get("at").value));
get("back").onclick = () => show(Number(get("at").value) - 1);
get("next").onclick = () => show(Number(get("at").value) + 1);
document.onkeydown = event => { if (event.target !== get("at")) { if (event.key === "ArrowLeft") get("back").click(); if (event.key === "ArrowRight") get("next").click(); } };
show(0);
</script>
</html>
)html";

}  // namespace

nlohmann::ordered_json page_round(const TokenTree& tree, std::span<const NodeIndex> path,
                                  std::span<const TokenId> emitted, const StageSeconds& seconds,
                                  const std::function<std::string(TokenId)>& piece) {
    nlohmann::ordered_json nodes = nlohmann::ordered_json::array(), emits = nlohmann::ordered_json::array();
    for (NodeIndex node = 0; static_cast<std::size_t>(node) < tree.size(); ++node)
        nodes.push_back(nlohmann::ordered_json{{"piece", piece(tree.token(node))},
                                               {"parent", tree.parent(node)},
                                               {"p", std::exp(tree.log_q()[static_cast<std::size_t>(node)])},
                                               {"kept", std::find(path.begin(), path.end(), node) != path.end()}});
    for (const TokenId token : emitted) emits.push_back(piece(token));
    return {{"accepted", path.size()},
            {"nodes", std::move(nodes)},
            {"emits", std::move(emits)},
            {"seconds",
             {{"draft", seconds.draft},
              {"verify", seconds.verify},
              {"accept", seconds.accept},
              {"commit", seconds.commit}}}};
}

std::string inspect_page(const nlohmann::ordered_json& story) {
    // A text may hold "</script>" or "<!--": no '<' is left in the JSON.
    std::string json;
    for (const char c : story.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace)) {
        if (c == '<')
            json += "\\u003c";
        else
            json += c;
    }
    std::string page(kPage);
    constexpr std::string_view kPlace = "%STORY%";
    return page.replace(page.find(kPlace), kPlace.size(), json);
}

}  // namespace outrider::cli
