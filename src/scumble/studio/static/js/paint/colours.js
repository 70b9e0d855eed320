/** Colours to paint with. */

/** The veil over what may change: red, green, blue, and opacity where the mask is white. */
export const VEIL = [255, 62, 120, 128];

export const PALETTE = ['#16161a', '#8a8a92', '#ffffff', '#7a4a2b', '#d33f3f', '#f08a24', '#f5cf3d', '#4f9d4a', '#2f7fd1', '#6a4fc4'];

export const fromHex = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
export const toHex = (rgb) => `#${rgb.map((value) => value.toString(16).padStart(2, '0')).join('')}`;

/** `count` colours that fill much of a picture (RGBA bytes) and are unlike one another. */
export function prominent(bytes, count) {
  const bins = new Map();
  const step = Math.max(4, Math.floor(bytes.length / 4 / 20000) * 4);
  for (let i = 0; i < bytes.length; i += step) {
    const key = ((bytes[i] >> 4) << 8) | ((bytes[i + 1] >> 4) << 4) | (bytes[i + 2] >> 4);
    const bin = bins.get(key) ?? bins.set(key, [0, 0, 0, 0]).get(key);
    for (let c = 0; c < 3; c++) bin[c] += bytes[i + c];
    bin[3] += 1;
  }
  const means = [...bins.values()].sort((one, other) => other[3] - one[3]).map(([r, g, b, n]) => [r, g, b].map((sum) => Math.round(sum / n)));
  const out = [];
  for (const mean of means) {
    if (out.every((seen) => distance(seen, mean) > 60)) out.push(mean);
    if (out.length === count) break;
  }
  return out;
}

const distance = (one, other) => Math.hypot(...one.map((value, c) => value - other[c]));
