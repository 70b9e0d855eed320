/** The pixels of a round brush with a hard edge. */

const known = new Map();

/**
 * Rows [dy, first dx, last dx] of a brush `size` pixels across: the pixels whose centres lie within a circle of that
 * diameter. An odd one is centred on the pixel, an even one on its upper left corner. All in integers, so it is
 * the same everywhere.
 */
export function disc(size) {
  if (!known.has(size)) known.set(size, rows(size));
  return known.get(size);
}

function rows(size) {
  const half = size % 2 ? 0 : 1; // twice the offset of a pixel's centre
  const reach = Math.floor(size / 2);
  const out = [];
  for (let dy = -reach; dy <= reach; dy++) {
    const rest = size * size - (2 * dy + half) ** 2;
    let dx = 0;
    if (rest < half * half) continue;
    while ((2 * (dx + 1) + half) ** 2 <= rest) dx++;
    out.push([dy, -dx - half, dx]);
  }
  return out;
}
