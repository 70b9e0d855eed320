import { get, imageUrl, thumbUrl } from '../parts/api.js';
import { el, icon, iconButton } from '../parts/dom.js';
import { keep, kept } from '../parts/draft.js';
import { choose } from '../parts/pictures.js';
import { shell } from '../parts/shell.js';
import { beforeAfter } from '../parts/slider.js';
import { sentTo, Workbench } from '../parts/workbench.js';

const about = await shell('compare');
const pair = kept('compare:pair', []);
const stage = document.querySelector('#pair-stage');
const slots = document.querySelector('#slots');
let way = kept('compare:way', 'slider');

function put(at, id) {
  pair[at] = id;
  keep('compare:pair', pair.filter(Boolean));
  draw();
}

function slot(at) {
  const name = ['left', 'right'][at];
  const button = el('button.thumb', { type: 'button', onclick: () => choose((id) => put(at, id)) }, pair[at] ? el('img', { src: thumbUrl(pair[at]), alt: `The ${name} picture` }) : icon('plus'));
  button.setAttribute('aria-label', `Choose the ${name} picture`);
  return button;
}

function draw() {
  const [one, other] = pair;
  slots.replaceChildren(slot(0), iconButton('swap', 'Change sides', () => (pair.reverse(), keep('compare:pair', pair), draw()), { disabled: !(one && other) }), slot(1));
  for (const button of document.querySelectorAll('#ways button')) button.setAttribute('aria-pressed', String(button.value === way));
  if (!(one && other)) return stage.replaceChildren(el('div.empty', {}, el('img', { src: '/static/img/mark.svg', alt: '' }), el('p', {}, 'Choose two pictures to lay over each other.')));
  stage.replaceChildren(...view(one, other));
  return table(one, other);
}

function view(one, other) {
  if (way === 'side') return [el('div.side-by-side', {}, [one, other].map((id, at) => el('img', { src: imageUrl(id), alt: `The ${['left', 'right'][at]} picture` })))];
  const inner = way === 'slider' ? beforeAfter(imageUrl(one), imageUrl(other), 'The right picture', ['left', 'right']) : el('div.difference', {}, [one, other].map((id) => el('img', { src: imageUrl(id), alt: 'Black where both are equal' })));
  const node = el('div.frame', {}, inner);
  const image = inner.querySelector('img');
  image.addEventListener('load', () => {
    node.style.setProperty('--w', image.naturalWidth);
    node.style.setProperty('--h', image.naturalHeight);
  });
  return [node];
}

/** The settings in which the two differ. */
async function table(...ids) {
  const place = document.querySelector('#differences');
  const entries = await Promise.all(ids.map((id) => get(`/api/history/${id}`).catch(() => null)));
  if (ids.some((id, at) => id !== pair[at])) return;
  const [one, other] = entries.map((entry) => entry?.recipe?.settings ?? entry?.settings ?? {});
  const say = (value) => (value === undefined ? '–' : typeof value === 'object' ? JSON.stringify(value) : String(value));
  const names = [...new Set([...Object.keys(one), ...Object.keys(other)])].filter((name) => say(one[name]) !== say(other[name]));
  place.replaceChildren(...(names.length ? [el('table', {}, el('caption', {}, 'Where their settings differ'), el('tbody', {}, names.map((name) => el('tr', {}, el('th', { scope: 'row' }, name.replaceAll('_', ' ')), el('td', {}, say(one[name])), el('td', {}, say(other[name]))))))] : []));
}

for (const button of document.querySelectorAll('#ways button')) {
  button.addEventListener('click', () => {
    way = button.value;
    keep('compare:way', way);
    draw();
  });
}

async function methods() {
  const part = document.querySelector('#methods');
  if (!about?.methods?.some(({ verb }) => verb === 'compare')) return;
  part.hidden = false;
  const bench = new Workbench({
    page: 'compare',
    go: 'Compare',
    panel: document.querySelector('#panel'),
    stage: document.querySelector('#stage'),
    strip: document.querySelector('#strip'),
    empty: el('div.empty', {}, el('p', {}, 'Several methods on one task, side by side, timed and scored.')),
  });
  await bench.open('compare', { sent: sentTo('compare')?.settings });
  await bench.load();
}

draw();
await methods();
