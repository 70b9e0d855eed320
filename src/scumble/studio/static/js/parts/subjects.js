/** Further subjects that are learnt together with the first: each with its photos, its word and its kind. */

import { el, iconButton, unique } from './dom.js';
import { imagesField } from './pictures.js';

export function subjectsField(spec, { id, changed }) {
  let rows = [];
  const list = el('div.subjects');
  const draw = () => list.replaceChildren(...rows.map(({ node }) => node));
  const add = ({ images = [], word = '', noun = '' } = {}) => {
    const own = unique('photos');
    const photos = imagesField({ type: 'images', default: images }, { id: own, changed });
    const text = (value, placeholder, name) => el('input', { type: 'text', value, placeholder, maxLength: 200, 'aria-label': name, oninput: changed });
    const row = { photos, word: text(word, '<tom>', 'Word of this subject'), noun: text(noun, 'cat', 'Noun of this subject') };
    const away = iconButton('close', 'Take this subject away', () => {
      rows = rows.filter((one) => one !== row);
      draw();
      changed();
    });
    row.node = el('div.subject', {}, el('label.unseen', { htmlFor: own }, 'Photos of this subject'), photos.node, el('div.with-buttons', {}, row.word, row.noun, away));
    rows.push(row);
    draw();
    return row;
  };
  const more = el('button.quiet.small', { id, type: 'button', 'aria-label': 'Another subject', onclick: () => add().photos.focus() }, 'Another subject');
  const said = ({ photos, word, noun }) => ({ images: photos.get() ?? [], word: word.value.trim(), noun: noun.value.trim() });
  return {
    node: el('div.subjects-field', {}, list, more),
    get: () => (rows.length ? rows.map(said) : null),
    set: (values) => {
      rows = [];
      draw();
      for (const value of values ?? []) add(value);
    },
    focus: () => (rows[0]?.photos.focus ?? (() => more.focus()))(),
  };
}
