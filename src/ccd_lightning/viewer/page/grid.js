// A grid of thumbnails in which only what can be seen is in the document, however many images there are.

const WIDTH = 150, HEIGHT = 176, SPARE = 2;  // pixels of a tile, as in viewer.css; rows above and below what is seen
const MARGIN = 8;  // pixels that stay free below the active tile
const REST = 60;  // milliseconds without scrolling, after which thumbnails are asked for

export class Grid {
  // `fill(tile, index, place)` writes what a tile says; `open(place)` is called for the one that is clicked.
  constructor(box, space, fill, open) {
    Object.assign(this, {box, space, fill, active: 0, shown: [], tiles: new Map(), free: [], rest: 0});
    box.addEventListener("scroll", () => this.draw());
    box.addEventListener("click", (event) => {
      const tile = event.target.closest(".tile");
      if (tile) open(Number(tile.dataset.place));
    });
    new ResizeObserver(() => { this.draw(); this.reveal(); }).observe(box);
  }

  get columns() { return Math.max(1, Math.floor(this.box.clientWidth / WIDTH)); }

  get page() { return Math.max(1, Math.floor(this.box.clientHeight / HEIGHT)) * this.columns; }

  show(shown, active) {
    this.shown = shown;
    this.active = Math.max(0, Math.min(active, shown.length - 1));
    this.draw();
  }

  move(place) {
    this.active = Math.max(0, Math.min(place, this.shown.length - 1));
    this.reveal();
    this.draw();
  }

  reveal() {
    const top = Math.floor(this.active / this.columns) * HEIGHT;
    if (top < this.box.scrollTop) this.box.scrollTop = top;
    const least = top + HEIGHT + MARGIN - this.box.clientHeight;
    if (least > this.box.scrollTop) this.box.scrollTop = least;
  }

  draw() {
    if (!this.box.clientWidth) return;  // hidden behind the large view
    const columns = this.columns, count = this.shown.length;
    this.space.style.height = `${Math.ceil(count / columns) * HEIGHT}px`;
    const top = Math.floor(this.box.scrollTop / HEIGHT) - SPARE;
    const bottom = Math.ceil((this.box.scrollTop + this.box.clientHeight) / HEIGHT) + SPARE;
    const first = Math.max(0, top * columns), end = Math.min(count, bottom * columns);
    for (const [place, tile] of this.tiles) {
      if (place < first || place >= end) this.release(place, tile);
    }
    for (let place = first; place < end; place++) this.place(place, columns);
    this.box.setAttribute("aria-activedescendant", count ? `tile-${this.active}` : "");
    clearTimeout(this.rest);
    this.rest = setTimeout(() => this.load(), REST);
  }

  place(place, columns) {
    const tile = this.tiles.get(place) || this.take(place), index = this.shown[place];
    tile.style.transform = `translate(${place % columns * WIDTH}px, ${Math.floor(place / columns) * HEIGHT}px)`;
    tile.classList.toggle("active", place === this.active);
    tile.setAttribute("aria-posinset", place + 1);
    tile.setAttribute("aria-setsize", this.shown.length);
    if (tile.dataset.index !== String(index)) {
      tile.dataset.index = index;
      tile.querySelector("img").removeAttribute("src");
    }
    this.fill(tile, index);
  }

  take(place) {
    const tile = this.free.pop() || this.make();
    tile.id = `tile-${place}`;
    tile.dataset.place = place;
    this.tiles.set(place, tile);
    this.space.append(tile);
    return tile;
  }

  make() {
    const tile = document.createElement("div");
    tile.className = "tile";
    tile.setAttribute("role", "option");
    const image = document.createElement("img");
    image.alt = "";
    image.addEventListener("error", () => tile.classList.add("gone"));
    image.addEventListener("load", () => tile.classList.remove("gone"));
    const score = document.createElement("span"), result = document.createElement("span");
    score.className = "score";
    result.className = "result";
    tile.append(image, score, result);
    return tile;
  }

  release(place, tile) {
    this.tiles.delete(place);
    tile.remove();
    tile.dataset.index = "";
    tile.classList.remove("gone");
    tile.querySelector("img").removeAttribute("src");
    if (this.free.length < 200) this.free.push(tile);
  }

  load() {
    for (const tile of this.tiles.values()) {
      const image = tile.querySelector("img");
      if (!image.hasAttribute("src")) image.src = `thumbnail/${tile.dataset.index}`;
    }
  }
}
