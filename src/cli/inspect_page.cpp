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
:root { --ink: #20242c; --soft: #667085; --line: #d5d9e2; --kept: #2f9e44; --kept-fill: #d3f0d6; --chosen: #e8a317; --chosen-fill: #ffe9b8; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 1.5rem auto; max-width: 74rem; padding: 0 1.2rem; color: var(--ink); background: #fff; }
h1 { font-size: 1.15rem; margin: 0 0 .2rem; } p { margin: .2rem 0; } .soft { color: var(--soft); }
.box { border: 1px solid var(--line); border-radius: 8px; margin: .8rem 0; }
#text { white-space: pre-wrap; padding: .7rem .9rem; min-height: 4.5rem; }
#text .prompt { display: block; color: var(--soft); padding-bottom: .4rem; margin-bottom: .4rem; border-bottom: 1px dashed var(--line); }
.accepted { background: var(--kept-fill); border-radius: 3px; } .chosen { background: var(--chosen-fill); border-radius: 3px; }
#tree { overflow: auto; padding: .3rem; }
#steps { display: flex; gap: .7rem; align-items: center; } #where { min-width: 17em; text-align: right; font-variant-numeric: tabular-nums; }
#rounds { flex: 1; height: 44px; display: flex; align-items: flex-end; gap: 1px; cursor: pointer; }
#rounds div { flex: 1; max-width: 16px; height: 100%; display: flex; flex-direction: column-reverse; }
#rounds div:hover { background: #f0f2f7; } #rounds div.now { background: #e3e8f4; }
#rounds i { display: block; background: var(--kept); opacity: .65; } #rounds i:first-child { background: var(--chosen); opacity: .8; }
button { font: inherit; padding: .15rem .8rem; border: 1px solid var(--line); border-radius: 6px; background: #f7f8fb; cursor: pointer; }
.bar { display: flex; height: 1.1rem; border-radius: 5px; overflow: hidden; background: #eef0f5; }
.key { display: inline-block; width: .8em; height: .8em; border-radius: 2px; margin-right: .35em; } .key + span { margin-right: 1.2em; }
svg text { font: 13px ui-monospace, "DejaVu Sans Mono", monospace; fill: var(--ink); } svg .p { fill: var(--soft); font-size: 11px; text-anchor: end; }
</style>
<h1>outrider inspect</h1>
<p class="soft" id="about"></p>
<p class="soft"><span class="accepted">&nbsp;drafted and accepted&nbsp;</span> <span class="chosen">&nbsp;chosen by the target&nbsp;</span> Numbers: what the drafter gave a node after its parent. Bars: tokens of each round. Arrow keys step.</p>
<div id="text" class="box"></div>
<div id="steps"><button id="back">&#9664;</button><button id="next">&#9654;</button><div id="rounds"></div><span id="where"></span></div>
<div id="tree" class="box"></div>
<div class="bar" id="bar"></div>
<p id="times" class="soft"></p>
<script type="application/json" id="story">%STORY%</script>
<script>
"use strict";
const story = JSON.parse(document.getElementById("story").textContent), rounds = story.rounds;
const get = id => document.getElementById(id);
const colours = {draft: "#7aa6d8", verify: "#d88a7a", accept: "#8fc48f", commit: "#c9b26b"};
const wide = 128, step = 164, high = 34;
let now = 0;
function add(parent, name, attributes, text) {
  const svg = parent.namespaceURI === "http://www.w3.org/2000/svg" || name === "svg";
  const element = svg ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  return parent.appendChild(element);
}
function shown(piece) { return JSON.stringify(piece).slice(1, -1).replace(/^ /, "\u00b7") || "\u2205"; }
function short(piece, most) { const all = [...shown(piece)]; return all.length > most ? all.slice(0, most - 1).join("") + "\u2026" : all.join(""); }
function beyond(round) { return round.emits.length > round.accepted; }
function showText(at) {
  const box = get("text"); box.replaceChildren();
  add(box, "span", {class: "prompt"}, story.prompt);
  rounds.slice(0, at + 1).forEach((round, i) => round.emits.forEach((piece, k) => {
    const last = k === round.emits.length - 1 && beyond(round);
    add(box, "span", i < at ? {} : {class: last ? "chosen" : "accepted"}, piece);
  }));
}
// Nodes with places: the draft, and behind its accepted path what the target chose.
function laidOut(round) {
  const nodes = round.nodes.map(n => ({...n})), below = nodes.map(() => []);
  if (beyond(round)) {
    let end = 0; nodes.forEach((n, i) => { if (n.kept) end = Math.max(end, i); });
    nodes.push({piece: round.emits[round.emits.length - 1], parent: end, chosen: true}); below.push([]);
  }
  nodes.forEach((n, i) => { n.depth = i ? nodes[n.parent].depth + 1 : 0; if (i) below[n.parent][n.chosen ? "unshift" : "push"](i); });
  let leaves = 0;
  const place = i => {
    if (below[i].length === 0) { nodes[i].row = leaves++; return; }
    below[i].forEach(place);
    nodes[i].row = (nodes[below[i][0]].row + nodes[below[i][below[i].length - 1]].row) / 2;
  };
  place(0);
  return {nodes, leaves};
}
function showTree(round) {
  const {nodes, leaves} = laidOut(round), box = get("tree"); box.replaceChildren();
  const x = n => 12 + n.depth * step, y = n => 22 + n.row * high;
  const svg = add(box, "svg", {width: wide + 24 + Math.max(...nodes.map(n => n.depth)) * step, height: 44 + (leaves - 1) * high, role: "img"});
  const colour = n => n.chosen ? "var(--chosen)" : n.kept ? "var(--kept)" : "#c3c9d6";
  nodes.forEach((n, i) => {
    if (i === 0) return;
    const from = nodes[n.parent], left = x(from) + wide, middle = (left + x(n)) / 2;
    add(svg, "path", {d: `M${left},${y(from)} C${middle},${y(from)} ${middle},${y(n)} ${x(n)},${y(n)}`, fill: "none", stroke: colour(n), "stroke-width": n.kept || n.chosen ? 2.5 : 1.2, "stroke-dasharray": n.chosen ? "5 4" : "none"});
  });
  nodes.forEach((n, i) => {
    const fill = i === 0 ? "#e6e9f4" : n.chosen ? "var(--chosen-fill)" : n.kept ? "var(--kept-fill)" : "#f6f7fa";
    const group = add(svg, "g");
    add(group, "title", {}, shown(n.piece));
    add(group, "rect", {x: x(n), y: y(n) - 13, width: wide, height: 26, rx: 6, fill, stroke: i === 0 ? "#9aa5c4" : colour(n)});
    add(group, "text", {x: x(n) + 8, y: y(n) + 4}, short(n.piece, i === 0 || n.chosen ? 14 : 9));
    if (i && !n.chosen) add(group, "text", {x: x(n) + wide - 8, y: y(n) + 4, class: "p"}, n.p >= 0.0995 ? n.p.toFixed(2) : n.p >= 0.001 ? n.p.toFixed(3) : n.p.toExponential(0));
  });
}
function showTimes(round) {
  const bar = get("bar"), words = get("times"); bar.replaceChildren(); words.replaceChildren();
  const all = Object.values(round.seconds).reduce((a, b) => a + b, 0) || 1;
  for (const [stage, seconds] of Object.entries(round.seconds)) {
    add(bar, "div", {style: `width: ${100 * seconds / all}%; background: ${colours[stage]}`, title: stage});
    add(words, "span", {class: "key", style: `background: ${colours[stage]}`});
    add(words, "span", {}, `${stage} ${(1000 * seconds).toFixed(2)} ms`);
  }
}
function show(at) {
  if (rounds.length === 0) { get("where").textContent = "no rounds"; return; }
  now = Math.min(Math.max(at, 0), rounds.length - 1);
  const round = rounds[now];
  get("where").textContent = `round ${now + 1} of ${rounds.length}: ${round.accepted} of ${round.nodes.length - 1} nodes accepted`;
  [...get("rounds").children].forEach((bar, i) => bar.classList.toggle("now", i === now));
  showText(now); showTree(round); showTimes(round);
}
const leaf = path => path.split("+").map(part => part.split("/").filter(Boolean).pop() || part).join("+");
get("about").textContent = `${leaf(story.model)}, drafter ${leaf(story.drafter)}`;
const most = Math.max(1, ...rounds.map(round => round.emits.length));
rounds.forEach((round, i) => {
  const bar = add(get("rounds"), "div", {title: `round ${i + 1}: ${round.emits.length} tokens`});
  if (beyond(round)) add(bar, "i", {style: `height: ${100 / most}%`});
  add(bar, "i", {style: `height: ${100 * round.accepted / most}%; background: var(--kept)`});
  bar.onclick = () => show(i);
});
get("tree").style.minHeight = `${60 + high * Math.max(0, ...rounds.map(round => laidOut(round).leaves - 1))}px`;
get("back").onclick = () => show(now - 1);
get("next").onclick = () => show(now + 1);
document.onkeydown = event => { if (event.key === "ArrowLeft") show(now - 1); if (event.key === "ArrowRight") show(now + 1); };
show(Number(location.hash.slice(1)) - 1 || 0);
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
