/** A form on one side, what comes of it on the other: Generate, Edit, Learn and Compare are this with other verbs. */

import { ended, get } from './api.js';
import { keep, kept, taken } from './draft.js';
import { el } from './dom.js';
import { newSeed } from './fields.js';
import { drawFilm } from './film.js';
import { buildForm } from './form.js';
import { Jobs } from './jobs.js';
import { announce, say } from './shell.js';
import { show } from './stage.js';

export class Workbench {
  /**
   * `page` names the drafts; `go` is the button's word; `empty` what the stage says before anything is made; `leave` the
   * settings that have no field here, since `prepare` completes what is sent.
   */
  constructor({ page, panel, stage, strip, go = 'Go', empty = [], leave = [], prepare = async (settings) => settings }) {
    Object.assign(this, { page, panel, stage, strip, go, empty, leave, prepare });
    this.jobs = new Jobs(page);
    this.jobs.addEventListener('change', ({ detail }) => this.#changed(detail));
    this.shown = null;
    stage.addEventListener('click', (event) => {
      if (event.target.closest('[data-act=cancel]') && this.shown) this.cancel(this.shown.id);
    });
    document.addEventListener('keydown', (event) => this.#key(event));
  }

  /** Put the form of `verb` into the panel, filled from this tab's draft and from what another page sent. */
  async open(verb, { before = [], sent = null } = {}) {
    this.verb = verb;
    this.panel.inert = true; // what is typed into the form that goes would be lost
    const facts = await get(`/api/forms/${verb}`).finally(() => (this.panel.inert = false));
    if (this.verb !== verb) return;
    this.form = buildForm(facts, { leave: this.leave, before: [...before, el('p.sentence', {}, facts.sentence)] });
    const draft = `${this.page}:${verb}`;
    this.form.set(kept(draft, {}));
    if (sent) this.form.set(sent);
    this.form.addEventListener('edited', () => keep(draft, this.form.values()));
    if (sent) keep(draft, this.form.values());
    this.button = el('button.primary.go', { type: 'submit' }, this.go);
    this.form.append(el('div.submit', {}, this.button, el('kbd', { title: 'Control and Enter' }, 'Ctrl ↵')));
    this.form.addEventListener('submit', (event) => {
      event.preventDefault();
      this.submit();
    });
    this.panel.replaceChildren(this.form);
  }

  /** Bring back this tab's jobs and show the newest. */
  async load() {
    await this.jobs.load();
    const first = [...this.jobs.all.values()][0];
    if (first) this.show(first.id, 0);
    else this.stage.replaceChildren(...[this.empty].flat());
  }

  async submit() {
    if (!this.form.check()) return;
    this.button.disabled = true;
    try {
      const settings = this.form.values();
      if (this.form.field('seed')) settings.seed ??= newSeed();
      const job = await this.jobs.start(this.verb, await this.prepare(settings));
      this.show(job.id, 0);
      if (matchMedia('(max-width: 860px)').matches) this.stage.scrollIntoView({ block: 'start' });
    } catch (refusal) {
      if (!('remedy' in refusal)) throw refusal;
      this.form.fault(refusal);
    } finally {
      this.button.disabled = false;
    }
  }

  async cancel(id) {
    try {
      await this.jobs.cancel(id);
    } catch (refusal) {
      say(refusal.message, refusal.remedy, 'bad');
    }
  }

  show(id, index) {
    const job = this.jobs.all.get(id);
    if (!job) return;
    if (this.shown?.id !== id) this.jobs.focus(id);
    this.shown = { id, index };
    show(this.stage, job, index, { reuse: job.verb === this.verb ? (settings) => this.reuse(settings) : null });
    this.#film();
  }

  reuse(settings) {
    this.form.set(settings);
    keep(`${this.page}:${this.verb}`, this.form.values());
    say('The settings are in the form.');
  }

  #film() {
    drawFilm(this.strip, this.jobs, this.shown, (id, index) => this.show(id, index));
  }

  #changed(job) {
    if (job) this.#tell(job);
    if (job && this.shown?.id === job.id) {
      const line = this.stage.querySelector('.progress');
      if (!ended(job) && !job.results?.length && line) line.refresh(job);
      else this.show(job.id, Math.min(this.shown.index, Math.max(0, (job.results?.length ?? 1) - 1)));
      if (job.state === 'failed' && job.field && job.verb === this.verb) this.form.fault({ message: job.error, remedy: job.remedy, field: job.field });
    }
    this.#film();
  }

  #tell(job) {
    if (job.state === 'done') announce(`Done: ${job.results.length === 1 ? 'one result' : `${job.results.length} results`}.`);
    if (job.state === 'failed') announce(`${job.error} ${job.remedy ?? ''}`);
    if (job.state === 'cancelled') announce('Cancelled.');
  }

  #key(event) {
    if (event.key === 'Enter' && (event.ctrlKey || event.metaKey) && !document.querySelector('dialog[open]')) {
      event.preventDefault();
      this.submit();
    }
    const typing = event.target.closest?.('input, textarea, select, [tabindex="0"], dialog');
    if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === 'ArrowLeft' || event.key === 'ArrowRight') {
      const tiles = [...this.strip.children];
      const at = tiles.findIndex((tile) => tile.getAttribute('aria-current') === 'true');
      tiles[at + (event.key === 'ArrowRight' ? 1 : -1)]?.click();
    }
  }
}

/** What another page left for this one: `{verb, settings}` or null. */
export const sentTo = (page) => taken(`for:${page}`);
