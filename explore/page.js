// SPDX-License-Identifier: Apache-2.0
"use strict";
const { rows, budget, presets, names, better } = JSON.parse(document.getElementById("data").textContent);
const $ = id => document.getElementById(id);
const ok = row => row.status === "ok";
const has = (row, name) => typeof row[name] === "number";
const show = value => typeof value !== "number" ? (value ?? "") :
  Number.isInteger(value) ? value.toLocaleString("en") : value.toLocaleString("en", { maximumSignificantDigits: 5 });
const label = name => names[name] || name;
const numeric = [...new Set(rows.flatMap(row => Object.keys(row).filter(name => has(row, name))))];
const varied = Object.keys(rows[0] || {}).concat(numeric).filter((name, at, all) =>
  name.startsWith("config.") && all.indexOf(name) === at && new Set(rows.map(row => row[name])).size > 1);
// Told apart in light and dark, and by most who see colours otherwise (after Okabe and Ito); shapes tell the second choice apart.
const colours = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b8860b", "#56b4e9", "#8c564b", "#7f7f7f", "#6a3d9a", "#1b9e77", "#e7298a", "#a6761d"];
const symbols = ["circle", "square", "diamond", "triangle-up", "cross", "star", "triangle-down", "hexagon"];
let chosen = null, order = { name: null, up: true };

function options(id, values, text = value => value) {
  $(id).replaceChildren(...values.map(value => new Option(text(value), value)));
}
function filtered() {
  const words = $("text").value.toLowerCase().split(/\s+/).filter(Boolean);
  return rows.filter(row => (!$("study").value || row.study === $("study").value)
    && (!$("design").value || row.design === $("design").value)
    && words.every(word => JSON.stringify(row).toLowerCase().includes(word)));
}
// Rows that no other beats in both; `better` says which way a column is good (less, if unnamed).
function front(shown, x, y) {
  const sign = name => better[name] === "max" ? -1 : 1;
  const inside = shown.filter(row => ok(row) && has(row, x) && has(row, y));
  const value = row => [row[x] * sign(x), row[y] * sign(y)];
  return inside.filter(row => {
    const [a, b] = value(row);
    return !inside.some(other => {
      const [c, d] = value(other);
      return c <= a && d <= b && (c < a || d < b);
    });
  }).sort((one, other) => one[x] - other[x]);
}
function hover(row) {
  const lines = [`<b>${called(row)}</b>`, `${row.design} ${row.point}`];
  const same = rows.filter(other => other.design === row.design);
  for (const name of varied) if (has(row, name) || row[name]) if (same.some(other => other[name] !== row[name])) lines.push(`${name.slice(7)} = ${row[name]}`);
  for (const name of ["weights", "activations", "stream", "gelu_codes", "method", "reconstruct", "widths"]) if (row[name]) lines.push(`${name} = ${String(row[name]).slice(0, 60)}`);
  return lines.join("<br>");
}
// What a row is called in its study: by what differs there.
const ways = {};
function called(row) {
  const same = ways[row.study] ??= [...varied, "weights", "activations", "stream", "gelu_codes", "method", "reconstruct", "widths"].filter(name =>
    new Set(rows.filter(other => other.study === row.study).map(other => other[name])).size > 1);
  const values = same.map(name => row[name]).filter(value => value !== "" && value !== null && value !== undefined);
  return [row.study, ...values].join(" ").slice(0, 34);
}
// Colours of the page, which follow the reader's light or dark.
const theme = () => Object.fromEntries(["ink", "soft", "line", "back"].map(name =>
  [name, getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim()]));
const layout = (x, y) => ({ margin: { l: 80, r: 36, t: 20, b: 60 }, font: { family: "system-ui, sans-serif", size: 13, color: theme().ink },
  xaxis: { title: { text: label(x) }, gridcolor: theme().line, zeroline: false },
  yaxis: { title: { text: label(y) }, gridcolor: theme().line, zeroline: false },
  legend: { orientation: "h", y: 1.02, yanchor: "bottom", itemsizing: "constant" }, modebar: { orientation: "v" }, hovermode: "closest",
  paper_bgcolor: theme().back, plot_bgcolor: theme().back });
