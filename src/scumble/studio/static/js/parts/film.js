/** The strip of what this tab made: one small button a result, or a job that is not there yet. */

import { ended, thumbUrl } from './api.js';
import { el, icon } from './dom.js';
import { progressText } from './jobs.js';

/** Keep `strip` equal to the jobs; `chosen(job id, index)` when one is picked. Buttons stay, so focus does too. */
export function drawFilm(strip, jobs, shown, chosen) {
  const wanted = [...jobs.all.values()].flatMap((job) =>
    job.results?.length ? job.results.map((result, index) => ({ job, result, index })) : [{ job, result: null, index: 0 }],
  );
  const old = new Map([...strip.children].map((node) => [node.dataset.key, node]));
  const tiles = wanted.map((item) => {
    const key = `${item.job.id} ${item.index}`;
    const node = old.get(key) ?? el('button.tile', { type: 'button', 'data-key': key, onclick: () => chosen(item.job.id, item.index) });
    face(node, item);
    node.setAttribute('aria-current', shown?.id === item.job.id && shown.index === item.index ? 'true' : 'false');
    return node;
  });
  if (tiles.length !== strip.children.length || tiles.some((node, i) => strip.children[i] !== node)) strip.replaceChildren(...tiles);
  strip.hidden = tiles.length < 1;
}

function face(node, { job, result }) {
  const state = `${job.state} ${result?.id ?? ''} ${job.preview?.length ?? 0}`;
  node.setAttribute('aria-label', result ? `Result: ${result.label || job.settings?.prompt || job.verb}` : progressText(job));
  node.style.setProperty('--done', `${job.steps ? ((job.step ?? 0) / job.steps) * 100 : 0}%`);
  node.classList.toggle('going', !ended(job));
  if (node.dataset.state === state) return;
  node.dataset.state = state;
  if (result?.kind === 'weights') node.replaceChildren(icon('learn'));
  else if (result) node.replaceChildren(el('img', { src: thumbUrl(result.id), alt: '', loading: 'lazy' }));
  else if (job.preview) node.replaceChildren(el('img', { src: job.preview, alt: '' }));
  else node.replaceChildren(job.state === 'failed' || job.state === 'cancelled' ? icon('close') : el('span.dots'));
}
