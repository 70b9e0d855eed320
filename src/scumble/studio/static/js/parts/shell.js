/** What every page has: the bar on top, messages below, the theme. */

import { get, post } from './api.js';
import { el, icon, iconButton } from './dom.js';

const PAGES = [
  ['learn', 'Learn'],
  ['generate', 'Generate'],
  ['edit', 'Edit'],
  ['compare', 'Compare'],
  ['history', 'History'],
];

/** Draw the bar; returns what the server says of itself, or null where it may not be asked. */
export async function shell(page) {
  const bar = document.querySelector('#bar');
  announce(''); // the place is there before anything is said
  const here = page === 'paint' ? 'edit' : page;
  const links = PAGES.map(([name, title]) =>
    el('a', { href: `/${name}`, 'aria-current': name === here ? 'page' : null }, title),
  );
  const about = el('span.about');
  const leave = iconButton('exit', 'Log out', () => post('/api/logout').finally(() => location.assign('/login')), { hidden: true });
  bar.append(
    el('a.mark', { href: '/generate', 'aria-label': 'scumble, to Generate' }, el('img', { src: '/static/img/mark.svg', alt: '' }), el('span', {}, 'scumble')),
    page === 'login' ? el('span.room') : el('nav', { 'aria-label': 'Pages' }, links),
    about,
    themeButton(),
    leave,
  );
  if (page === 'login') return null;
  try {
    const facts = await get('/api/about');
    about.textContent = [facts.model, facts.device].filter(Boolean).join(' · ');
    about.title = [`scumble ${facts.version}`, facts.note].filter(Boolean).join('. ');
    leave.hidden = !facts.password;
    return facts;
  } catch (refusal) {
    say(refusal.message, refusal.remedy, 'bad');
    return null;
  }
}

function themeButton() {
  const root = document.documentElement;
  const dark = () => (root.dataset.theme ? root.dataset.theme === 'dark' : matchMedia('(prefers-color-scheme: dark)').matches);
  const button = iconButton('moon', 'Dark or light', () => {
    root.dataset.theme = dark() ? 'light' : 'dark';
    try {
      localStorage.setItem('scumble-theme', root.dataset.theme);
    } catch {
      // for this page only, then
    }
    show();
  });
  const show = () => button.replaceChildren(icon(dark() ? 'sun' : 'moon'));
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', show);
  show();
  return button;
}

/** A short message at the foot of the page, spoken too. */
export function say(sentence, remedy = '', kind = '') {
  let place = document.querySelector('#messages');
  if (!place) {
    place = el('div', { id: 'messages', role: 'status', 'aria-live': 'polite' });
    document.body.append(place);
  }
  const message = el(kind ? `p.${kind}` : 'p', {}, el('strong', {}, sentence), remedy ? ` ${remedy}` : '');
  place.append(message);
  setTimeout(() => message.remove(), kind === 'bad' ? 9000 : 4000);
}

/** Say something only to those who hear the page. */
export function announce(text) {
  let place = document.querySelector('#heard');
  if (!place) {
    place = el('p.unseen', { id: 'heard', role: 'status' });
    document.body.append(place);
  }
  place.textContent = text;
}

/** A sheet over the page; Escape or a click beside it closes it. */
export function sheet(title, ...content) {
  const close = iconButton('close', 'Close', () => dialog.close());
  const dialog = el('dialog.sheet', { 'aria-label': title }, el('header', {}, el('h2', {}, title), close), ...content);
  dialog.addEventListener('click', (event) => event.target === dialog && dialog.close());
  dialog.addEventListener('close', () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}
