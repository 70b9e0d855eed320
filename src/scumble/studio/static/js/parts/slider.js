/** Two pictures of one place, and a line between them that a pointer or the arrow keys move. */

import { el } from './dom.js';

export function beforeAfter(first, second, alt = 'After', names = ['before', 'after']) {
  const range = el('input', { type: 'range', min: 0, max: 100, step: 1, value: 50, 'aria-label': 'Before and after: how much is before' });
  const node = el('div.slider', {},
    el('img.after', { src: second, alt, draggable: false }),
    el('img.before', { src: first, alt: names[0], draggable: false }),
    el('span.divide', { 'aria-hidden': 'true' }),
    el('span.tag.tag-before', { 'aria-hidden': 'true' }, names[0]),
    el('span.tag.tag-after', { 'aria-hidden': 'true' }, names[1]),
    range,
  );
  const move = () => node.style.setProperty('--cut', `${range.value}%`);
  range.addEventListener('input', move);
  move();
  return node;
}
