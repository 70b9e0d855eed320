import { el } from '../parts/dom.js';
import { say, shell } from '../parts/shell.js';
import { modes } from '../parts/modes.js';
import { sentTo, Workbench } from '../parts/workbench.js';

const about = shell('edit');

const GO = { 'edit-instruct': 'Edit', 'edit-text2live': 'Learn the layer', strokes: 'Make strokes', composite: 'Paste', upscale: 'Upscale' };
const EMPTY = {
  'edit-instruct': 'Choose a picture and say what to do to it: “make it night”.',
  'edit-text2live': 'Choose a picture and say what it should show. A layer of colour and opacity is learnt for it; the rest stays.',
};

const bench = new Workbench({
  page: 'edit',
  panel: document.querySelector('#panel'),
  stage: document.querySelector('#stage'),
  strip: document.querySelector('#strip'),
  empty: el('div.empty', {}, el('img', { src: '/static/img/mark.svg', alt: '' }), el('p', { id: 'hint' })),
});

let left = sentTo('edit');

async function open() {
  const facts = await about;
  const known = (facts?.methods ?? []).map((method) => method.verb);
  const usual = 'edit-instruct' in (facts?.missing ?? {}) ? 'edit-text2live' : 'edit-instruct';
  const verb = location.hash.slice(1) in GO ? location.hash.slice(1) : usual;
  const sent = left && (left.verb === verb || !left.verb) ? left.settings : null;
  left = null;
  bench.go = GO[verb];
  const hint = document.querySelector('#hint');
  if (hint) hint.textContent = facts?.missing?.[verb] ?? EMPTY[verb] ?? 'Choose a picture.';
  try {
    await bench.open(verb, { before: modes(verb, known), sent });
  } catch (refusal) {
    bench.panel.replaceChildren(...modes(verb, known));
    say(refusal.message, refusal.remedy, 'bad');
  }
}

window.addEventListener('hashchange', open);
await bench.load();
await open();
const first = [...bench.jobs.all.values()][0];
if (first) bench.show(first.id, 0);
