/**
 * What is painted: a picture (or a flat ground), strokes over it and a mask, as integers in arrays of their own.
 *
 * `paint` holds one 32-bit pixel a place, the four bytes R, G, B, 255 in that order, or 0 where nothing is painted; `mask`
 * one byte, 255 where the picture may change. Strokes have hard edges, so a pixel is painted or is not, and what a
 * method gets is what is here. Undo keeps the tiles that a gesture touched, run-length packed, never whole pictures.
 */

import { disc } from './disc.js';
import { flood } from './flood.js';
import { pack, unpack } from './runs.js';

export const TILE = 64;

export class Drawing {
  /** Paint on `base` (RGBA bytes; opacity is ignored), or on a flat `ground` colour [r, g, b]. */
  constructor(width, height, { base = null, ground = [255, 255, 255] } = {}) {
    this.width = width;
    this.height = height;
    this.base = base ?? new Uint8Array(new Uint32Array(width * height).fill(packed(ground)).buffer);
    for (let i = 3; i < this.base.length; i += 4) this.base[i] = 255;
    this.layers = { paint: new Uint32Array(width * height), mask: new Uint8Array(width * height) };
    this.done = [];
    this.undone = [];
    this.gesture = null;
    this.across = Math.ceil(width / TILE);
    /** Called with a layer's name and the rectangle [x0, y0, x1, y1) that changed. */
    this.changed = () => {};
  }

  get paint() {
    return this.layers.paint;
  }

  get mask() {
    return this.layers.mask;
  }

  /** Start a gesture: what happens until `end` is one step of undo. */
  begin() {
    this.gesture ??= new Map();
  }

