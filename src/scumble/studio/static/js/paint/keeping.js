/** Drawings in and out: from the server's pictures, from files, to this tab's draft, to PNG. */

import { imageUrl, Refusal, upload } from '../parts/api.js';
import { keep, kept } from '../parts/draft.js';
import { Drawing } from './drawing.js';
import { decode, encode } from './png.js';

const DRAFT = 'paint:drawing';

/** Exact pixels of a picture on the server: {width, height, data} in RGBA. */
export async function pixels(id) {
  const answer = await fetch(imageUrl(id), { credentials: 'same-origin' });
  if (!answer.ok) throw new Refusal({ error: 'This picture is not there any more.', remedy: 'Choose another.' }, answer.status);
  return decode(new Uint8Array(await answer.arrayBuffer()));
}

/** A drawing on a picture of the server: {drawing, id}. A transparent one is laid on white first, as a picture of its own. */
export async function onPicture(id) {
  const { width, height, data } = await pixels(id);
  if (flatten(data)) id = (await send({ width, height, channels: 3, data: rgb(data) }, 'flat.png')).id;
  return { drawing: new Drawing(width, height, { base: data }), id };
}

/** Lay RGBA bytes on white, in place; false if nothing was transparent. */
function flatten(data) {
  let some = false;
  for (let i = 0; i < data.length; i += 4) {
    const opacity = data[i + 3];
    if (opacity === 255) continue;
    some = true;
    for (let c = 0; c < 3; c++) data[i + c] = Math.round((data[i + c] * opacity + 255 * (255 - opacity)) / 255);
    data[i + 3] = 255;
  }
  return some;
}

function rgb(data) {
  const out = new Uint8Array((data.length / 4) * 3);
  for (let i = 0; i * 4 < data.length; i++) out.set(data.subarray(i * 4, i * 4 + 3), i * 3);
  return out;
}

export const guidePng = (drawing) => encode({ ...size(drawing), channels: 3, data: drawing.composite(3) });
export const maskPng = (drawing) => encode({ ...size(drawing), channels: 1, data: drawing.mask });
export const strokesPng = (drawing) => encode({ ...size(drawing), channels: 4, data: new Uint8Array(drawing.paint.buffer) });

const size = ({ width, height }) => ({ width, height });

async function send(picture, name) {
  return upload(new Blob([await encode(picture)], { type: 'image/png' }), name);
}

/** Upload a PNG's bytes; the new picture's id. */
export async function sendPng(bytes, name) {
  return (await upload(new Blob([bytes], { type: 'image/png' }), name)).id;
}

/** Put a mask (grey, or white by opacity) or strokes (RGBA) from a picture of the same size into a layer. */
export function putPicture(drawing, layer, { width, height, data }) {
  if (width !== drawing.width || height !== drawing.height) {
    throw new Refusal({ error: `This picture has ${width} × ${height} pixels and the canvas ${drawing.width} × ${drawing.height}.`, remedy: 'Give one of the same size.' });
  }
  const count = width * height;
  if (layer === 'mask') {
    return drawing.put('mask', Uint8Array.from({ length: count }, (_, i) => (data[i * 4 + 3] < 128 ? 0 : Math.round((data[i * 4] + data[i * 4 + 1] + data[i * 4 + 2]) / 3))));
  }
  const solid = data.slice();
  for (let i = 0; i < count; i++) {
    if (solid[i * 4 + 3] < 128) solid.fill(0, i * 4, i * 4 + 4);
    else solid[i * 4 + 3] = 255;
  }
  return drawing.put('paint', new Uint32Array(solid.buffer));
}

/** Keep the drawing for this tab; false if there is no room for it. */
export async function keepDrawing(drawing, baseId) {
  const [paint, mask] = [await strokesPng(drawing), await maskPng(drawing)].map(base64);
  return keep(DRAFT, { ...size(drawing), baseId, ground: baseId ? null : [...drawing.base.subarray(0, 3)], paint, mask });
}

/** This tab's drawing as it was: {drawing, id}, or null. */
export async function keptDrawing() {
  const draft = kept(DRAFT);
  if (!draft) return null;
  try {
    const { drawing, id } = draft.baseId ? await onPicture(draft.baseId) : { drawing: new Drawing(draft.width, draft.height, { ground: draft.ground }), id: null };
    for (const layer of ['paint', 'mask']) putPicture(drawing, layer, await decode(bytes(draft[layer])));
    drawing.done = [];
    return { drawing, id };
  } catch {
    return null; // the picture under it is gone
  }
}

function base64(array) {
  let text = '';
  for (let i = 0; i < array.length; i += 0x8000) text += String.fromCharCode(...array.subarray(i, i + 0x8000));
  return btoa(text);
}

const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
