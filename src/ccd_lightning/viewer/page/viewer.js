// The page: its state, its controls and its keys. Everything is drawn from the state; names are only ever text.

import {Grid} from "./grid.js";
import {Large} from "./large.js";
import * as model from "./model.js";

const byId = (id) => document.getElementById(id);
const STEPS = 1000, BINS = 200;
const state = {sort: "high", kind: "", result: "", threshold: 0, chosen: new Set(), shown: [], ordered: [], large: false};
let results, range, grid, large, waiting = 0;

function tell(text) { byId("message").textContent = text; }

function fillTile(tile, index) {
  const name = model.resultOf(results, index, state.threshold), chosen = state.chosen.has(index);
  const score = model.short(results.scores[index]);
  tile.dataset.result = name;
  tile.setAttribute("aria-selected", chosen);
  tile.setAttribute("aria-label",
    `${results.names[index]}, score ${score}, ${model.TERMS[name]}${chosen ? ", chosen" : ""}`);
  tile.title = results.names[index];
  tile.querySelector(".score").textContent = `${chosen ? "☑ " : ""}${score}`;
  tile.querySelector(".result").textContent = model.RESULTS[name];
}

// Redraws what depends on the state, once for all changes before the next frame.
function update() {
  if (!waiting) waiting = requestAnimationFrame(() => { waiting = 0; draw(); });
}

function draw() {
  const current = state.shown[grid.active];
  state.shown = model.filter(results, state.ordered, state);
  if (!state.shown.length) state.large = false;
  byId("grid").hidden = state.large;  // before its tiles are drawn, which takes its size
  byId("large").hidden = !state.large;
  grid.show(state.shown, Math.max(0, state.shown.indexOf(current)));
  byId("count").textContent = `${state.shown.length.toLocaleString("en")} of ${results.names.length.toLocaleString("en")} images`;
  byId("chosen").textContent = `${state.chosen.size} chosen`;
  for (const id of ["clear", "table", "pictures"]) byId(id).disabled = !state.chosen.size;
  byId("choose-all").disabled = !state.shown.length;
  byId("reset").disabled = results.threshold === null || state.threshold === results.threshold;
  drawThreshold();
  if (state.large) {
    const index = state.shown[grid.active];
    large.describe(index, state.threshold, grid.active, state.shown.length, state.chosen.has(index));
    large.show(index, state.shown[grid.active + 1]);
    large.zoom.draw();
  }
}

function drawThreshold() {
  const [low, high] = range, {threshold} = state;
  byId("slider").value = STEPS * (threshold - low) / (high - low);
  byId("slider").setAttribute("aria-valuetext", model.short(threshold));
  if (document.activeElement !== byId("exact")) byId("exact").value = Number(threshold.toPrecision(6));
  drawCounts(model.countResults(results, threshold));
  drawHistogram();
}

function drawCounts(counts) {
  const cells = Object.entries(counts).map(([name, count]) => [model.RESULTS[name], count, model.TERMS[name]]);
  if (results.labelled) {
    const {tp, fn, fp, tn} = counts;
    cells.push(["sensitivity", model.share(tp, tp + fn, "–"), "detected among abnormal images"]);
    cells.push(["specificity", model.share(tn, tn + fp, "–"), "correctly cleared among normal images"]);
  }
  byId("counts").replaceChildren(...cells.map(([title, value, meaning]) => {
    const [cell, number] = [document.createElement("span"), document.createElement("b")];
    number.textContent = value;
    cell.title = meaning;
    cell.append(number, title);
    return cell;
  }));
}

// Abnormal images above the line, normal ones below: the place tells them apart, not the colour alone.
function drawHistogram() {
  const canvas = byId("histogram"), style = getComputedStyle(document.documentElement), scale = devicePixelRatio;
  const width = canvas.clientWidth, height = 44, middle = results.labelled ? height / 2 : height;
  canvas.width = width * scale;
  canvas.height = height * scale;
  const pen = canvas.getContext("2d");
  pen.scale(scale, scale);
  const [normal, abnormal] = model.histogram(results, range, BINS);
  const top = Math.sqrt(Math.max(1, ...normal, ...abnormal)), bar = width / BINS;
  const draw = (counts, colour, upwards) => {
    pen.fillStyle = style.getPropertyValue(colour);
    counts.forEach((count, bin) => {  // by the root, so that single images can be seen
      const size = Math.sqrt(count) / top * (middle - 1);
      pen.fillRect(bin * bar, upwards ? middle - size : middle + 1, Math.max(1, bar - 0.5), size);
    });
  };
  draw(results.labelled ? abnormal : normal, "--abnormal", true);
  if (results.labelled) draw(normal, "--normal", false);
  pen.fillStyle = style.getPropertyValue("--ink");
  pen.fillRect(0, Math.min(middle, height - 1), width, 1);
  pen.fillRect(width * (state.threshold - range[0]) / (range[1] - range[0]) - 1, 0, 2, height);
}

function setThreshold(value) {
  if (Number.isFinite(value)) { state.threshold = value; update(); }
}

function move(by) {
  grid.move(grid.active + by);
  update();
}

function open(place) {
  grid.move(place);
  state.large = true;
  update();
  requestAnimationFrame(() => byId("name").focus({preventScroll: true}));
}

