/** A drawing on the screen: zoom, pan, the veil of the mask, the ring of the brush. It only shows; it changes no pixel. */

import { VEIL } from './colours.js';

const ZOOM = { least: 0.05, most: 64 };

export class View {
  constructor(canvas, drawing) {
    this.canvas = canvas;
    this.context = canvas.getContext('2d');
    this.scale = 1;
    this.left = 0;
    this.top = 0;
    this.veil = true;
    this.ring = null;
    this.fitted = true;
    this.queued = false;
    this.resized = new ResizeObserver(() => this.#resize());
    this.resized.observe(canvas);
    this.show(drawing);
  }

  /** Show another drawing, whole. */
  show(drawing) {
    this.drawing = drawing;
    const { width, height } = drawing;
    this.planes = { base: plane(width, height), paint: plane(width, height), mask: plane(width, height) };
    this.tint = new Uint8ClampedArray(width * height * 4);
    put(this.planes.base, new Uint8ClampedArray(drawing.base.buffer, drawing.base.byteOffset, drawing.base.length), [0, 0, width, height]);
    drawing.changed = (layer, box) => this.#refresh(layer, box);
    for (const layer of ['paint', 'mask']) this.#refresh(layer, [0, 0, width, height]);
    this.fit();
  }

  /** The pixel under a point of the window, for a brush of `size`: its centre, or its corner for an even size. */
  pixel(clientX, clientY, size = 1) {
    const box = this.canvas.getBoundingClientRect();
    const at = [(clientX - box.left - this.left) / this.scale, (clientY - box.top - this.top) / this.scale];
    return at.map(size % 2 ? Math.floor : Math.round);
  }

  /** The whole picture in the middle. */
  fit() {
    const [wide, high] = [this.canvas.clientWidth, this.canvas.clientHeight];
    const { width, height } = this.drawing;
    const room = Math.min((wide - 32) / width, (high - 32) / height);
    this.scale = clamp(room > 1 ? Math.floor(room * 4) / 4 : room);
    this.left = (wide - width * this.scale) / 2;
    this.top = (high - height * this.scale) / 2;
    this.fitted = true;
    this.draw();
  }

  /** Zoom by `factor` around a point of the window, or around the middle. */
  zoom(factor, clientX = null, clientY = null) {
    const box = this.canvas.getBoundingClientRect();
    const x = (clientX ?? box.left + box.width / 2) - box.left;
    const y = (clientY ?? box.top + box.height / 2) - box.top;
    const scale = clamp(this.scale * factor);
    this.left = x - ((x - this.left) * scale) / this.scale;
    this.top = y - ((y - this.top) * scale) / this.scale;
    this.scale = scale;
    this.fitted = false;
    this.draw();
  }

  pan(dx, dy) {
    this.left += dx;
    this.top += dy;
    this.fitted = false;
    this.draw();
  }

  /** Put the brush's ring at a pixel, [x, y, size], or nowhere; pan so far that a keyboard's brush is seen. */
  point(ring, { follow = false } = {}) {
    this.ring = ring;
    if (ring && follow) {
      const [x, y] = [this.left + ring[0] * this.scale, this.top + ring[1] * this.scale];
      const into = (at, end) => (at < 24 ? 24 - at : at > end - 24 ? end - 24 - at : 0);
      const [dx, dy] = [into(x, this.canvas.clientWidth), into(y, this.canvas.clientHeight)];
      if (dx || dy) this.pan(dx, dy);
    }
    this.draw();
  }

  draw() {
    if (this.queued) return;
    this.queued = true;
    requestAnimationFrame(() => {
      this.queued = false;
      this.#paint();
    });
  }

  #resize() {
    const ratio = devicePixelRatio || 1;
    this.canvas.width = Math.round(this.canvas.clientWidth * ratio);
    this.canvas.height = Math.round(this.canvas.clientHeight * ratio);
    if (this.fitted) this.fit();
    else this.draw();
  }

  #refresh(layer, box) {
    const { paint, mask, width } = this.drawing;
    if (layer === 'paint') put(this.planes.paint, new Uint8ClampedArray(paint.buffer), box);
    else {
      const [x0, y0, x1, y1] = box;
      for (let y = y0; y < y1; y++) {
        for (let at = y * width + x0; at < y * width + x1; at++) {
          this.tint.set(VEIL, at * 4);
          this.tint[at * 4 + 3] = (VEIL[3] * mask[at]) / 255;
        }
      }
      put(this.planes.mask, this.tint, box);
    }
    this.draw();
  }

  #paint() {
    const { context, canvas, scale, planes } = this;
    const ratio = devicePixelRatio || 1;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, canvas.width, canvas.height);
    context.setTransform(ratio * scale, 0, 0, ratio * scale, ratio * this.left, ratio * this.top);
    context.imageSmoothingEnabled = scale < 1;
    context.drawImage(planes.base, 0, 0);
    context.drawImage(planes.paint, 0, 0);
    if (this.veil) context.drawImage(planes.mask, 0, 0);
    if (this.ring) this.#ring(ratio);
  }

  #ring(ratio) {
    const { context, scale } = this;
    const [x, y, size, down] = this.ring;
    const half = size % 2 ? 0.5 : 0;
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    const centre = [this.left + (x + half) * scale, this.top + (y + half) * scale];
    for (const [colour, width] of [['rgba(0,0,0,.75)', down ? 4 : 3], ['#fff', down ? 2 : 1]]) {
      context.beginPath();
      context.arc(...centre, Math.max(3, (size * scale) / 2), 0, 2 * Math.PI);
      context.strokeStyle = colour;
      context.lineWidth = width;
      context.stroke();
    }
  }
}

const clamp = (scale) => Math.min(ZOOM.most, Math.max(ZOOM.least, scale));

function plane(width, height) {
  const canvas = document.createElement('canvas');
  canvas.width = width;
  canvas.height = height;
  return canvas;
}

function put(canvas, bytes, [x0, y0, x1, y1]) {
  if (x1 <= x0 || y1 <= y0) return;
  canvas.getContext('2d').putImageData(new ImageData(bytes, canvas.width), 0, 0, x0, y0, x1 - x0, y1 - y0);
}
