/** The biggest thing on a page: a picture, before and after, work going on, or what went wrong. */

import { imageUrl, thumbUrl } from './api.js';
import { actions } from './actions.js';
import { el, icon } from './dom.js';
import { duration, progressText } from './jobs.js';
import { scoreboard } from './scoreboard.js';
import { beforeAfter } from './slider.js';

/** What a result was made from, for the slider: the id of a picture or null. */
export function before(settings = {}) {
  return settings.image ?? settings.original ?? settings.guide ?? null;
}

/** A picture in its own proportions, as large as there is room. */
export function frame({ id, width, height, kind, label }, from = null) {
  const alt = label || 'The result';
  let inner;
  if (kind === 'video') inner = el('video', { src: imageUrl(id), controls: true, loop: true, muted: true, autoplay: true });
  else if (from) inner = beforeAfter(imageUrl(from), imageUrl(id), alt);
  else inner = el('img', { src: imageUrl(id), alt });
  const node = el('div.frame', {}, inner);
  if (width && height) sized(node, width, height);
  return node;
}

export function sized(node, width, height) {
  node.style.setProperty('--w', width);
  node.style.setProperty('--h', height);
}

/** What a job's stage shows: `job` and the place of the result in it. */
export function show(stage, job, index = 0, { reuse = null } = {}) {
  const result = job.results?.[index];
  if (job.results?.some(({ row }) => row)) return stage.replaceChildren(...scoreboard(job));
  if (result?.kind === 'weights') return stage.replaceChildren(weightsCard(job, result, reuse));
  if (result) {
    const from = result.kind === 'image' ? before(job.settings) : null;
    return stage.replaceChildren(frame(result, from), caption(job, result), actions(job, result, reuse));
  }
  return stage.replaceChildren(...(job.state === 'failed' ? fault(job) : work(job)));
}

function fault(job) {
  return [el('div.notice', { role: 'alert' }, el('h2', {}, job.error || 'It failed.'), el('p', {}, job.remedy || ''))];
}

/** Work going on: the picture so far, a bar, a way to stop. `refresh` changes these in place, so nothing flickers. */
function work(job) {
  const view = el('div.frame.work', {}, el('img', { alt: 'The picture so far', hidden: true }));
  sized(view, job.settings?.width ?? 1, job.settings?.height ?? 1);
  view.hidden = /^(learn|merge)/.test(job.verb ?? ''); // until there is something to see
  const bar = el('progress', { 'aria-label': 'Progress' });
  const text = el('span.progress-text', {});
  const stop = el('button.quiet', { type: 'button', 'data-act': 'cancel' }, 'Cancel');
  const line = el('div.progress', {}, bar, el('div.progress-line', {}, text, stop));
  refresh({ view, bar, text, stop }, job);
  line.refresh = (now) => refresh({ view, bar, text, stop }, now);
  return [view, line];
}

function refresh({ view, bar, text, stop }, job) {
  const image = view.querySelector('img');
  if (job.preview && image.src !== job.preview) {
    image.src = job.preview;
    image.hidden = false;
    view.hidden = false;
    image.onload = () => sized(view, image.naturalWidth, image.naturalHeight);
  }
  if (job.steps) {
    bar.max = job.steps;
    bar.value = job.step ?? 0;
  } else bar.removeAttribute('value');
  text.textContent = progressText(job);
  stop.hidden = job.state === 'cancelled';
  bar.hidden = job.state === 'cancelled';
}

function caption(job, result) {
  const { prompt, instructions } = job.settings ?? {};
  const words = prompt || [instructions ?? []].flat().join(', ');
  const seed = seedOf(job, result);
  const label = result.label && !/^seed \d+$/.test(result.label) ? result.label : '';
  const facts = [label, seed === null ? '' : `seed ${seed}`, result.width ? `${result.width} × ${result.height}` : '', duration(job.seconds)];
  const note = job.state === 'cancelled' ? 'Cancelled: the last good state.' : job.note;
  return el('div.caption', {}, words ? el('p.words', {}, words) : null, el('p.facts', {}, facts.filter(Boolean).join(' · ')), note ? el('p.facts', {}, note) : null);
}

/** The seed of one result: each of several has its own, which its label says. */
export function seedOf(job, result) {
  const own = /^seed (\d+)$/.exec(result.label ?? '');
  return own ? Number(own[1]) : job.settings?.seed ?? null;
}

function weightsCard(job, result, reuse) {
  const { word = '', images: photos = [] } = job.settings ?? {};
  return el('div.notice.learnt', {},
    photos.length ? el('div.learnt-from', {}, photos.map((id) => el('img', { src: thumbUrl(id), alt: '' }))) : icon('learn'),
    el('h2', {}, word ? `${word} is learnt` : job.verb === 'merge' ? 'Merged' : 'Learnt'),
    el('p', {}, [result.label, duration(job.seconds)].filter(Boolean).join(' · ')),
    job.note ? el('p.help', {}, job.note) : null,
    actions(job, result, reuse),
  );
}
