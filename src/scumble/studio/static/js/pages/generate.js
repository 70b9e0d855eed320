import { el } from '../parts/dom.js';
import { shell } from '../parts/shell.js';
import { sentTo, Workbench } from '../parts/workbench.js';

shell('generate');

const IDEAS = ['a red cat on the beach at sunset', 'a blue car in the snow', 'a wooden boat under the stars'];

const bench = new Workbench({
  page: 'generate',
  go: 'Generate',
  panel: document.querySelector('#panel'),
  stage: document.querySelector('#stage'),
  strip: document.querySelector('#strip'),
  empty: el('div.empty', {},
    el('img', { src: '/static/img/mark.svg', alt: '' }),
    el('p', {}, 'Say what to draw.'),
    el('div.ideas', {}, IDEAS.map((idea) => el('button.chip', { type: 'button', onclick: () => fill(idea) }, idea))),
  ),
});

function fill(prompt) {
  bench.form.set({ prompt });
  bench.form.field('prompt').focus();
}

await bench.open('generate', { sent: sentTo('generate')?.settings });
await bench.load();
