// One image with what can be laid over it.

import {TERMS, kindOf, resultOf, short} from "./model.js";

const LAYERS = ["image", "map", "lines", "mask"];
const DIFFERENT = 0.01;  // of the score: the same image scores the same on every machine, up to rounding
const byId = (id) => document.getElementById(id);

export class Large {
  constructor(results) {
    Object.assign(this, {results, index: -1, urls: [], abort: new AbortController(), size: null});
    byId("image").addEventListener("load", (event) => {
      this.size = [event.target.naturalWidth, event.target.naturalHeight];
      this.fit();
    });
    for (const name of ["map", "lines", "mask"]) byId(`show-${name}`).addEventListener("change", () => this.style());
    byId("opacity").addEventListener("input", () => this.style());
    new ResizeObserver(() => this.fit()).observe(byId("stage"));
    this.style();
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

  fit() {
    if (!this.size) return;
    const stage = byId("stage"), [width, height] = this.size;
    const scale = Math.min(stage.clientWidth / width, stage.clientHeight / height);
    byId("stack").style.width = `${Math.floor(width * scale)}px`;
    byId("stack").style.height = `${Math.floor(height * scale)}px`;
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
