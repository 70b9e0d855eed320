/** What can be done with a result: keep it, use its settings, send it on. */

import { downloadUrl, get, post } from './api.js';
import { keep, kept } from './draft.js';
import { el, icon } from './dom.js';
import { say } from './shell.js';

const PAGE_OF = { generate: '/generate', 'edit-sdedit': '/paint', compare: '/compare', merge: '/learn' };

/** The page where a verb's form stands. */
export function pageOf(verb = '') {
  return PAGE_OF[verb] ?? (verb.startsWith('learn') ? '/learn' : `/edit#${verb}`);
}

/** Open `verb`'s page with these settings in its form. */
export function useSettings(verb, settings) {
  const page = pageOf(verb);
  keep(`for:${page.split('#')[0].slice(1)}`, { verb, settings });
  go(page);
}

function go(page) {
  const [path, hash] = page.split('#');
  if (path === location.pathname) {
    if (hash) location.hash = hash;
    location.reload();
  } else location.assign(page);
}

/** Places that a picture can go to next. */
const PLACES = [
  ['Edit by instruction', 'wand', (id) => useSettings('edit-instruct', { image: id })],
  ['Paint on it', 'brush', (id) => useSettings('edit-sdedit', { base: id })],
  ['Edit with a layer', 'layers', (id) => useSettings('edit-text2live', { image: id })],
  ['Generate, as a guide', 'picture', (id) => useSettings('edit-sdedit', { base: id, scope: 'all' })],
  ['Learn, as a photo', 'learn', (id) => asPhoto(id)],
  ['Compare', 'slider', (id) => toCompare(id)],
];

function asPhoto(id) {
  keep('for:learn', { photo: id });
  go('/learn');
}

export function toCompare(id) {
  const pair = kept('compare:pair', []);
  keep('compare:pair', [pair.at(-1), id].filter(Boolean));
  if (pair.length) go('/compare');
  else say('Put on the Compare page.', 'Send another to see both.');
}

/** A list of places that folds out. */
export function sendTo(id) {
  const menu = el('details.menu', {}, el('summary', {}, icon('send'), 'Send to'));
  const list = el('div.menu-list', {}, PLACES.map(([title, shape, send]) =>
    el('button', { type: 'button', onclick: () => ((menu.open = false), send(id)) }, icon(shape), title)));
  menu.append(list);
  menu.addEventListener('keydown', (event) => {
    if (event.key !== 'Escape' || !menu.open) return;
    event.stopPropagation();
    event.preventDefault();
    menu.open = false;
    menu.querySelector('summary').focus();
  });
  menu.addEventListener('focusout', (event) => menu.contains(event.relatedTarget) || (menu.open = false));
  return menu;
}

/** The row of buttons below a result; `reuse(settings)` where the form of the same verb stands on this page. */
export function actions(job, result, reuse = null) {
  const again = async () => {
    const { verb, settings } = job.verb === 'redo' ? await get(`/api/history/${result.id}`) : job;
    const own = /^seed (\d+)$/.exec(result.label ?? '');
    const wanted = own && Number(own[1]) !== settings.seed ? { ...settings, seed: Number(own[1]), count: 1 } : settings;
    if (reuse) reuse(wanted);
    else useSettings(verb, wanted);
  };
  const row = [];
  if (result.kind === 'weights') {
    const next = { weights: [{ id: result.id, scale: 1 }], prompt: job.settings?.word ? `a photo of a ${job.settings.word} ${job.settings.noun ?? ''}`.trim() : '' };
    row.push(el('button.primary', { type: 'button', onclick: () => useSettings('generate', next) }, 'Use it in Generate'));
  }
  if (result.kind === 'image') row.push(sendTo(result.id));
  row.push(
    el('button.quiet', { type: 'button', onclick: again }, icon('settings'), 'Use these settings'),
    el('a.button.quiet', { href: downloadUrl(result.id), download: '' }, icon('download'), 'Download'),
  );
  return el('div.actions', {}, row);
}

/** Make an entry of the history again, with changes if any. */
export async function redo(id, set = {}) {
  return post(`/api/history/${id}/redo`, { set });
}
