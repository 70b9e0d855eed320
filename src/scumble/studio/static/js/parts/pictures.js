/** Fields that hold pictures: choose a file, drop it, paste it, or take one made before. */

import { get, imageUrl, thumbUrl, upload } from './api.js';
import { el, icon, iconButton } from './dom.js';
import { say, sheet } from './shell.js';

const ACCEPT = { image: 'image/*', mask: 'image/*', images: 'image/*', video: 'video/*,image/gif' };

/** A place to drop files; calls `given` with what the server says of each. */
function dropZone(spec, id, given, caption) {
  const input = el('input.hidden-file', { id, type: 'file', accept: ACCEPT[spec.type], multiple: spec.type === 'images' });
  const send = async (files) => {
    zone.classList.add('busy');
    for (const file of files) {
      try {
        given(await upload(file));
      } catch (refusal) {
        say(refusal.message, refusal.remedy, 'bad');
      }
    }
    zone.classList.remove('busy');
    input.value = '';
  };
  input.addEventListener('change', () => send([...input.files]));
  const zone = el('div.drop', {}, input, el('span.drop-face', { 'aria-hidden': 'true' }, icon('upload'), el('span', {}, caption)));
  for (const name of ['dragenter', 'dragover']) {
    zone.addEventListener(name, (event) => {
      event.preventDefault();
      zone.classList.add('over');
    });
  }
  for (const name of ['dragleave', 'drop']) zone.addEventListener(name, () => zone.classList.remove('over'));
  zone.addEventListener('drop', (event) => {
    event.preventDefault();
    send([...event.dataTransfer.files]);
  });
  zone.addEventListener('paste', (event) => send([...event.clipboardData.files]));
  return zone;
}

export function imageField(spec, { id, changed }) {
  let value = spec.default ?? null;
  const caption = { mask: 'A mask: white may change', video: 'Choose or drop a clip' }[spec.type] ?? 'Choose, drop or paste a picture';
  const put = (next) => {
    value = next;
    draw();
    node.dispatchEvent(new Event('input', { bubbles: true }));
    changed();
  };
  const zone = dropZone(spec, id, (image) => put(image.id), caption);
  const earlier = el('button.quiet.small', { type: 'button', onclick: () => choose((chosen) => put(chosen)) }, 'One made before');
  const node = el('div.picture-field', {});
  const draw = () => {
    const face = value ? el('figure.chosen', {}, picture(value, spec.type), iconButton('close', `Take ${spec.label} away`, () => put(null))) : zone;
    node.replaceChildren(face, value || spec.type === 'video' ? '' : earlier);
  };
  draw();
  return {
    node,
    get: () => value,
    set: (next) => {
      value = next ?? null;
      draw();
    },
    focus: () => node.querySelector('input, button')?.focus(),
  };
}

function picture(id, type) {
  return el('img', { src: type === 'video' ? thumbUrl(id) : imageUrl(id), alt: type === 'mask' ? 'The mask' : 'The picture', loading: 'lazy' });
}

export function imagesField(spec, { id, changed }) {
  let values = [...(spec.default ?? [])];
  const zone = dropZone(spec, id, (image) => put([...values, image.id]), 'Choose or drop photos');
  const grid = el('div.photos');
  const node = el('div.pictures-field', {}, grid, el('button.quiet.small', { type: 'button', onclick: () => choose((one) => put([...values, one])) }, 'One made before'));
  const put = (next) => {
    values = next;
    draw();
    node.dispatchEvent(new Event('input', { bubbles: true }));
    changed();
  };
  const draw = () => grid.replaceChildren(
    ...values.map((one, i) => el('figure.chosen', {}, el('img', { src: thumbUrl(one), alt: `Photo ${i + 1}` }), iconButton('close', `Take photo ${i + 1} away`, () => put(values.filter((_, at) => at !== i))))),
    zone,
  );
  draw();
  return {
    node,
    get: () => (values.length ? values : null),
    set: (next) => {
      values = [...(next ?? [])];
      draw();
    },
    focus: () => zone.querySelector('input').focus(),
  };
}

/** A sheet with the newest pictures of the history; calls `chosen` with an image's id. */
export async function choose(chosen) {
  const grid = el('div.thumbs', {}, el('p.help', {}, 'Looking …'));
  const dialog = sheet('One made before', grid);
  try {
    const items = (await get('/api/history?limit=60')).filter(({ image }) => image);
    grid.replaceChildren(
      ...items.map(({ image, prompt, verb }) =>
        el('button.thumb', { type: 'button', title: prompt || verb, onclick: () => (dialog.close(), chosen(image)) }, el('img', { src: thumbUrl(image), alt: prompt || verb })),
      ),
    );
    if (!items.length) grid.replaceChildren(el('p.help', {}, 'Nothing has been made here yet.'));
  } catch (refusal) {
    grid.replaceChildren(el('p.fault', {}, refusal.message));
  }
}
