/** Flood fill, row by row. */

/**
 * Call `span(from, to)` with the index range of every piece of a row that hangs together (four neighbours) with the
 * pixel (x, y) and looks like it: `seen.data`, `seen.step` bytes a pixel, within `seen.tolerance` in every one.
 */
export function flood(width, height, x, y, { data, step, tolerance }, span) {
  const wanted = data.slice((y * width + x) * step, (y * width + x) * step + step);
  const visited = new Uint8Array(width * height);
  const fits = (at) => {
    if (visited[at]) return false;
    for (let c = 0; c < step; c++) if (Math.abs(data[at * step + c] - wanted[c]) > tolerance) return false;
    return true;
  };
  const waiting = [[x, y]];
  while (waiting.length) {
    const [px, py] = waiting.pop();
    const row = py * width;
    if (!fits(row + px)) continue;
    let [from, to] = [px, px + 1];
    while (from > 0 && fits(row + from - 1)) from--;
    while (to < width && fits(row + to)) to++;
    visited.fill(1, row + from, row + to);
    span(row + from, row + to);
    for (const next of [py - 1, py + 1]) {
      if (next < 0 || next >= height) continue;
      for (let i = from; i < to; i++) {
        const at = next * width + i;
        if (fits(at) && (i === from || !fits(at - 1))) waiting.push([i, next]);
      }
    }
  }
}
