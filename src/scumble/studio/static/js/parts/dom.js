/** Elements from plain calls. Text is always text: nothing here reads HTML. */

/**
 * `el('button.primary', { type: 'button', onclick: f }, 'Go')`. Properties that begin with `on` are listeners,
 * `aria-*`, `data-*`, `role` and the like attributes, null and false are left out.
 */
export function el(name, properties = {}, ...children) {
  const [tag, ...classes] = name.split('.');
  const node = document.createElement(tag || 'div');
  if (classes.length) node.className = classes.join(' ');
  for (const [key, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith('on')) node.addEventListener(key.slice(2), value);
    else if (key in node && !key.includes('-') && key !== 'list') node[key] = value;
    else node.setAttribute(key, value === true ? '' : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

/** A button with an icon and a name that is spoken and shown as a hint. */
export function iconButton(shape, label, onclick, properties = {}) {
  return el('button.icon', { type: 'button', title: label, 'aria-label': label, onclick, ...properties }, icon(shape));
}

const SHAPES = {
  brush: 'M4 20c3 0 5-1 5-3.5a2.5 2.5 0 0 0-5 0C4 18 3 19 2 20M9 15 19.5 4.5a1.4 1.4 0 0 1 2 2L11 17',
  eraser: 'm8 20-5-5a2 2 0 0 1 0-2.8L12.2 3a2 2 0 0 1 2.8 0l6 6a2 2 0 0 1 0 2.8L13 20H8Zm0 0h13M7.5 8l8.5 8.5',
  fill: 'm12 3 8 8-8 8a2 2 0 0 1-2.8 0L4 13.8a2 2 0 0 1 0-2.8l8-8Zm0 0-2-2M4 12h15M21 16s2 2.3 2 3.7a2 2 0 0 1-4 0c0-1.4 2-3.7 2-3.7Z',
  picker: 'M3 21l1-4L14 7l3 3L7 20l-4 1ZM13 5l6 6M16 8l3.5-3.5a2 2 0 0 0-2.8-2.8L13.5 5',
  hand: 'M8 12V5a1.5 1.5 0 0 1 3 0v6V3.5a1.5 1.5 0 0 1 3 0V11V5a1.5 1.5 0 0 1 3 0v8-4a1.5 1.5 0 0 1 3 0v6c0 4-2.5 6-6 6-4 0-5.5-1.5-7.5-5L4 12.5a1.6 1.6 0 0 1 2.6-1.8L8 12Z',
  undo: 'M9 14 4 9l5-5M4 9h10a6 6 0 0 1 0 12h-3',
  redo: 'm15 14 5-5-5-5M20 9H10a6 6 0 0 0 0 12h3',
  plus: 'M12 5v14M5 12h14',
  minus: 'M5 12h14',
  close: 'M6 6l12 12M18 6 6 18',
  fit: 'M4 9V4h5M20 9V4h-5M4 15v5h5M20 15v5h-5',
  eye: 'M2 12s3.5-7 10-7 10 7 10 7-3.5 7-10 7S2 12 2 12Zm10 3a3 3 0 1 0 0-6 3 3 0 0 0 0 6Z',
  upload: 'M12 16V4M7 9l5-5 5 5M4 20h16',
  download: 'M12 4v12M7 11l5 5 5-5M4 20h16',
  die: 'M5 3h14a2 2 0 0 1 2 2v14a2 2 0 0 1-2 2H5a2 2 0 0 1-2-2V5a2 2 0 0 1 2-2ZM7.3 8a.7.7 0 1 0 1.4 0a.7.7 0 1 0-1.4 0M15.3 8a.7.7 0 1 0 1.4 0a.7.7 0 1 0-1.4 0M11.3 12a.7.7 0 1 0 1.4 0a.7.7 0 1 0-1.4 0M7.3 16a.7.7 0 1 0 1.4 0a.7.7 0 1 0-1.4 0M15.3 16a.7.7 0 1 0 1.4 0a.7.7 0 1 0-1.4 0',
  trash: 'M4 7h16M9 7V4h6v3M6 7l1 13h10l1-13M10 11v5M14 11v5',
  sun: 'M12 16a4 4 0 1 0 0-8 4 4 0 0 0 0 8ZM12 2v2M12 20v2M4.2 4.2l1.4 1.4M18.4 18.4l1.4 1.4M2 12h2M20 12h2M4.2 19.8l1.4-1.4M18.4 5.6l1.4-1.4',
  moon: 'M20 14.5A8.5 8.5 0 0 1 9.5 4 8.5 8.5 0 1 0 20 14.5Z',
  help: 'M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18ZM9.5 9.5a2.5 2.5 0 1 1 3.5 2.3c-.7.3-1 .8-1 1.7M12 17h.01',
  picture: 'M4 4h16a1 1 0 0 1 1 1v14a1 1 0 0 1-1 1H4a1 1 0 0 1-1-1V5a1 1 0 0 1 1-1ZM3 16l5-5 5 5 3-3 5 4M15.5 9h.01',
  mask: 'M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18ZM12 3v18M12 8h7.8M12 12h9M12 16h7.8',
  invert: 'M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18ZM12 3v18M12 6l6 0M12 9.5h8.5M12 13h9M12 16.5h7.5',
  again: 'M4 4v5h5M20 20v-5h-5M5 15a7.5 7.5 0 0 0 14 1M19 9A7.5 7.5 0 0 0 5 8',
  settings: 'M4 7h9M17 7h3M4 17h3M11 17h9M15 9a2 2 0 1 0 0-4 2 2 0 0 0 0 4ZM9 19a2 2 0 1 0 0-4 2 2 0 0 0 0 4Z',
  wand: 'M4 20 14.5 9.5M17 3v4M15 5h4M19 12v3M17.5 13.5h3M8 4v3M6.5 5.5h3',
  learn: 'M2 9l10-5 10 5-10 5L2 9Zm4 2.5V16c0 1.5 3 3 6 3s6-1.5 6-3v-4.5M22 9v5',
  layers: 'm12 3 9 5-9 5-9-5 9-5ZM3 12.5l9 5 9-5M3 17l9 5 9-5',
  left: 'm15 5-7 7 7 7',
  right: 'm9 5 7 7-7 7',
  slider: 'M12 3v18M8 8l-4 4 4 4M16 8l4 4-4 4',
  swap: 'M7 4 3 8l4 4M3 8h14M17 12l4 4-4 4M21 16H7',
  send: 'M4 12h15M13 6l6 6-6 6',
  exit: 'M14 4h4a2 2 0 0 1 2 2v12a2 2 0 0 1-2 2h-4M10 8l-4 4 4 4M6 12h9',
};

export function icon(shape) {
  const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
  svg.setAttribute('viewBox', '0 0 24 24');
  svg.setAttribute('aria-hidden', 'true');
  const path = document.createElementNS('http://www.w3.org/2000/svg', 'path');
  path.setAttribute('d', SHAPES[shape]);
  svg.append(path);
  return svg;
}

/** Text with `names` in backticks set as code. */
export function prose(text) {
  return text.split('`').map((part, i) => (i % 2 ? el('code', {}, part) : part));
}

let last = 0;

/** A name for an element that no other has. */
export function unique(prefix) {
  last += 1;
  return `${prefix}-${last}`;
}
