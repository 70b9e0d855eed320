import { downloadUrl, get, upload } from '../parts/api.js';
import { el, icon } from '../parts/dom.js';
import { keep, kept, taken } from '../parts/draft.js';
import { say, shell } from '../parts/shell.js';
import { useSettings } from '../parts/actions.js';
import { Workbench } from '../parts/workbench.js';

const METHODS = [
  ['learn-textual-inversion', 'Textual Inversion', 'A new word; the model stays as it is. Smallest file.'],
  ['learn-custom-diffusion', 'Custom Diffusion', 'A word and how the picture reads it. Quick, several at once.'],
  ['learn-dreambooth', 'DreamBooth', 'The whole model, or a low-rank change. Closest likeness.'],
  ['merge', 'Merge', 'Several that were learnt apart, as one file.'],
];

shell('learn');

const bench = new Workbench({
  page: 'learn',
  go: 'Learn',
  panel: document.querySelector('#panel'),
  stage: document.querySelector('#stage'),
  strip: document.querySelector('#strip'),
  empty: el('div.empty', {}, el('img', { src: '/static/img/mark.svg', alt: '' }), el('p', {}, 'Give four or five photos of one subject, a word for it such as <rex>, and what it is a kind of: dog.')),
});

function cards(verb) {
  const card = ([name, title, sentence]) => {
    const input = el('input', { type: 'radio', name: 'method', value: name, checked: name === verb });
    input.addEventListener('change', () => open(name, true));
    return el('label.card', {}, input, el('span', {}, el('strong', {}, title), el('small', {}, sentence)));
  };
  return [el('fieldset.cards', {}, el('legend', {}, 'Method'), METHODS.map(card))];
}

/** Another method's form, with what the last one holds where they agree: photos, word, noun. */
async function open(verb, over = false) {
  const same = over && bench.form ? sharedOf(bench.form.values()) : null;
  keep('learn:method', verb);
  await bench.open(verb, { before: cards(verb), sent: same });
  if (over) bench.panel.querySelector('input[type=radio]:checked').focus();
}

const sharedOf = (values) => Object.fromEntries(['photos', 'images', 'word', 'noun', 'others'].filter((name) => name in values).map((name) => [name, values[name]]));

async function shelf() {
  const list = document.querySelector('#weights');
  try {
    const known = await get('/api/weights');
    list.replaceChildren(...known.map(({ id, name, method, words, note }) => el('li', {},
      icon('learn'),
      el('span', {}, el('strong', {}, (words ?? []).join(' ') || name), el('small', {}, [method, note].filter(Boolean).join(' · '))),
      el('button.quiet.small', { type: 'button', onclick: () => useSettings('generate', { weights: [{ id, scale: 1 }] }) }, 'Use'),
      el('a.button.quiet.small', { href: downloadUrl(id), download: '', 'aria-label': `Download ${name}` }, icon('download')),
    )));
    document.querySelector('#shelf').hidden = !known.length;
  } catch {
    // the list is an extra: the page works without it
  }
}

bench.jobs.addEventListener('change', ({ detail }) => detail?.state === 'done' && shelf());
document.querySelector('#bring').addEventListener('change', async ({ target }) => {
  try {
    for (const file of target.files) await upload(file);
    say('The weights are on the shelf.');
    shelf();
  } catch (refusal) {
    say(refusal.message, refusal.remedy, 'bad');
  }
  target.value = '';
});

const left = taken('for:learn');
const known = METHODS.map(([name]) => name);
const start = [left?.verb, kept('learn:method')].find((name) => known.includes(name)) ?? 'learn-custom-diffusion';
await open(start);
if (left?.settings) bench.form.set(left.settings);
if (left?.photo) {
  const field = ['photos', 'images'].map((name) => bench.form.field(name)).find(Boolean);
  field?.set([...(field.get() ?? []), left.photo]);
}
keep(`learn:${start}`, bench.form.values());
await bench.load();
shelf();
