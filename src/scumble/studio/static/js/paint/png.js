/**
 * PNG in and out to the bit. A browser's canvas multiplies colours by their opacity and may manage them, so pixels
 * never pass through one here: bytes become typed arrays, and typed arrays bytes.
 *
 * Written: 8 bits, grey, RGB or RGBA, no filter, not interlaced. Read: the same and palettes, with every filter.
 */

const SIGNATURE = [137, 80, 78, 71, 13, 10, 26, 10];
const COLOUR_TYPE = { 1: 0, 3: 2, 4: 6 };
const CHANNELS = { 0: 1, 2: 3, 3: 1, 4: 2, 6: 4 };

const CRC = Uint32Array.from({ length: 256 }, (_, value) => {
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? 0xedb88320 ^ (value >>> 1) : value >>> 1;
  return value >>> 0;
});

function crc(bytes) {
  let sum = 0xffffffff;
  for (const byte of bytes) sum = CRC[(sum ^ byte) & 255] ^ (sum >>> 8);
  return (sum ^ 0xffffffff) >>> 0;
}

async function through(bytes, stream) {
  return new Uint8Array(await new Response(new Blob([bytes]).stream().pipeThrough(stream)).arrayBuffer());
}

function chunk(type, body) {
  const bytes = new Uint8Array(body.length + 12);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, body.length);
  for (let i = 0; i < 4; i++) bytes[4 + i] = type.charCodeAt(i);
  bytes.set(body, 8);
  view.setUint32(body.length + 8, crc(bytes.subarray(4, body.length + 8)));
  return bytes;
}

/** A PNG file of `data`, row by row, `channels` (1 grey, 3 RGB, 4 RGBA) bytes a pixel. */
export async function encode({ width, height, channels, data }) {
  const stride = width * channels;
  if (data.length !== stride * height) throw new RangeError(`${data.length} bytes for ${width} x ${height} x ${channels}`);
  const rows = new Uint8Array((stride + 1) * height); // each row starts with its filter: 0, none
  for (let y = 0; y < height; y++) rows.set(data.subarray(y * stride, (y + 1) * stride), y * (stride + 1) + 1);
  const header = new Uint8Array(13);
  const view = new DataView(header.buffer);
  view.setUint32(0, width);
  view.setUint32(4, height);
  header[8] = 8;
  header[9] = COLOUR_TYPE[channels];
  const parts = [
    Uint8Array.from(SIGNATURE),
    chunk('IHDR', header),
    chunk('IDAT', await through(rows, new CompressionStream('deflate'))),
    chunk('IEND', new Uint8Array(0)),
  ];
  return new Uint8Array(await new Blob(parts).arrayBuffer());
}

/** Pixels of a PNG file: `{width, height, data}` with RGBA bytes. Throws for what is not 8 bits or is interlaced. */
export async function decode(bytes) {
  if (SIGNATURE.some((byte, i) => bytes[i] !== byte)) throw new TypeError('This is no PNG file.');
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const found = { data: [] };
  for (let at = 8; at + 12 <= bytes.length;) {
    const length = view.getUint32(at);
    const type = String.fromCharCode(...bytes.subarray(at + 4, at + 8));
    const body = bytes.subarray(at + 8, at + 8 + length);
    if (type === 'IDAT') found.data.push(body);
    else found[type] = body;
    at += length + 12;
  }
  const header = new DataView(found.IHDR.buffer, found.IHDR.byteOffset, 13);
  const [width, height, depth, type] = [header.getUint32(0), header.getUint32(4), header.getUint8(8), header.getUint8(9)];
  if (depth !== 8 || header.getUint8(12) !== 0) throw new TypeError('Only plain PNG files of 8 bits are read.');
  const packed = new Uint8Array(await new Blob(found.data).arrayBuffer());
  const rows = await through(packed, new DecompressionStream('deflate'));
  const data = coloured(unfilter(rows, width, height, CHANNELS[type]), width * height, type, found);
  return { width, height, data };
}

/** Undo the filter of each row (PNG specification, section 9). */
function unfilter(rows, width, height, channels) {
  const stride = width * channels;
  const out = new Uint8Array(stride * height);
  for (let y = 0; y < height; y++) {
    const filter = rows[y * (stride + 1)];
    const from = y * (stride + 1) + 1;
    const to = y * stride;
    for (let i = 0; i < stride; i++) {
      const left = i >= channels ? out[to + i - channels] : 0;
      const up = y ? out[to + i - stride] : 0;
      const corner = y && i >= channels ? out[to + i - stride - channels] : 0;
      out[to + i] = rows[from + i] + guess(filter, left, up, corner);
    }
  }
  return out;
}

function guess(filter, left, up, corner) {
  if (filter === 0) return 0;
  if (filter === 1) return left;
  if (filter === 2) return up;
  if (filter === 3) return (left + up) >> 1;
  const [a, b, c] = [Math.abs(up - corner), Math.abs(left - corner), Math.abs(left + up - 2 * corner)];
  if (a <= b && a <= c) return left;
  return b <= c ? up : corner;
}

/** RGBA from what the file holds: grey, RGB, a palette, or either with opacity. */
function coloured(pixels, count, type, { PLTE, tRNS }) {
  const out = new Uint8Array(count * 4).fill(255);
  for (let i = 0; i < count; i++) {
    const to = i * 4;
    if (type === 3) {
      out.set(PLTE.subarray(pixels[i] * 3, pixels[i] * 3 + 3), to);
      if (tRNS && pixels[i] < tRNS.length) out[to + 3] = tRNS[pixels[i]];
    } else if (type === 2 || type === 6) {
      const step = type === 2 ? 3 : 4;
      for (let c = 0; c < step; c++) out[to + c] = pixels[i * step + c];
    } else {
      const step = type === 0 ? 1 : 2;
      out.fill(pixels[i * step], to, to + 3);
      if (step === 2) out[to + 3] = pixels[i * 2 + 1];
    }
  }
  return out;
}
