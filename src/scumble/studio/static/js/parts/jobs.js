/** The jobs that this tab started on this page, newest first. Other tabs and pages have lists of their own. */

import { cancel, ended, get, listen, post } from './api.js';
import { keep, kept } from './draft.js';

const MOST = 60;
const EVERY = 800; // milliseconds from one look at the jobs to the next

export class Jobs extends EventTarget {
  constructor(page) {
    super();
    this.key = `${page}:jobs`;
    this.all = new Map();
    this.stream = null;
    setInterval(() => this.#look(), EVERY);
    document.addEventListener('visibilitychange', () => this.focus(this.focused));
  }

  /**
   * Follow one job closely, the one on show. Only it has a stream, and only while the page is seen: browsers allow six
   * connections to one server, for all tabs together. The others are asked after now and then.
   */
  focus(id) {
    this.focused = id;
    this.stream?.();
    this.stream = null;
    const job = this.all.get(id);
    if (job && !ended(job) && !document.hidden) this.stream = listen(id, (now) => this.#update(now));
  }

  async #look() {
    if (this.looking) return;
    this.looking = true;
    for (const job of [...this.all.values()].filter((one) => !ended(one))) {
      await get(`/api/jobs/${job.id}`).then((now) => this.#update(now), (refusal) => refusal.status === 404 && this.forget(job.id));
    }
    this.looking = false;
  }

  /** Bring back what this tab had before it was reloaded. */
  async load() {
    const found = await Promise.all(kept(this.key, []).map((id) => get(`/api/jobs/${id}`).catch(() => null)));
    for (const job of found.filter(Boolean)) this.#put(job, false);
    this.#changed();
  }

  /** Start a job; throws a Refusal. */
  async start(verb, settings) {
    const { id } = await post('/api/jobs', { verb, settings });
    return this.watch(id, { verb, settings });
  }

  /** Take in a job that somebody else started, such as a redo. */
  watch(id, { verb = '', settings = {} } = {}) {
    const job = { id, verb, settings, state: 'waiting', results: [], place: null, created: null };
    this.all = new Map([[id, job], ...this.all].slice(0, MOST));
    keep(this.key, [...this.all.keys()]);
    this.#put(job);
    return job;
  }

  cancel(id) {
    return cancel(id);
  }

  forget(id) {
    this.all.delete(id);
    keep(this.key, [...this.all.keys()]);
    this.#changed();
  }

  #put(job, tell = true) {
    this.all.set(job.id, job);
    if (tell) this.#changed(job);
  }

  #update(job) {
    const before = this.all.get(job.id);
    if (!before || ended(before)) return;
    this.all.set(job.id, { ...this.all.get(job.id), ...job });
    this.#changed(this.all.get(job.id));
  }

  #changed(job = null) {
    this.dispatchEvent(new CustomEvent('change', { detail: job }));
  }
}

/** How far a job is, in words: "2nd in the queue", "Step 7 of 25 · 3 s left". */
export function progressText(job) {
  if (job.state === 'waiting') return job.place > 1 ? `${ordinal(job.place)} in the queue` : 'Next in the queue';
  if (job.state === 'cancelled') return 'Cancelled';
  if (job.state === 'failed') return 'Failed';
  if (job.state === 'done') return duration(job.seconds);
  const parts = [];
  if (job.steps) parts.push(`Step ${job.step ?? 0} of ${job.steps}`);
  else parts.push(job.note || 'Starting');
  if (Number.isFinite(job.left)) parts.push(`${duration(job.left)} left`);
  return parts.join(' · ');
}

export function duration(seconds) {
  if (!Number.isFinite(seconds)) return '';
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 90) return `${Math.round(seconds)} s`;
  return `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;
}

function ordinal(n) {
  const end = n % 100 > 10 && n % 100 < 14 ? 'th' : ['th', 'st', 'nd', 'rd'][n % 10] ?? 'th';
  return `${n}${end}`;
}