  /** End the gesture; true if it changed anything. */
  end() {
    const touched = [...(this.gesture?.values() ?? [])];
    this.gesture = null;
    const entry = touched.filter(({ layer, tile, before }) => !same(before, pack(this.#read(layer, tile))));
    if (!entry.length) return false;
    this.done.push(entry.map(({ layer, tile, before }) => ({ layer, tile, pixels: before })));
    this.undone = [];
    return true;
  }

  /** Take back what the gesture did so far, as if it had never begun. */
  abandon() {
    const touched = [...(this.gesture?.values() ?? [])];
    this.gesture = null;
    for (const { layer, tile, before } of touched) this.#write(layer, tile, unpack(before));
  }

  /** One touch of a round brush, `size` pixels across, at the pixel (x, y). */
  dab(layer, x, y, size, value) {
    this.line(layer, x, y, x, y, size, value);
  }

  /** A stroke with a round brush between the pixels (x0, y0) and (x1, y1), both included (Bresenham). */
  line(layer, x0, y0, x1, y1, size, value) {
    const rows = disc(size);
    const reach = size + 1;
    this.#touch(layer, Math.min(x0, x1) - reach, Math.min(y0, y1) - reach, Math.max(x0, x1) + reach, Math.max(y0, y1) + reach);
    const [dx, dy] = [Math.abs(x1 - x0), -Math.abs(y1 - y0)];
    const [sx, sy] = [x0 < x1 ? 1 : -1, y0 < y1 ? 1 : -1];
    for (let [x, y, error] = [x0, y0, dx + dy]; ;) {
      this.#stamp(layer, x, y, rows, value);
      if (x === x1 && y === y1) break;
      const twice = 2 * error;
      if (twice >= dy) [error, x] = [error + dy, x + sx];
      if (twice <= dx) [error, y] = [error + dx, y + sy];
    }
    this.#tell(layer, Math.min(x0, x1) - reach, Math.min(y0, y1) - reach, Math.max(x0, x1) + reach, Math.max(y0, y1) + reach);
  }

  /** Fill what hangs together with (x, y): paint by colour, within `tolerance` a channel; the mask by its own value. */
  fill(layer, x, y, value, tolerance = 0) {
    if (!this.holds(x, y)) return;
    const seen = layer === 'mask' ? { data: this.mask, step: 1, tolerance: 0 } : { data: this.composite(4), step: 4, tolerance };
    this.#touch(layer, 0, 0, this.width, this.height);
    flood(this.width, this.height, x, y, seen, (from, to) => this.layers[layer].fill(value, from, to));
    this.#tell(layer, 0, 0, this.width, this.height);
  }

  /** Put `values` (as the layer holds them) in place of a layer, as one step. */
  put(layer, values) {
    this.begin();
    this.#touch(layer, 0, 0, this.width, this.height);
    this.layers[layer].set(values);
    this.end();
    this.#tell(layer, 0, 0, this.width, this.height);
  }

  clear(layer) {
    this.put(layer, new this.layers[layer].constructor(this.width * this.height));
  }

  invertMask() {
    this.put('mask', this.mask.map((value) => 255 - value));
  }

  /** Take back one step; false if there is none. */
  undo() {
    return this.#swap(this.done, this.undone);
  }

  redo() {
    return this.#swap(this.undone, this.done);
  }

  holds(x, y) {
    return x >= 0 && y >= 0 && x < this.width && y < this.height;
  }

  isEmpty(layer) {
    return this.layers[layer].every((value) => value === 0);
  }

  /** The colour seen at (x, y): [r, g, b]. */
  pick(x, y) {
    const at = y * this.width + x;
    const bytes = this.paint[at] ? new Uint8Array(this.paint.buffer, at * 4, 3) : this.base.subarray(at * 4, at * 4 + 3);
    return [...bytes];
  }

  /** The picture with its strokes: `channels` (3 or 4) bytes a pixel. */
  composite(channels = 3) {
    const out = new Uint8Array(this.width * this.height * channels).fill(255);
    const strokes = new Uint8Array(this.paint.buffer);
    for (let i = 0; i < this.paint.length; i++) {
      const from = this.paint[i] ? strokes : this.base;
      for (let c = 0; c < 3; c++) out[i * channels + c] = from[i * 4 + c];
    }
    return out;
  }

  #stamp(layer, x, y, rows, value) {
    const pixels = this.layers[layer];
    for (const [row, first, last] of rows) {
      if (y + row < 0 || y + row >= this.height) continue;
      const [from, to] = [Math.max(0, x + first), Math.min(this.width, x + last + 1)];
      if (from < to) pixels.fill(value, (y + row) * this.width + from, (y + row) * this.width + to);
    }
  }

  /** Remember the tiles under a rectangle as they are before the gesture changes them. */
  #touch(layer, x0, y0, x1, y1) {
    if (!this.gesture) throw new Error('A gesture has to begin first.');
    const [left, top] = [Math.max(0, Math.floor(x0 / TILE)), Math.max(0, Math.floor(y0 / TILE))];
    const [right, bottom] = [Math.min(this.width - 1, x1), Math.min(this.height - 1, y1)];
    for (let ty = top; ty * TILE <= bottom; ty++) {
      for (let tx = left; tx * TILE <= right; tx++) {
        const tile = ty * this.across + tx;
        const key = `${layer} ${tile}`;
        if (!this.gesture.has(key)) this.gesture.set(key, { layer, tile, before: pack(this.#read(layer, tile)) });
      }
    }
  }

  #box(tile) {
    const [x, y] = [(tile % this.across) * TILE, Math.floor(tile / this.across) * TILE];
    return [x, y, Math.min(x + TILE, this.width), Math.min(y + TILE, this.height)];
  }

  #read(layer, tile) {
    const [x0, y0, x1, y1] = this.#box(tile);
    const out = new Uint32Array((x1 - x0) * (y1 - y0));
    for (let y = y0; y < y1; y++) {
      out.set(this.layers[layer].subarray(y * this.width + x0, y * this.width + x1), (y - y0) * (x1 - x0));
    }
    return out;
  }

  #write(layer, tile, pixels) {
    const [x0, y0, x1, y1] = this.#box(tile);
    for (let y = y0; y < y1; y++) {
      this.layers[layer].set(pixels.subarray((y - y0) * (x1 - x0), (y - y0 + 1) * (x1 - x0)), y * this.width + x0);
    }
    this.changed(layer, [x0, y0, x1, y1]);
  }

  #swap(from, to) {
    this.end();
    const entry = from.pop();
    if (!entry) return false;
    to.push(
      entry.map(({ layer, tile, pixels }) => {
        const now = pack(this.#read(layer, tile));
        this.#write(layer, tile, unpack(pixels));
        return { layer, tile, pixels: now };
      }),
    );
    return true;
  }

  #tell(layer, x0, y0, x1, y1) {
    this.changed(layer, [Math.max(0, x0), Math.max(0, y0), Math.min(this.width, x1), Math.min(this.height, y1)]);
  }
}

/** [r, g, b] as one opaque pixel of `Drawing.paint`, whatever the machine's byte order. */
export function packed([r, g, b]) {
  return new Uint32Array(Uint8Array.of(r, g, b, 255).buffer)[0];
}

function same(one, other) {
  return one.length === other.length && one.every((value, i) => value === other[i]);
}
