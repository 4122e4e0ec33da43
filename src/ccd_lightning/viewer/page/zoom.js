// Enlarges and moves a picture within a frame: by wheel and drag here, by keys and buttons through the methods.

const STEP = 1.5;  // of a key or a button
const SHIFT = 0.15;  // of the frame's size, by which a key or a button moves the view
const WHEEL = 0.002, PINCH = 0.01;  // per pixel of scrolling; a pinch on a touchpad arrives as a wheel with Ctrl
const LINE = 16;  // pixels of a line, in which some browsers scroll
const LARGEST = 64;  // screen pixels per pixel of the image, up to which it can be enlarged
const LEAST = 8;  // times that any image can be enlarged
export const COARSE = 4;  // screen pixels per pixel of the image, from which pixels have sharp borders

export class Zoom {
  // `moved(zoom)` is called after each change.
  constructor(frame, picture, moved) {
    Object.assign(this, {frame, picture, moved, drag: null});
    this.clear();
    frame.addEventListener("wheel", (event) => this.wheel(event), {passive: false});
    frame.addEventListener("dblclick", () => this.reset());
    frame.addEventListener("pointerdown", (event) => this.grab(event));
    frame.addEventListener("pointermove", (event) => this.pull(event));
    for (const name of ["pointerup", "pointercancel"]) frame.addEventListener(name, () => this.release());
    new ResizeObserver(() => this.draw()).observe(frame);
  }

  clear() { Object.assign(this, {size: null, level: 1, x: 0.5, y: 0.5}); }

  // Shows a picture of this size in pixels, all of it.
  show(size) {
    this.clear();
    this.size = size;
    this.draw();
  }

  // Screen pixels per pixel of the picture when all of it is shown.
  get fit() { return Math.min(this.frame.clientWidth / this.size[0], this.frame.clientHeight / this.size[1]); }

  get scale() { return this.fit * this.level; }

  get most() { return Math.max(LEAST, LARGEST / this.fit); }

  get whole() { return this.level === 1; }

  // Enlarges by a factor. What is at a place of the screen, counted from the middle of the frame, stays there.
  by(factor, across = 0, down = 0) {
    if (!this.size) return false;
    const before = this.scale, [width, height] = this.size;
    const level = Math.max(1, Math.min(this.most, this.level * factor));
    const changed = level !== this.level;
    this.level = level < 1.001 ? 1 : level;  // rounding must not leave it a little above
    this.x += across / width * (1 / before - 1 / this.scale);
    this.y += down / height * (1 / before - 1 / this.scale);
    this.draw();
    return changed;
  }

  step(steps) { return this.by(STEP ** steps); }

  reset() { if (this.size) this.show(this.size); }

  // Moves the view over the picture, by screen pixels.
  move(across, down) {
    if (!this.size) return;
    this.x += across / (this.size[0] * this.scale);
    this.y += down / (this.size[1] * this.scale);
    this.draw();
  }

  // Moves the view by a part of the frame, in units of `SHIFT`.
  shift(across, down) { this.move(across * SHIFT * this.frame.clientWidth, down * SHIFT * this.frame.clientHeight); }

  draw() {
    const {frame, picture} = this;
    if (!this.size || !frame.clientWidth) return;  // nothing to show, or hidden behind the grid
    const place = (name, length, all, from, extent) => {  // the picture covers the frame, or is in its middle
      const shown = length * this.scale, half = Math.min(0.5, all / shown / 2);
      this[name] = Math.max(half, Math.min(1 - half, this[name]));
      picture.style[from] = `${Math.round(all / 2 - this[name] * shown)}px`;
      picture.style[extent] = `${Math.round(shown)}px`;
    };
    place("x", this.size[0], frame.clientWidth, "left", "width");
    place("y", this.size[1], frame.clientHeight, "top", "height");
    picture.classList.toggle("coarse", this.scale >= COARSE);
    frame.classList.toggle("enlarged", !this.whole);
    this.moved(this);
  }

  wheel(event) {
    const box = this.frame.getBoundingClientRect();
    const turned = event.deltaY * (event.deltaMode ? LINE : 1) * (event.ctrlKey ? PINCH : WHEEL);
    const [across, down] = [event.clientX - box.left - box.width / 2, event.clientY - box.top - box.height / 2];
    if (this.by(Math.exp(-turned), across, down) || event.ctrlKey) event.preventDefault();
  }

  grab(event) {
    if (event.button || this.whole) return;
    this.drag = [event.clientX, event.clientY];
    this.frame.setPointerCapture(event.pointerId);
    this.frame.classList.add("dragged");
  }

  pull(event) {
    if (!this.drag) return;
    this.move(this.drag[0] - event.clientX, this.drag[1] - event.clientY);
    this.drag = [event.clientX, event.clientY];
  }

  release() {
    this.drag = null;
    this.frame.classList.remove("dragged");
  }
}
