/** One control for each type of setting: `{node, get, set, focus}`. Calls `changed` after every change by hand. */

import { get } from './api.js';
import { el, iconButton } from './dom.js';
import { imageField, imagesField } from './pictures.js';
import { subjectsField } from './subjects.js';

function simple(node, changed, read, write) {
  node.addEventListener('input', changed);
  return { node, get: () => read(node), set: (value) => write(node, value), focus: () => node.focus() };
}

function text(spec, { id, changed }) {
  const long = ['prompt', 'instruction', 'instructions'].includes(spec.name);
  const node = long ? el('textarea', { id, rows: 3 }) : el('input', { id, type: 'text' });
  node.maxLength = spec.max ?? 2000;
  node.spellcheck = long;
  node.value = spec.default ?? '';
  return simple(node, changed, (field) => (field.value.trim() === '' ? null : field.value), (field, value) => (field.value = value ?? ''));
}

/** Several texts, one a line. */
function words(spec, { id, changed }) {
  if (spec.choices?.length) return checks(spec, changed);
  const node = el('textarea', { id, rows: 3, value: (spec.default ?? []).join('\n'), placeholder: 'One a line' });
  const read = () => node.value.split('\n').map((line) => line.trim()).filter(Boolean);
  return simple(node, changed, () => (read().length ? read() : null), (field, value) => (field.value = [value ?? []].flat().join('\n')));
}

/** Some of several: a box for each. */
function checks(spec, changed) {
  const boxes = spec.choices.map((value) => el('input', { type: 'checkbox', value, checked: (spec.default ?? []).includes(value), oninput: changed }));
  const chosen = () => boxes.filter((box) => box.checked).map((box) => box.value);
  return {
    node: el('div.checks', {}, boxes.map((box) => el('label', {}, box, box.value))),
    get: () => (chosen().length ? chosen() : null),
    set: (values) => boxes.forEach((box) => (box.checked = (values ?? []).includes(box.value))),
    focus: () => boxes[0].focus(),
  };
}

function number(spec, { id, changed }) {
  const node = el('input', { id, type: 'number', inputMode: spec.type === 'int' ? 'numeric' : 'decimal' });
  for (const bound of ['min', 'max']) if (spec[bound] !== null && spec[bound] !== undefined) node[bound] = spec[bound];
  node.step = spec.step ?? (spec.type === 'int' ? 1 : 'any');
  node.placeholder = spec.default === null || spec.default === undefined ? 'auto' : '';
  node.value = spec.default ?? '';
  const read = (field) => (field.validity.badInput ? NaN : field.value === '' ? null : Number(field.value));
  const whole = simple(node, changed, read, (field, value) => (field.value = value ?? ''));
  if (!(Number.isFinite(spec.min) && Number.isFinite(spec.max)) || spec.max - spec.min > 200) return whole;
  return withSlider(spec, whole, node, changed);
}

/** Where both ends are known, a slider beside the number. */
function withSlider(spec, inner, node, changed) {
  const range = el('input', { type: 'range', min: spec.min, max: spec.max, step: spec.step ?? (spec.type === 'int' ? 1 : 0.01), tabIndex: -1, 'aria-hidden': 'true' });
  const follow = () => {
    range.value = node.value === '' ? spec.min : node.value;
    range.style.setProperty('--part', `${((range.value - spec.min) / (spec.max - spec.min || 1)) * 100}%`);
  };
  range.addEventListener('input', () => {
    node.value = range.value;
    follow();
    changed();
  });
  node.addEventListener('input', follow);
  const set = (value) => {
    inner.set(value);
    follow();
  };
  follow();
  return { ...inner, node: el('div.slide', {}, node, range), set };
}

/** Two numbers, such as a place. */
function pair(spec, { id, changed }) {
  const inputs = ['first', 'second'].map((which, i) => el('input', { id: i ? null : id, type: 'number', step: 'any', value: spec.default?.[i] ?? '', 'aria-label': i ? `${spec.label}, ${which}` : null, oninput: changed }));
  const read = () => inputs.map((input) => (input.value === '' ? null : Number(input.value)));
  return {
    node: el('div.with-buttons', {}, inputs),
    get: () => (read().includes(null) ? null : read()),
    set: (value) => inputs.forEach((input, i) => (input.value = value?.[i] ?? '')),
    focus: () => inputs[0].focus(),
  };
}

