/** The tools on the left, their options above, and the keys for both. */

import { el, icon, iconButton } from '../parts/dom.js';
import { sheet } from '../parts/shell.js';
import { fromHex, PALETTE, prominent, toHex } from './colours.js';

const TOOLS = [
  ['brush', 'Brush', 'b'],
  ['eraser', 'Eraser', 'e'],
  ['fill', 'Fill', 'g'],
  ['picker', 'Colour from the picture', 'i'],
  ['hand', 'Move the picture', 'h'],
];

export const KEYS = [
  ['B  E  G  I  H', 'Brush, eraser, fill, colour from the picture, hand'],
  ['M', 'Paint, or mask'],
  ['[  ]', 'Smaller, larger brush'],
  ['Ctrl Z, Ctrl Shift Z', 'Undo, redo: without end'],
  ['Arrow keys', 'Move the brush, with Shift by ten pixels'],
  ['Enter', 'Put the brush down, lift it'],
  ['Shift and click', 'A straight line from the last point'],
  ['+  −  0', 'Zoom in, out, fit'],
  ['Wheel, pinch', 'Zoom'],
  ['Space and drag, Alt and arrows', 'Move the picture'],
  ['V', 'Show or hide the veil of the mask'],
  ['R', 'Canvas, or result'],
  ['Ctrl Enter', 'Paint'],
  ['?', 'This sheet'],
];

export const help = () => sheet('Keys', el('dl.keys', {}, KEYS.flatMap(([keys, does]) => [el('dt', {}, el('kbd', {}, keys)), el('dd', {}, does)])));

/** `kit` is what the hands hold; `act` what else the buttons do: {undo, redo, fit, zoom, veil, clear, invert, load, save}. */
export class Toolbox {
  constructor(kit, { tools, options, act }) {
    Object.assign(this, { kit, act, options });
    this.buttons = new Map(TOOLS.map(([tool, name, key]) => [tool, iconButton(tool, `${name} (${key.toUpperCase()})`, () => this.take(tool), { 'data-tool': tool })]));
    this.undo = iconButton('undo', 'Undo (Ctrl Z)', () => act.undo());
    this.redo = iconButton('redo', 'Redo (Ctrl Shift Z)', () => act.redo());
    tools.append(
      el('div.group', {}, [...this.buttons.values()]),
      el('div.group', {}, this.undo, this.redo),
      el('div.group', {}, iconButton('minus', 'Zoom out (−)', () => act.zoom(1 / 1.5)), iconButton('fit', 'Fit (0)', () => act.fit()), iconButton('plus', 'Zoom in (+)', () => act.zoom(1.5))),
      el('div.group', {}, iconButton('help', 'Keys (?)', help)),
    );
    this.#rove(tools);
    this.#options();
    this.refresh();
  }

  take(tool) {
    this.kit.tool = tool;
    this.refresh();
  }

  layer(layer) {
    this.kit.layer = layer;
    if (layer === 'mask' && this.kit.tool === 'picker') this.kit.tool = 'brush';
    this.refresh();
  }

  colour(rgb) {
    this.kit.colour = rgb;
    if (this.kit.layer === 'mask') this.kit.layer = 'paint';
    if (['picker', 'eraser', 'hand'].includes(this.kit.tool)) this.kit.tool = 'brush';
    this.refresh();
  }

  size(size) {
    this.kit.size = Math.max(1, Math.min(400, Math.round(size)));
    this.refresh();
  }

