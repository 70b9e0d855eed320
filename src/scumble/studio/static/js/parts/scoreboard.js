/** Several methods on one task, side by side: each one's picture, what it took and how it scored. */

import { imageUrl } from './api.js';
import { sendTo } from './actions.js';
import { el } from './dom.js';
import { duration } from './jobs.js';

/** A card for each method; `job.results` carry a `row` each where they are pictures. */
export function scoreboard(job) {
  const rows = job.results.filter(({ row }) => row);
  return [
    el('div.scoreboard', {}, rows.map(card)),
    job.note ? el('p.facts', {}, job.note) : null,
  ].filter(Boolean);
}

function card({ id, label, row }) {
  const took = Object.values(row.seconds ?? {}).reduce((sum, seconds) => sum + (seconds ?? 0), 0);
  const memory = row.peak_memory_bytes ? `${(row.peak_memory_bytes / 2 ** 30).toFixed(1)} GiB` : '';
  const scores = (row.scores ?? []).flatMap(({ axis, name, value, better }) => [
    el('dt', { title: [axis, better && `${better} is better`].filter(Boolean).join('; ') }, name ?? axis),
    el('dd', {}, typeof value === 'number' ? String(Number(value.toPrecision(3))) : '–'),
  ]);
  return el('article', {},
    el('img', { src: imageUrl(id), alt: `What ${label} made` }),
    el('h3', {}, label),
    el('p.facts', {}, [duration(took), memory].filter(Boolean).join(' · ')),
    el('dl.facts-list', {}, scores),
    sendTo(id),
  );
}
