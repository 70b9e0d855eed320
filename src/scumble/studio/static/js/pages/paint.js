import { upload } from '../parts/api.js';
import { el, icon } from '../parts/dom.js';
import { keep, kept } from '../parts/draft.js';
import { modes } from '../parts/modes.js';
import { choose } from '../parts/pictures.js';
import { say, shell } from '../parts/shell.js';
import { sentTo, Workbench } from '../parts/workbench.js';
import { Drawing } from '../paint/drawing.js';
import { Hands } from '../paint/hands.js';
import { guidePng, keepDrawing, keptDrawing, maskPng, onPicture, pixels, putPicture, sendPng, strokesPng } from '../paint/keeping.js';
import { listen, Toolbox } from '../paint/toolbox.js';
import { View } from '../paint/view.js';

const find = (selector) => document.querySelector(selector);
const about = await shell('paint');
const [wide, high] = about?.size ?? [512, 512];
const scope = el('select', { id: 'scope' }, [
  ['', 'What I painted or masked'],
  ['mask', 'The mask'],
  ['painted', 'What I painted'],
  ['all', 'Everything'],
].map(([value, title]) => el('option', { value }, title)));

let base = null; // the id of the picture under the strokes, if there is one
let drawing = new Drawing(wide, high);
const kit = { tool: 'brush', layer: 'paint', size: Math.max(4, Math.round(wide / 16)), colour: [211, 63, 63], tolerance: 24, ...kept('paint:kit', {}) };
const view = new View(find('#canvas'), drawing);

const act = {
  undo: () => step(() => drawing.undo()),
  redo: () => step(() => drawing.redo()),
  clear: () => step(() => drawing.clear(kit.layer)),
  invert: () => step(() => drawing.invertMask()),
  fit: () => view.fit(),
  zoom: (factor) => view.zoom(factor),
  veil: () => ((view.veil = !view.veil), view.draw()),
  turn: () => turn(find('#result').hidden),
  load: loadLayer,
  save: saveLayer,
};
const box = new Toolbox(kit, { tools: find('#tools'), options: find('#options'), act });
const hands = new Hands(view, kit, { told: changed, picked: (rgb) => box.colour(rgb), spoken: (text) => (find('#place').textContent = text) });
listen(box, act);

/** Undo and its like: not in the middle of a stroke. */
function step(change) {
  hands.lift();
  if (!hands.mode) change();
  changed();
}

let waiting = 0;

function changed() {
  box.refresh(drawing);
  keep('paint:kit', kit);
  clearTimeout(waiting);
  waiting = setTimeout(async () => {
    if (!(await keepDrawing(drawing, base))) say('This drawing is too large to keep as a draft.', 'Save its layers before you leave the page.');
    document.body.dataset.kept = String(drawing.done.length);
  }, 120);
}

function work(on, id) {
  drawing = on;
  base = id;
  view.show(drawing);
  view.canvas.dataset.pixels = `${drawing.width} x ${drawing.height}`;
  box.fromPicture(drawing.composite(4));
  picture.replaceChildren(...pictureButtons());
  changed();
  turn(false);
}

async function onto(id) {
  try {
    const next = await onPicture(id);
    work(next.drawing, next.id);
  } catch (refusal) {
    say(refusal.message, refusal.remedy ?? '', 'bad');
  }
}

async function loadLayer(file) {
  if (!file) return;
  try {
    putPicture(drawing, kit.layer, await pixels((await upload(file)).id));
    changed();
  } catch (refusal) {
    say(refusal.message, refusal.remedy ?? '', 'bad');
  }
}

async function saveLayer() {
  const bytes = kit.layer === 'mask' ? await maskPng(drawing) : await strokesPng(drawing);
  const url = URL.createObjectURL(new Blob([bytes], { type: 'image/png' }));
  el('a', { href: url, download: kit.layer === 'mask' ? 'mask.png' : 'strokes.png' }).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}

/** Canvas, or what came of it. */
function turn(result) {
  find('#result').hidden = !result;
  find('#canvas').hidden = result;
  find('#options').hidden = result;
  document.body.classList.toggle('resulting', result);
  if (!result) view.fitted && view.fit();
}

function pictureButtons() {
  const file = el('input.hidden-file', { type: 'file', accept: 'image/*', onchange: () => file.files[0] && open(file.files[0]) });
  const open = async (chosen) => {
    try {
      await onto((await upload(chosen)).id);
    } catch (refusal) {
      say(refusal.message, refusal.remedy, 'bad');
    }
  };
  return [
    el('label.button.quiet.small', {}, icon('upload'), 'Open', file),
    el('button.quiet.small', { type: 'button', onclick: () => choose(onto) }, icon('picture'), 'Made before'),
    el('button.quiet.small', { type: 'button', onclick: () => work(new Drawing(wide, high, { ground: kit.layer === 'paint' && kit.tool === 'fill' ? kit.colour : [255, 255, 255] }), null) }, 'Blank'),
  ];
}

/** What is sent beside the form: the picture with its strokes, the picture alone, the mask; each to the bit. */
async function prepare(settings) {
  hands.lift();
  const painted = !drawing.isEmpty('paint');
  const masked = !drawing.isEmpty('mask');
  const what = scope.value || (masked ? 'mask' : painted && base ? 'painted' : 'all');
  const guide = painted || !base ? await sendPng(await guidePng(drawing), 'guide.png') : base;
  const original = what === 'all' ? null : base;
  const mask = what === 'mask' ? await sendPng(await maskPng(drawing), 'mask.png') : null;
  return { ...settings, guide, original: original ?? (mask ? guide : null), mask };
}

const picture = el('div.picture-buttons', {}, pictureButtons());
const back = el('button.quiet.small.back', { type: 'button', onclick: () => turn(false) }, icon('brush'), 'Back to the canvas');
find('#result').prepend(back);

const bench = new Workbench({ page: 'paint', go: 'Paint', panel: find('#panel'), stage: find('#stage'), strip: find('#strip'), leave: ['guide', 'original', 'mask'], prepare });
const show = bench.show.bind(bench);
let started = false;
bench.show = (id, index) => {
  show(id, index);
  if (started) turn(true);
};

const sent = sentTo('paint')?.settings;
const head = [
  ...modes('edit-sdedit', (about?.methods ?? []).map(({ verb }) => verb)),
  picture,
  el('div.row', {}, el('label', { htmlFor: 'scope' }, 'May change'), scope),
];
const draft = sent?.base || sent?.guide ? null : await keptDrawing();
if (draft) work(draft.drawing, draft.id);
else if (sent?.base || sent?.guide) await onto(sent.base ?? sent.original ?? sent.guide);
else work(drawing, null);
if (sent?.mask) putPicture(drawing, 'mask', await pixels(sent.mask));
scope.value = sent?.scope ?? kept('paint:scope', '');
scope.addEventListener('change', () => keep('paint:scope', scope.value));
await bench.open('edit-sdedit', { before: head, sent });
await bench.load();
started = true;
document.body.dataset.ready = 'true';