  /** Offer the colours that a picture is made of. */
  fromPicture(bytes) {
    this.found.replaceChildren(...prominent(bytes, 4).map((rgb) => this.#swatch(toHex(rgb), 'of the picture')));
    this.refresh();
  }

  /** Say what there is to undo and what the buttons mean now. */
  refresh(drawing = this.drawing) {
    this.drawing = drawing;
    const { kit } = this;
    for (const [tool, button] of this.buttons) button.setAttribute('aria-pressed', String(tool === kit.tool));
    for (const button of this.layers.children) button.setAttribute('aria-pressed', String(button.value === kit.layer));
    this.sizeRange.value = Math.sqrt(kit.size);
    this.sizeRange.style.setProperty('--part', `${((this.sizeRange.value - 1) / 19) * 100}%`);
    this.sizeNumber.value = kit.size;
    this.picker.value = toHex(kit.colour);
    for (const swatch of this.options.querySelectorAll('.swatch')) swatch.setAttribute('aria-pressed', String(swatch.value === toHex(kit.colour)));
    this.swatches.hidden = kit.layer === 'mask';
    this.masking.hidden = kit.layer !== 'mask';
    this.sizing.hidden = !['brush', 'eraser'].includes(kit.tool);
    this.tolerance.hidden = kit.tool !== 'fill' || kit.layer === 'mask';
    this.undo.disabled = !drawing?.done.length;
    this.redo.disabled = !drawing?.undone.length;
  }

  #options() {
    const { kit, act } = this;
    const layer = (value, shape, title) => el('button', { type: 'button', value, title: `${title} (M)`, onclick: () => this.layer(value) }, icon(shape), title);
    this.layers = el('div.segments', { role: 'group', 'aria-label': 'Layer' }, layer('paint', 'brush', 'Paint'), layer('mask', 'mask', 'Mask'));
    this.sizeRange = el('input', { type: 'range', min: 1, max: 20, step: 0.05, 'aria-label': 'Brush size', oninput: () => this.size(this.sizeRange.value ** 2) });
    this.sizeNumber = el('input', { type: 'number', min: 1, max: 400, 'aria-label': 'Brush size in pixels', onchange: () => this.size(Number(this.sizeNumber.value) || 1) });
    this.sizing = el('div.sizing', {}, this.sizeRange, this.sizeNumber);
    const reach = el('input', { type: 'range', min: 0, max: 128, value: kit.tolerance, oninput: () => (kit.tolerance = Number(reach.value)) });
    this.tolerance = el('label.sizing', {}, el('span', {}, 'Likeness'), reach);
    this.picker = el('input.wheel', { type: 'color', 'aria-label': 'Another colour', title: 'Another colour', oninput: () => this.colour(fromHex(this.picker.value)) });
    this.found = el('div.swatch-row', { role: 'group', 'aria-label': 'Colours of the picture' });
    this.swatches = el('div.swatches', {}, el('div.swatch-row', { role: 'group', 'aria-label': 'Colours' }, PALETTE.map((hex) => this.#swatch(hex))), this.found, this.picker);
    this.masking = el('div.masking', {}, iconButton('eye', 'Show or hide the veil (V)', () => act.veil()), iconButton('invert', 'Swap what may change and what stays', () => act.invert()));
    const file = el('input.hidden-file', { type: 'file', accept: 'image/*', 'aria-label': 'Load this layer from a file', onchange: () => act.load(file.files[0]).finally(() => (file.value = '')) });
    const layerFiles = el('div.layer-files', {},
      el('label.icon', { title: 'Load this layer from a file' }, icon('upload'), file),
      iconButton('download', 'Save this layer to a file', () => act.save()),
      iconButton('trash', 'Clear this layer', () => act.clear()),
    );
    this.options.append(this.layers, this.sizing, this.tolerance, this.swatches, this.masking, layerFiles);
  }

  #swatch(hex, more = '') {
    const button = el('button.swatch', { type: 'button', value: hex, title: hex, 'aria-label': `Colour ${hex} ${more}`.trim(), onclick: () => this.colour(fromHex(hex)) });
    button.style.setProperty('--colour', hex);
    return button;
  }

  /** One stop for Tab in the toolbar; arrows go on from there. */
  #rove(bar) {
    const buttons = () => [...bar.querySelectorAll('button')];
    buttons().forEach((button, i) => (button.tabIndex = i ? -1 : 0));
    bar.addEventListener('keydown', (event) => {
      const step = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 }[event.key];
      if (!step) return;
      event.preventDefault();
      const usable = buttons().filter((button) => !button.disabled);
      const next = usable[(usable.indexOf(document.activeElement) + step + usable.length) % usable.length];
      buttons().forEach((button) => (button.tabIndex = button === next ? 0 : -1));
      next.focus();
    });
  }
}

/** Keys that work anywhere on the page, but not while something is being typed. */
export function listen(box, act) {
  const plain = {
    ...Object.fromEntries(TOOLS.map(([tool, , key]) => [key, () => box.take(tool)])),
    m: () => box.layer(box.kit.layer === 'mask' ? 'paint' : 'mask'),
    '[': () => box.size(box.kit.size - Math.max(1, Math.round(box.kit.size / 8))),
    ']': () => box.size(box.kit.size + Math.max(1, Math.round(box.kit.size / 8))),
    '+': () => act.zoom(1.5),
    '=': () => act.zoom(1.5),
    '-': () => act.zoom(1 / 1.5),
    0: () => act.fit(),
    v: () => act.veil(),
    r: () => act.turn(),
    '?': help,
  };
  document.addEventListener('keydown', (event) => {
    if (event.target.closest('dialog, textarea, select, input:not([type=range], [type=checkbox], [type=color])')) return;
    const key = event.key.toLowerCase();
    if (event.ctrlKey || event.metaKey) {
      if (key === 'z') (event.shiftKey ? act.redo : act.undo)();
      else if (key === 'y') act.redo();
      else return;
    } else if (plain[key] && !event.altKey) plain[key]();
    else return;
    event.preventDefault();
  });
}
