// One image with what can be laid over it.

import {TERMS, kindOf, resultOf, short} from "./model.js";
import {Zoom} from "./zoom.js";

const LAYERS = ["image", "map", "lines", "mask"];
const DIFFERENT = 0.01;  // of the score: the same image scores the same on every machine, up to rounding
const byId = (id) => document.getElementById(id);

export class Large {
  constructor(results) {
    Object.assign(this, {results, index: -1, urls: [], abort: new AbortController(), size: null});
    this.zoom = new Zoom(byId("stage"), byId("stack"), (zoom) => this.tellZoom(zoom));
    byId("image").addEventListener("load", ({target}) => this.zoom.show([target.naturalWidth, target.naturalHeight]));
    for (const name of ["map", "lines", "mask"]) byId(`show-${name}`).addEventListener("change", () => this.style());
    byId("opacity").addEventListener("input", () => this.style());
    this.style();
    this.connect();
  }

  connect() {
    const {zoom} = this, acts = {
      "zoom-in": () => zoom.step(1), "zoom-out": () => zoom.step(-1), "zoom-fit": () => zoom.reset(),
      "pan-left": () => zoom.shift(-1, 0), "pan-right": () => zoom.shift(1, 0),
      "pan-up": () => zoom.shift(0, -1), "pan-down": () => zoom.shift(0, 1),
    };
    for (const [id, act] of Object.entries(acts)) byId(id).addEventListener("click", act);
  }

  style() {
    for (const name of ["map", "lines", "mask"]) {
      byId(name).style.visibility = byId(`show-${name}`).checked ? "visible" : "hidden";
    }
    byId("map").style.opacity = byId("opacity").value / 100;
    byId("percent").textContent = `${byId("opacity").value}%`;
  }

  toggle(name) {
    byId(`show-${name}`).checked = !byId(`show-${name}`).checked;
    this.style();
  }

  // At 100% a pixel of the file is one of the screen. Buttons of no use now are not disabled, which would take the focus.
  tellZoom(zoom) {
    const {size} = this, reduced = size && size[0] > zoom.size[0];
    const percent = 100 * zoom.scale * (reduced ? zoom.size[0] / size[0] : 1);
    byId("zoom-level").textContent = `${percent < 10 ? percent.toFixed(1) : Math.round(percent).toLocaleString("en")}%`
      + `${zoom.whole ? ", whole image" : ""}${reduced ? `, reduced to ${Math.max(...zoom.size)} px` : ""}`;
    for (const button of document.querySelectorAll("#zoom button")) {
      button.setAttribute("aria-disabled", button.id === "zoom-in" ? zoom.level >= zoom.most : zoom.whole);
    }
  }

  // Shows an image; pictures of one that was asked for before are given up.
  async show(index, next) {
    if (index === this.index) return;
    this.close();
    this.index = index;
    const {results, abort} = this, wanted = ["image", "map", "lines"].concat(results.masks[index] ? ["mask"] : []);
    byId("show-mask").disabled = !results.masks[index];
    byId("notes").textContent = "Loading";
    const notes = [];
    await Promise.all(wanted.map((name) => this.load(name, index, abort.signal, notes)));
    if (abort.signal.aborted) return;
    if (results.labelled && results.labels[index] === 1 && !results.masks[index]) notes.push("No mask for this image.");
    byId("notes").textContent = [...new Set(notes)].join(" ");
    if (next !== undefined) {  // so that the server has it ready
      for (const name of ["image", "map"]) fetch(`${name}/${next}`, {signal: abort.signal}).catch(() => {});
    }
  }

  async load(name, index, signal, notes) {
    try {
      const answer = await fetch(`${name}/${index}`, {signal});
      if (!answer.ok) { notes.push(await answer.text()); return; }
      const blob = await answer.blob();
      if (signal.aborted) return;
      if (name === "image") this.size = answer.headers.get("X-Size").split("x").map(Number);
      const url = URL.createObjectURL(blob);
      this.urls.push(url);
      byId(name).src = url;
      byId(name).hidden = false;
      if (name === "map") this.compare(Number(answer.headers.get("X-Score")), index, notes);
    } catch (error) {
      if (!signal.aborted) notes.push("ccd view does not answer: it was stopped.");
    }
  }

  compare(now, index, notes) {
    const then = this.results.scores[index];
    if (Math.abs(now - then) > DIFFERENT * Math.max(Math.abs(now), Math.abs(then))) {
      notes.push(`This map gives the score ${short(now)}, the file says ${short(then)}: the image, the checkpoint or the`
        + " settings are not those that were scored.");
    }
  }

  close() {
    this.abort.abort();
    this.abort = new AbortController();
    this.urls.forEach((url) => URL.revokeObjectURL(url));
    Object.assign(this, {urls: [], index: -1, size: null});
    this.zoom.clear();
    byId("zoom-level").textContent = "";
    for (const name of LAYERS) {
      byId(name).removeAttribute("src");
      byId(name).hidden = true;
    }
  }

  describe(index, threshold, place, count, chosen) {
    const {results} = this, percentile = results.percentiles[index];
    byId("name").textContent = results.names[index];
    byId("name").title = `${results.base}/${results.names[index]}`;
    byId("place").textContent = `${place + 1} of ${count}`;
    byId("choose").checked = chosen;
    const facts = {
      Score: short(results.scores[index]),
      Percentile: percentile === null ? "" : `${percentile.toFixed(1)}, among held-out normal images`,
      Truth: results.labelled ? (results.labels[index] === 1 ? "abnormal" : "normal") : "",
      Kind: kindOf(results, index),
      Result: TERMS[resultOf(results, index, threshold)],
      "Patient or video": results.groups[index],
    };
    byId("facts").replaceChildren(...Object.entries(facts).filter(([, value]) => value).flatMap(([title, value]) => {
      const [term, text] = [document.createElement("dt"), document.createElement("dd")];
      term.textContent = title;
      text.textContent = value;
      return [term, text];
    }));
    byId("image").alt = `${results.names[index]}, ${facts.Result}`;
  }
}
