/** The switch between the ways to edit, which are pages and parts of pages. */

import { el, icon } from './dom.js';

const WAYS = [
  ['/edit#edit-instruct', 'edit-instruct', 'Instruct', 'wand'],
  ['/paint', 'edit-sdedit', 'Paint', 'brush'],
  ['/edit#edit-text2live', 'edit-text2live', 'Layer', 'layers'],
];
export const TOOLS = [
  ['strokes', 'Strokes'],
  ['composite', 'Paste'],
  ['upscale', 'Upscale'],
];

/** Links for the head of an edit form; `known` are the server's verbs, `[]` if it did not say. */
export function modes(here, known = []) {
  const link = (href, verb, title, shape) => el('a', { href, 'aria-current': verb === here ? 'page' : null }, shape ? icon(shape) : null, title);
  const ways = WAYS.filter(([, verb]) => !known.length || verb === here || known.includes(verb));
  const main = el('nav.modes', { 'aria-label': 'Ways to edit' }, ways.map((way) => link(...way)));
  const tools = TOOLS.filter(([verb]) => known.includes(verb));
  const more = tools.length ? el('nav.tools-row', { 'aria-label': 'Tools' }, tools.map(([verb, title]) => link(`/edit#${verb}`, verb, title))) : null;
  return [main, more].filter(Boolean);
}