function back() {
  state.large = false;
  large.close();
  update();
  requestAnimationFrame(() => { grid.reveal(); byId("grid").focus({preventScroll: true}); });
}

function choose() {
  const index = state.shown[grid.active];
  if (index === undefined) return;
  if (!state.chosen.delete(index)) state.chosen.add(index);
  update();
}

async function download(name) {
  tell(name.endsWith("zip") ? "Drawing the pictures" : "");
  const query = `rows=${model.pack(state.chosen, results.names.length)}&threshold=${state.threshold}`;
  const answer = await fetch(`${name}?${query}`).catch(() => null);
  if (!answer || !answer.ok) { tell(answer ? await answer.text() : "ccd view does not answer: it was stopped."); return; }
  const link = document.createElement("a");
  link.href = URL.createObjectURL(await answer.blob());
  link.download = name;
  link.click();
  URL.revokeObjectURL(link.href);
  tell("");
}

const LETTERS = {
  j: () => move(1), k: () => move(-1), x: choose, r: () => byId("reset").click(), t: () => byId("exact").focus(),
  "+": () => large.zoom.step(1), "=": () => large.zoom.step(1), "-": () => large.zoom.step(-1),
  0: () => large.zoom.reset(),
  o: () => large.toggle("map"), l: () => large.toggle("lines"), m: () => large.toggle("mask"),
  f: () => byId(byId("kinds").hidden || document.activeElement === byId("kind") ? "result" : "kind").focus(),
  "?": () => byId("keys").showModal(),
};

const PANS = {ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1]};

function press(event) {
  if (event.ctrlKey || event.altKey || event.metaKey || byId("keys").open) return;
  const target = event.target.closest("input, select, button"), row = state.large ? 1 : grid.columns;
  const typing = target && (target.tagName === "SELECT" || ["number", "range"].includes(target.type));
  const moves = {ArrowRight: 1, ArrowLeft: -1, ArrowDown: row, ArrowUp: -row, PageDown: grid.page, PageUp: -grid.page,
    Home: -Infinity, End: Infinity};
  if (event.key === "Escape") { if (state.large) back(); else byId("grid").focus(); }
  else if (event.key === "Enter" && !target && !state.large && state.shown.length) open(grid.active);
  else if (event.shiftKey && event.key in PANS && state.large && !typing) large.zoom.shift(...PANS[event.key]);
  else if (event.key in moves && !typing) move(moves[event.key]);
  else if (event.key in LETTERS && byId("letters").checked && !(typing && target.type !== "range" && event.key !== "f")) {
    LETTERS[event.key]();
  } else return;
  event.preventDefault();
}

function option(value, text) {
  const made = document.createElement("option");
  made.value = value;
  made.textContent = text;
  return made;
}

function connect() {
  byId("sort").addEventListener("change", (event) => {
    state.ordered = model.order(results, event.target.value);
    update();
  });
  byId("kind").addEventListener("change", (event) => { state.kind = event.target.value; update(); });
  byId("result").addEventListener("change", (event) => { state.result = event.target.value; update(); });
  byId("slider").addEventListener("input", (event) =>
    setThreshold(range[0] + (range[1] - range[0]) * event.target.value / STEPS));
  byId("exact").addEventListener("input", (event) => setThreshold(event.target.valueAsNumber));
  byId("reset").addEventListener("click", () => setThreshold(results.threshold));
  byId("choose-all").addEventListener("click", () => { state.shown.forEach((index) => state.chosen.add(index)); update(); });
  byId("clear").addEventListener("click", () => { state.chosen.clear(); update(); });
  byId("table").addEventListener("click", () => download("chosen.csv"));
  byId("pictures").addEventListener("click", () => download("chosen.zip"));
  byId("help").addEventListener("click", () => byId("keys").showModal());
  byId("back").addEventListener("click", back);
  byId("previous").addEventListener("click", () => move(-1));
  byId("next").addEventListener("click", () => move(1));
  byId("choose").addEventListener("change", choose);
  document.addEventListener("keydown", press);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", update);
  new ResizeObserver(update).observe(byId("histogram"));
}

async function start() {
  results = await (await fetch("results.json")).json();
  range = model.rangeOf(results);
  state.threshold = results.threshold ?? (range[0] + range[1]) / 2;
  state.ordered = model.order(results, state.sort);
  document.title = `${results.run} – ccd view`;
  byId("run").textContent = results.run;
  const kinds = model.kindsOf(results);
  byId("kinds").hidden = kinds.length < 2;
  byId("kind").append(option("", "all"), ...kinds.map(([kind, count]) => option(`=${kind}`, `${kind || "unknown"} (${count})`)));
  const names = Object.keys(model.countResults(results, 0));
  byId("result").append(option("", "all"), ...names.map((name) => option(name, model.TERMS[name])), option("chosen", "chosen"));
  const own = results.threshold !== null, warnings = [];
  if (!own) warnings.push("The run has no threshold of its own.");
  if (results.labelled) {
    warnings.push("A threshold that is chosen by looking at these labels is optimistic: on other images, expect less.");
    if (own) warnings.push("The run's own was set without them.");
  }
  byId("warning").textContent = warnings.join(" ");
  tell(results.maps);
  grid = new Grid(byId("grid"), byId("space"), fillTile, open);
  large = new Large(results);
  connect();
  draw();
  byId("grid").focus();
}

start().catch((error) => tell(`The page cannot be shown: ${error.message}`));
