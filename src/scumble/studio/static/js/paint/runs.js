/** Pixels as pairs (how many, value): strokes are flat, so a touched tile takes a few bytes in the undo list. */

export function pack(pixels) {
  const out = [];
  for (let i = 0; i < pixels.length;) {
    const start = i;
    while (i < pixels.length && pixels[i] === pixels[start]) i++;
    out.push(i - start, pixels[start]);
  }
  return Uint32Array.from(out);
}

export function unpack(runs) {
  let length = 0;
  for (let i = 0; i < runs.length; i += 2) length += runs[i];
  const out = new Uint32Array(length);
  for (let i = 0, at = 0; i < runs.length; i += 2) out.fill(runs[i + 1], at, (at += runs[i]));
  return out;
}