const settings = { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d"] };

// Axes that some point shown has: those that are chosen, or the first button's that will do.
function axes(shown) {
  const there = (x, y) => shown.some(row => ok(row) && has(row, x) && has(row, y));
  if (!there($("x").value, $("y").value)) {
    const other = presets.find(([, x, y]) => there(x, y));
    if (other) [$("x").value, $("y").value] = other.slice(1);
  }
  return [$("x").value, $("y").value];
}
function drawFront() {
  const shown = filtered(), [x, y] = axes(shown);
  const drawn = shown.filter(row => ok(row) && has(row, x) && has(row, y));
  const place = row => `${row[x]} ${row[y]}`, crowd = {};
  for (const row of drawn) (crowd[place(row)] ??= []).push(row);
  // Points at one place are one to the eye: all but the first are rings around it, and it says how
  // many there are, and which.
  const ring = row => crowd[place(row)].indexOf(row);
  const text = row => hover(row) + crowd[place(row)].filter(other => other !== row).map(other => `<br>also here: ${called(other)}`).slice(0, 8).join("");
  const kinds = name => [...new Set(drawn.map(row => String(row[name] ?? "")))];
  const hues = kinds($("colour").value), shapes = kinds($("shape").value), shaped = shapes.length > 1;
  // A number alone says nothing: it has the name of its column before it.
  const named = (id, value) => value === "" ? "none" : Number.isNaN(Number(value)) ? value : `${$(id).value.replace(/^config\./, "")} ${value}`;
  const traces = hues.map((hue, at) => {
    const part = drawn.filter(row => String(row[$("colour").value] ?? "") === hue);
    return { type: "scatter", mode: "markers+text", name: named("colour", hue), x: part.map(row => row[x]), y: part.map(row => row[y]),
      customdata: part.map(row => rows.indexOf(row)), hovertext: part.map(text),
      text: part.map(row => crowd[place(row)].length > 1 && crowd[place(row)][0] === row ? `${crowd[place(row)].length}` : ""),
      textposition: "top right", textfont: { color: theme().soft, size: 11 },
      marker: { size: part.map(row => 11 + 6 * Math.min(ring(row), 5)), opacity: 0.85, color: colours[at % colours.length],
        symbol: part.map(row => symbols[shapes.indexOf(String(row[$("shape").value] ?? "")) % symbols.length] + (ring(row) ? "-open" : "")),
        line: { width: part.map(row => row === chosen ? 3 : ring(row) ? 2 : 1),
          color: part.map(row => row === chosen ? theme().ink : ring(row) ? colours[at % colours.length] : theme().back) } },
      hovertemplate: `%{hovertext}<br>${label(x)}: %{x:,.6~g}<br>${label(y)}: %{y:,.6~g}<extra></extra>` };
  });
  // What a shape means: names without points of their own.
  if (shaped) for (const [at, shape] of shapes.entries())
    traces.push({ type: "scatter", mode: "markers", name: named("shape", shape), x: [null], y: [null], hoverinfo: "skip",
      marker: { size: 11, color: theme().soft, symbol: symbols[at % symbols.length] } });
  const line = front(drawn, x, y);
  traces.push({ type: "scatter", mode: "lines", name: "Pareto front", x: line.map(row => row[x]), y: line.map(row => row[y]),
    line: { color: theme().soft, width: 2, dash: "dot" }, hoverinfo: "skip" });
  const look = layout(x, y);
  if (!drawn.length) look.annotations = [{ text: "no point shown has both", showarrow: false, xref: "paper", yref: "paper", x: 0.5, y: 0.5 }];
  Plotly.react("front", traces, look, settings);
  for (const button of $("presets").children)
    button.setAttribute("aria-pressed", String(button.dataset.x === x && button.dataset.y === y));
}
function drawStack() {
  const target = $("target").value, shown = filtered().filter(row => ok(row) && has(row, `${target}.luteq`));
  $("areas").hidden = !shown.length;
  const ending = ".luteq", start = `${target}.part.`;
  const parts = numeric.filter(name => name.startsWith(start) && name.endsWith(ending)).map(name => name.slice(start.length, -ending.length));
  const size = unit => shown.reduce((sum, row) => sum + part(row, unit), 0);
  const plain = shown.map(called);
  const names = plain.map((name, at) => plain.indexOf(name) === plain.lastIndexOf(name) ? name : `${name} ${shown[at].point.slice(0, 4)}`);
  const part = (row, unit) => row[start + unit + ending] ?? (row.design === unit ? row[`${target}.luteq`] : 0);
  // The largest have a colour; what is left is the rest.
  const units = [...new Set([...parts, ...shown.map(row => row.design)])].filter(unit => unit !== "accelerator" && size(unit) > 0)
    .sort((one, other) => size(other) - size(one)).slice(0, colours.length);
  const traces = units.map((unit, at) => ({ type: "bar", name: unit, x: names, y: shown.map(row => part(row, unit)),
    marker: { color: colours[at] }, customdata: shown.map(row => rows.indexOf(row)), text: shown.map(hover), textposition: "none",
    hovertemplate: `%{text}<br>${unit}: %{y:,}<extra></extra>` }));
  traces.push({ type: "bar", name: "the rest", x: names, marker: { color: "#aab4be" }, text: shown.map(hover), textposition: "none",
    y: shown.map(row => Math.max(0, row[`${target}.luteq`] - units.reduce((sum, unit) => sum + part(row, unit), 0))),
    customdata: shown.map(row => rows.indexOf(row)), hovertemplate: "%{text}<br>the rest: %{y:,}<extra></extra>" });
  const look = layout("", `${target}.luteq`);
  Plotly.react("stack", traces, { ...look, barmode: "stack", xaxis: { ...look.xaxis, title: undefined, type: "category", tickangle: -45, automargin: true } }, settings);
  // It has no size while it is hidden.
  if (shown.length) Plotly.Plots.resize("stack");
}
const differs = name => new Set(rows.map(row => row[name])).size > 1;
function columns() {
  const first = ["design", "study", "status", "reason", ...varied, "weights", ...["activations", "stream", "gelu_codes", "method", "reconstruct", "widths"].filter(differs)];
  const measured = numeric.filter(name => !name.startsWith("config.") && !name.startsWith("seconds"));
  return [...new Set([...first, ...measured, "seconds"])].filter(name => rows.some(row => row[name] !== undefined
    && row[name] !== null && row[name] !== ""));
}
function drawTable() {
  const list = filtered(), wanted = columns();
  if (order.name) list.sort((one, other) => {
    const [a, b] = [one[order.name], other[order.name]];
    if (a === b) return 0;
    if (a === undefined || a === null) return 1;
    if (b === undefined || b === null) return -1;
    return (a < b ? -1 : 1) * (order.up ? 1 : -1);
  });
  const cell = (kind, text, title) => {
    const made = document.createElement(kind);
    made.textContent = text;
    if (title) made.title = title;
    return made;
  };
  const head = document.createElement("tr");
  for (const name of wanted) {
    const made = cell("th", name.replace(/^config\./, "") + (order.name === name ? (order.up ? " ▲" : " ▼") : ""), label(name));
    made.onclick = () => { order = { name, up: order.name === name ? !order.up : true }; drawTable(); };
    made.tabIndex = 0;
    if (!rows.some(row => has(row, name))) made.classList.add("text");
    made.onkeydown = event => { if (event.key === "Enter") made.onclick(); };
    head.append(made);
  }
  const body = list.map(row => {
    const line = document.createElement("tr");
    line.className = (ok(row) ? "" : "bad") + (row === chosen ? " chosen" : "");
    for (const name of wanted) {
      const long = name === "reason" || name === "widths";
      const made = cell("td", show(row[name]), long ? row[name] : "");
      if (typeof row[name] !== "number") made.classList.add("text");
      if (long) made.classList.add("long");
      line.append(made);
    }
    line.onclick = () => choose(row);
    return line;
  });
  $("table").replaceChildren(head, ...body);
  widen();
}
// Whether there is more of the table than can be seen, and where.
function widen() {
  const box = $("table").parentElement, wide = box.scrollWidth > box.clientWidth + 1;
  box.classList.toggle("more", wide && box.scrollLeft + box.clientWidth < box.scrollWidth - 1);
  $("wide").textContent = (wide ? `${columns().length} columns, wider than the page: scroll sideways. ` : "") + "A click on a heading sorts.";
}
function tomlOf(row) {
  const lines = [`# ${row.design} ${row.point}, study ${row.study}: python -m gen.verilog --config FILE`
    + (row.design === "network" ? "" : ` --unit ${row.design}`) + " -o FOLDER"];
  for (const [name, value] of Object.entries(row)) if (name.startsWith("config.") && value !== null)
    lines.push(`${name.slice(7)} = ${typeof value === "string" ? JSON.stringify(value) : value}`);
  return lines.join("\n") + "\n";
}
function choose(row) {
  chosen = row;
  $("toml").textContent = tomlOf(row);
  drawFront();
  drawTable();
}
// As `explore.table.Budget.answer`.
function answer() {
  const target = $("target").value;
  const limits = [["max_lut", `${target}.luteq`, 1], ["max_dsp", `${target}.dsp`, 1], ["min_fps", "fps", -1], ["max_drop", "drop", 1]];
  let left = filtered().filter(ok);
  for (const [id, column, sign] of limits) {
    if ($(id).value === "") continue;
    const bound = Number($(id).value), known = left.filter(row => has(row, column));
    if (!known.length) return void ($("answer").textContent = `No design: ${label(column)} was not measured.`);
    left = known.filter(row => row[column] * sign <= bound * sign);
    if (!left.length) {
      const nearest = known.reduce((best, row) => row[column] * sign < best[column] * sign ? row : best);
      return void ($("answer").textContent = `No design: ${label(column)} rules out all ${known.length} that are left; `
        + `the nearest has ${show(nearest[column])}.`);
    }
  }
  if (!left.length) return void ($("answer").textContent = "No design: no point shown has status ok.");
  const keys = [["fps", -1], ["elements_per_us", -1], ["elements_per_cycle", -1], [`${target}.luteq`, 1], ["drop", 1], ["logit_error", 1]];
  left.sort((one, other) => {
    for (const [name, sign] of keys) {
      const [a, b] = [one, other].map(row => has(row, name) ? row[name] * sign : Infinity);
      if (a !== b) return a < b ? -1 : 1;
    }
    return 0;
  });
  const best = left[0];
  $("answer").textContent = `${best.design} ${best.point} of ${best.study}: `
    + [`${target}.luteq`, `${target}.dsp`, "fps", "elements_per_cycle", "drop"].filter(name => has(best, name))
      .map(name => `${label(name)} ${show(best[name])}`).join(", ") + ". Its configuration is below.";
  choose(best);
}
function draw() { drawFront(); drawStack(); drawTable(); }

const failed = rows.filter(row => row.status === "failed").length, refused = rows.filter(row => row.status === "refused").length;
$("summary").textContent = `${rows.length} points: ${rows.length - failed - refused} measured, ${failed} failed, ${refused} refused `
  + "(a configuration that contradicts itself, or can't run the network). Areas and clock rates are measured; energy is an estimate.";
options("x", numeric, label); options("y", numeric, label);
for (const id of ["study", "design"]) options(id, ["", ...new Set(rows.map(row => row[id]))], value => value || "all");
options("target", ["ecp5", "xilinx"].filter(target => numeric.includes(`${target}.luteq`)));
if (!$("target").options.length) options("target", ["ecp5"]);
const usable = presets.filter(([, x, y]) => numeric.includes(x) && numeric.includes(y));
for (const [text, x, y] of usable) {
  const button = document.createElement("button");
  button.textContent = text;
  Object.assign(button.dataset, { x, y });
  button.onclick = () => { $("x").value = x; $("y").value = y; drawFront(); };
  $("presets").append(button);
}
// The first front to see is one that tells designs apart.
const telling = usable.find(([, x, y]) => differs(x) && differs(y)) || usable[0];
if (telling) [$("x").value, $("y").value] = telling.slice(1);
for (const [id, value] of Object.entries(budget)) if (value !== null) $(id).value = value;
const kinds = ["study", "design", "method", "weights", "activations", ...varied].filter(name => differs(name));
for (const id of ["colour", "shape"]) options(id, ["study", ...kinds.filter(name => name !== "study")], name => name.replace(/^config\./, ""));
$("colour").value = kinds.includes("method") ? "method" : kinds[0] || "study";
$("shape").value = [...kinds.filter(name => name === "study"), ...kinds].find(name => name !== $("colour").value) || "study";
for (const id of ["x", "y", "colour", "shape"]) $(id).onchange = drawFront;
matchMedia("(prefers-color-scheme: dark)").onchange = draw;
addEventListener("resize", widen);
$("table").parentElement.onscroll = widen;
for (const id of ["study", "design"]) $(id).onchange = () => { draw(); answer(); };
$("text").oninput = () => { draw(); answer(); };
for (const id of ["max_lut", "max_dsp", "min_fps", "max_drop"]) $(id).oninput = answer;
$("target").onchange = () => { answer(); draw(); };
$("copy").onclick = () => navigator.clipboard.writeText($("toml").textContent);
draw();
for (const id of ["front", "stack"]) $(id).on("plotly_click", event => {
  const at = event.points[0].customdata;
  if (at === undefined) return;
  // Another click on points at one place chooses the next of them.
  const [x, y] = [$("x").value, $("y").value];
  const here = id === "front" ? filtered().filter(row => ok(row) && row[x] === rows[at][x] && row[y] === rows[at][y]) : [];
  choose(here.includes(chosen) ? here[(here.indexOf(chosen) + 1) % here.length] : rows[at]);
});
answer();