function choice(spec, { id, changed }) {
  const options = (spec.choices ?? []).map((item) => (typeof item === 'object' ? item : { value: item, label: item }));
  const node = el('select', { id }, options.map(({ value, label }) => el('option', { value }, String(label ?? value))));
  if (!options.some(({ value }) => value === spec.default)) node.prepend(el('option', { value: '' }, 'auto'));
  node.value = spec.default ?? '';
  return simple(node, changed, (field) => field.value || null, (field, value) => (field.value = value ?? ''));
}

function bool(spec, { id, changed }) {
  const node = el('input', { id, type: 'checkbox', checked: Boolean(spec.default) });
  return simple(node, changed, (field) => field.checked, (field, value) => (field.checked = Boolean(value)));
}

/** A seed: empty draws a new one each time; the die puts one in, to keep. */
function seed(spec, { id, changed }) {
  const node = el('input', { id, type: 'number', min: 0, step: 1, inputMode: 'numeric', placeholder: 'random' });
  const put = (value) => {
    node.value = value;
    node.dispatchEvent(new Event('input', { bubbles: true }));
  };
  const inner = simple(node, changed, (field) => (field.validity.badInput ? NaN : field.value === '' ? null : Number(field.value)), (field, value) => (field.value = value ?? ''));
  node.value = spec.default ?? '';
  const die = iconButton('die', 'Throw a seed', () => put(newSeed()));
  const clear = iconButton('close', 'A new seed each time', () => put(''));
  return { ...inner, node: el('div.with-buttons', {}, node, die, clear) };
}

export const newSeed = () => crypto.getRandomValues(new Uint32Array(1))[0] >>> 1;

/** Learnt weights: tick those to use, each with its strength. */
function weights(spec, { changed }) {
  const node = el('div.weights');
  let chosen = new Map((spec.default ?? []).map(({ id, scale }) => [id, scale ?? 1]));
  let known = [];
  const line = ({ id, name, method, words: learnt }) => {
    const box = el('input', { type: 'checkbox', checked: chosen.has(id) });
    const scale = el('input', { type: 'number', min: 0, max: 2, step: 0.1, value: chosen.get(id) ?? 1, 'aria-label': `Strength of ${name}`, disabled: !box.checked });
    const apply = () => {
      scale.disabled = !box.checked;
      if (box.checked) chosen.set(id, Number(scale.value));
      else chosen.delete(id);
      changed();
    };
    box.addEventListener('input', apply);
    scale.addEventListener('input', apply);
    const say = [method, (learnt ?? []).join(' ')].filter(Boolean).join(' · ');
    return el('div.weight', {}, el('label', {}, box, el('span', {}, el('strong', {}, name), el('small', {}, say))), scale);
  };
  const draw = () => {
    node.replaceChildren(...known.map(line));
    if (spec.required && !known.length) node.replaceChildren(el('p.help', {}, 'Nothing has been learnt yet.'));
    node.closest('.row')?.toggleAttribute('hidden', !known.length && !spec.required);
  };
  queueMicrotask(draw); // once the row is there
  get('/api/weights').then((list) => {
    known = list;
    chosen = new Map([...chosen].filter(([id]) => known.some((one) => one.id === id)));
    draw();
  }).catch(draw);
  const set = (value) => {
    chosen = new Map((value ?? []).map((one) => [one.id, one.scale ?? 1]));
    draw();
  };
  return {
    node,
    get: () => (chosen.size ? [...chosen].map(([id, scale]) => ({ id, scale })) : null),
    set,
    focus: () => node.querySelector('input')?.focus(),
  };
}

export const FIELDS = {
  text,
  words,
  int: number,
  float: number,
  choice,
  pair,
  bool,
  seed,
  weights,
  image: imageField,
  mask: imageField,
  video: imageField,
  images: imagesField,
  subjects: subjectsField,
};
