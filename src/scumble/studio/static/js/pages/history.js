import { get, thumbUrl } from '../parts/api.js';
import { actions, pageOf, redo } from '../parts/actions.js';
import { el, icon } from '../parts/dom.js';
import { keep, kept } from '../parts/draft.js';
import { say, sheet, shell } from '../parts/shell.js';
import { frame, before } from '../parts/stage.js';

shell('history');

const PAGE = 48;
const grid = document.querySelector('#entries');
const more = document.querySelector('#more');
let last = null;

async function load() {
  more.disabled = true;
  try {
    const items = await get(`/api/history?limit=${PAGE}${last ? `&after=${encodeURIComponent(last)}` : ''}`);
    grid.append(...items.map(tile));
    last = items.at(-1)?.id ?? last;
    more.hidden = items.length < PAGE;
    document.querySelector('#nothing').hidden = grid.children.length > 0;
  } catch (refusal) {
    say(refusal.message, refusal.remedy, 'bad');
  }
  more.disabled = false;
}

function tile(item) {
  const { id, verb, prompt, name, created, image, parents, children } = item;
  const family = [parents?.length ? 'from another' : '', children ? `${children} from it` : ''].filter(Boolean).join(' · ');
  return el('button.entry', { type: 'button', 'data-id': id, onclick: () => open(id) },
    image ? el('img', { src: thumbUrl(image), alt: '', loading: 'lazy' }) : icon('learn'),
    el('span.words', {}, prompt || name || title(verb)),
    el('small', {}, [title(verb), when(created), family].filter(Boolean).join(' · ')),
  );
}

const NAMES = { '': 'brought',  generate: 'drawn', 'edit-instruct': 'instructed', 'edit-sdedit': 'painted', 'edit-text2live': 'layered', strokes: 'strokes', composite: 'pasted', upscale: 'upscaled', merge: 'merged' };
const title = (verb = '') => NAMES[verb] ?? verb.replace(/^learn-/, 'learnt, ').replaceAll('-', ' ');

function when(created) {
  const time = new Date(typeof created === 'number' ? created * 1000 : created);
  if (Number.isNaN(time.getTime())) return '';
  const today = time.toDateString() === new Date().toDateString();
  return today ? time.toLocaleTimeString([], { hour: '2-digit', minute: '2-digit' }) : time.toLocaleDateString();
}

async function open(id) {
  let entry;
  try {
    entry = await get(`/api/history/${id}`);
  } catch (refusal) {
    say(refusal.message, refusal.remedy, 'bad');
    return;
  }
  const { verb, prompt, image, settings, recipe } = entry;
  const size = entry.width ? { width: entry.width, height: entry.height } : {};
  const view = image ? frame({ id: image, kind: entry.kind ?? 'image', label: prompt, ...size }, before(settings)) : icon('learn');
  const picture = view.querySelector?.('img');
  picture?.addEventListener('load', () => {
    view.style.setProperty('--w', picture.naturalWidth);
    view.style.setProperty('--h', picture.naturalHeight);
  });
  const dialog = sheet(prompt || title(verb),
    el('div.sheet-body', {},
      el('div.sheet-view', {}, view, image ? actions({ verb, settings: settings ?? {} }, { id: image, kind: entry.kind ?? 'image' }) : null),
      el('div.sheet-side', {}, lineage(entry), settingsTable(settings ?? recipe?.settings ?? {}), redoForm(entry, () => dialog.close())),
    ),
  );
  dialog.classList.add('wide');
  dialog.addEventListener('keydown', (event) => step(event, id, dialog));
}

/** Arrow keys in the sheet go to the next entry and the one before. */
function step(event, id, dialog) {
  if (!['ArrowLeft', 'ArrowRight'].includes(event.key) || event.target.closest('input, textarea, select')) return;
  const tiles = [...grid.children];
  const at = tiles.findIndex((tile) => tile.dataset.id === String(id));
  const next = tiles[at + (event.key === 'ArrowRight' ? 1 : -1)];
  if (!next) return;
  dialog.close();
  open(next.dataset.id);
}

function lineage({ parents = [], children = [] }) {
  const links = (list, name) => (list.length ? el('div.family', {}, el('h3', {}, name), el('div.thumbs.small', {}, list.map(relative))) : null);
  const both = [links(parents, 'Made from'), links(Array.isArray(children) ? children : [], 'Made from it')];
  return both.some(Boolean) ? el('div', {}, both) : null;
}

function relative(one) {
  const id = typeof one === 'object' ? one.id : one;
  const known = typeof one === 'object' ? one.image : null;
  const button = el('button.thumb', { type: 'button', onclick: () => (document.querySelector('dialog[open]')?.close(), open(id)) }, icon('picture'));
  const face = (image) => image && button.replaceChildren(el('img', { src: thumbUrl(image), alt: `Entry ${id}` }));
  if (known) face(known);
  else get(`/api/history/${id}`).then(({ image }) => face(image)).catch(() => button.remove());
  return button;
}

const IDS = ['image', 'guide', 'original', 'mask', 'patch'];

function settingsTable(settings) {
  const shown = Object.entries(settings).filter(([name, value]) => !IDS.includes(name) && value !== null && value !== '' && typeof value !== 'object');
  return el('details.fold', { open: shown.length < 9 }, el('summary', {}, 'Settings'), el('dl.facts-list', {}, shown.flatMap(([name, value]) => [el('dt', {}, name.replaceAll('_', ' ')), el('dd', {}, String(value))])));
}

function redoForm({ id, verb, settings }, close) {
  const start = async (set) => {
    try {
      const job = await redo(id, set);
      const page = pageOf(verb);
      const key = `${page.split('#')[0].slice(1)}:jobs`;
      keep(key, [job.id, ...kept(key, [])]);
      close();
      location.assign(page);
    } catch (refusal) {
      say(refusal.message, refusal.remedy, 'bad');
    }
  };
  const steps = el('input', { type: 'number', min: 1, max: 1000, value: settings?.steps ?? '', 'aria-label': 'Steps', placeholder: '25' });
  return el('div.redo', {},
    el('button.quiet', { type: 'button', onclick: () => start({}) }, icon('again'), 'Redo: the same pixels'),
    el('div.with-buttons', {}, el('span.help', {}, 'or with'), steps, el('span.help', {}, 'steps'), el('button.quiet', { type: 'button', 'aria-label': 'Redo with other steps', onclick: () => steps.value && start({ steps: Number(steps.value) }) }, icon('again'))),
  );
}

more.addEventListener('click', load);
await load();
