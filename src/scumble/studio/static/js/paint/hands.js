/** Pointer, wheel, fingers and keys on the canvas become gestures of the drawing. */

import { packed } from './drawing.js';

/** `kit` is what is in the hand: {tool, layer, size, colour, tolerance}; `told` is called after each gesture. */
export class Hands {
  constructor(view, kit, { told = () => {}, picked = () => {}, spoken = () => {} } = {}) {
    Object.assign(this, { view, kit, told, picked, spoken });
    this.fingers = new Map();
    this.last = null;
    this.mode = null; // stroke, pan, pinch or keys
    this.space = false;
    this.place = null; // the keyboard's brush, [x, y]
    const { canvas } = view;
    const on = (name, call, options) => canvas.addEventListener(name, call.bind(this), options);
    on('pointerdown', this.#down);
    on('pointermove', this.#move);
    for (const name of ['pointerup', 'pointercancel']) on(name, this.#up);
    on('pointerleave', () => this.mode || this.view.point(null));
    on('wheel', this.#wheel, { passive: false });
    on('keydown', this.#keydown);
    on('contextmenu', (event) => event.preventDefault());
    on('blur', () => this.lift());
    document.addEventListener('keyup', (event) => event.code === 'Space' && (this.space = false));
  }

  get drawing() {
    return this.view.drawing;
  }

  get value() {
    if (this.kit.tool === 'eraser') return 0;
    return this.kit.layer === 'mask' ? 255 : packed(this.kit.colour);
  }

  #at(event) {
    return this.view.pixel(event.clientX, event.clientY, ['brush', 'eraser'].includes(this.kit.tool) ? this.kit.size : 1);
  }

  #down(event) {
    this.view.canvas.focus({ preventScroll: true });
    this.view.canvas.setPointerCapture(event.pointerId);
    this.fingers.set(event.pointerId, [event.clientX, event.clientY]);
    if (this.mode === 'keys') this.lift();
    if (this.fingers.size === 2) {
      if (this.mode === 'stroke') this.drawing.abandon();
      this.mode = 'pinch';
      return;
    }
    if (event.button === 1 || this.space || this.kit.tool === 'hand') this.mode = 'pan';
    else if (event.button === 0 && !this.#touch(this.#at(event))) {
      this.mode = 'stroke';
      this.#start(this.#at(event), event.shiftKey);
    }
  }

  /** Tools that act at one point; true if the tool is one. */
  #touch([x, y]) {
    const { tool, layer, tolerance } = this.kit;
    if (tool === 'picker') {
      if (this.drawing.holds(x, y)) this.picked(this.drawing.pick(x, y));
      return true;
    }
    if (tool !== 'fill') return false;
    this.drawing.begin();
    this.drawing.fill(layer, x, y, this.value, tolerance);
    this.drawing.end();
    this.told();
    return true;
  }

  #start(to, straight) {
    this.drawing.begin();
    const from = straight && this.last ? this.last : to;
    this.drawing.line(this.kit.layer, ...from, ...to, this.kit.size, this.value);
    this.last = to;
  }

  #move(event) {
    const before = this.fingers.get(event.pointerId);
    const size = ['brush', 'eraser'].includes(this.kit.tool) ? this.kit.size : 1;
    if (this.mode === 'pinch' && before) this.#pinch(event, before);
    else if (this.mode === 'pan' && before) this.view.pan(event.clientX - before[0], event.clientY - before[1]);
    else if (this.mode === 'stroke') {
      const moves = event.getCoalescedEvents?.() ?? [];
      for (const part of moves.length ? moves : [event]) {
        const to = this.#at(part);
        this.drawing.line(this.kit.layer, ...this.last, ...to, this.kit.size, this.value);
        this.last = to;
      }
    }
    if (before) this.fingers.set(event.pointerId, [event.clientX, event.clientY]);
    if (event.pointerType !== 'touch') this.view.point(this.kit.tool === 'hand' ? null : [...this.#at(event), size]);
  }

  #pinch(event, before) {
    const other = [...this.fingers].find(([id]) => id !== event.pointerId)?.[1];
    if (!other) return;
    const now = [event.clientX, event.clientY];
    const apart = (point) => Math.hypot(point[0] - other[0], point[1] - other[1]) || 1;
    const middle = (point) => [(point[0] + other[0]) / 2, (point[1] + other[1]) / 2];
    this.view.pan(middle(now)[0] - middle(before)[0], middle(now)[1] - middle(before)[1]);
    this.view.zoom(apart(now) / apart(before), ...middle(now));
  }

  #up(event) {
    this.fingers.delete(event.pointerId);
    if (this.mode === 'stroke') {
      this.drawing.end();
      this.told();
    }
    if (!this.fingers.size) this.mode = null;
    else if (this.mode === 'stroke') this.mode = null;
  }

  #wheel(event) {
    event.preventDefault();
    if (event.shiftKey || event.altKey) this.view.pan(-event.deltaX - (event.shiftKey ? event.deltaY : 0), event.shiftKey ? 0 : -event.deltaY);
    else this.view.zoom(Math.exp(-event.deltaY * (event.ctrlKey ? 0.01 : 0.0016)), event.clientX, event.clientY);
  }

  #keydown(event) {
    const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (event.ctrlKey || event.metaKey) return;
    if (event.code === 'Space') this.space = true;
    else if (arrows && event.altKey) this.view.pan(-arrows[0] * 48, -arrows[1] * 48);
    else if (arrows) this.#step(arrows, event.shiftKey ? 10 : 1);
    else if (event.key === 'Enter') this.#press();
    else if (event.key === 'Escape' && this.mode === 'keys') this.lift();
    else return;
    event.preventDefault();
  }

  #step([dx, dy], far) {
    const { width, height } = this.drawing;
    const from = this.place ?? [width >> 1, height >> 1];
    const within = (at, end) => Math.min(end - 1, Math.max(0, at));
    this.place = [within(from[0] + dx * far, width), within(from[1] + dy * far, height)];
    if (this.mode === 'keys') this.drawing.line(this.kit.layer, ...from, ...this.place, this.kit.size, this.value);
    this.#ring();
  }

  /** Enter: put the brush down where the keyboard's ring is, or lift it. */
  #press() {
    this.place ??= [this.drawing.width >> 1, this.drawing.height >> 1];
    if (this.mode === 'keys') this.lift();
    else if (!this.#touch(this.place) && this.kit.tool !== 'hand') {
      this.#start(this.place, false);
      this.mode = 'keys';
    }
    this.#ring();
  }

  /** End a stroke of the keyboard. */
  lift() {
    if (this.mode !== 'keys') return;
    this.mode = null;
    this.drawing.end();
    this.told();
    this.#ring();
  }

  #ring() {
    this.view.point([...this.place, this.kit.size, this.mode === 'keys'], { follow: true });
    this.spoken(`${this.place.join(', ')}${this.mode === 'keys' ? ', brush down' : ''}`);
  }
}
