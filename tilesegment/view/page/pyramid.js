// Pixels of an OME-Zarr image by window: fetched from the store's own files, decoded here.

import { FetchStore, openZarr, zarrRoot } from './vendor/libraries.js';

const CACHE_BYTES = 384 * 2 ** 20;

/** Decoded chunks, the least recently used of which give way. Two readers share one request. */
class ChunkCache {
  #chunks = new Map();
  #bytes = 0;

  async get(key, decode) {
    const known = this.#chunks.get(key);
    const entry = known ?? { chunk: decode(), bytes: 0 };
    this.#chunks.delete(key);
    this.#chunks.set(key, entry);
    try {
      const chunk = await entry.chunk;
      if (!known) this.#count(key, entry, chunk.data.byteLength);
      return chunk;
    } catch (error) {
      this.#chunks.delete(key);
      throw error;
    }
  }

  #count(key, entry, bytes) {
    if (this.#chunks.get(key) !== entry) return;
    entry.bytes = bytes;
    this.#bytes += bytes;
    for (const [oldest, { bytes: freed }] of this.#chunks) {
      if (this.#bytes <= CACHE_BYTES) return;
      this.#chunks.delete(oldest);
      this.#bytes -= freed;
    }
  }
}

const cache = new ChunkCache();

/** An image or label image with all its levels, the finest first. */
export class Pyramid {
  #arrays;

  /** `picture`: as in description.json; its revision keeps what it replaced out of the caches. */
  constructor(picture) {
    this.axes = picture.axes;
    this.levels = picture.levels;
    this.bytes = picture.bytes;
    const url = new URL(picture.url, document.baseURI);
    url.search = picture.revision ?? '';
    this.url = url.href;
    const store = new FetchStore(url, { useSuffixRequest: true });
    const open = picture.zarrFormat === 3 ? openZarr.v3 : openZarr.v2;
    this.#arrays = picture.levels.map((level) => {
      let array;
      return () => (array ??= open(zarrRoot(store).resolve(level.path), { kind: 'array' }));
    });
  }

  /**
   * The pixels of a window of one plane, row by row; zero beyond the rim.
   * `position`: index on each leading axis, as {t: 0, c: 1, z: 0}.
   */
  async read(level, position, window) {
    const array = await this.#arrays[level]();
    const leading = this.axes.slice(0, -2).map((axis) => position[axis] ?? 0);
    const [chunkHeight, chunkWidth] = array.chunks.slice(-2);
    const [height, width] = array.shape.slice(-2);
    const rows = span(window.y, window.height, height, chunkHeight);
    const columns = span(window.x, window.width, width, chunkWidth);
    const chunks = rows.flatMap((row) =>
      columns.map((column) => this.#chunk(level, array, leading, row, column)),
    );
    return assemble(await Promise.all(chunks), window, { height, width });
  }

  async #chunk(level, array, leading, row, column) {
    const before = leading.map((index, axis) => Math.floor(index / array.chunks[axis]));
    const coordinates = [...before, row, column];
    const key = `${this.url} ${level} ${coordinates}`;
    const { data, stride } = await cache.get(key, () => array.getChunk(coordinates));
    const offset = leading.reduce(
      (sum, index, axis) => sum + (index % array.chunks[axis]) * stride[axis],
      0,
    );
    const [height, width] = array.chunks.slice(-2);
    const [rowStride, columnStride] = stride.slice(-2);
    const box = { y: row * height, x: column * width, height, width };
    return { data, offset, rowStride, columnStride, ...box };
  }
}

/** Numbers of the chunks along one axis that a window touches. */
function span(start, length, size, chunk) {
  const first = Math.floor(Math.max(start, 0) / chunk);
  const last = Math.floor((Math.min(start + length, size) - 1) / chunk);
  return Array.from({ length: Math.max(last - first + 1, 0) }, (_, index) => first + index);
}

function assemble(chunks, window, image) {
  const pixels = new (pixelType(chunks))(window.height * window.width);
  for (const chunk of chunks) {
    const top = Math.max(window.y, chunk.y);
    const left = Math.max(window.x, chunk.x);
    const bottom = Math.min(window.y + window.height, chunk.y + chunk.height, image.height);
    const right = Math.min(window.x + window.width, chunk.x + chunk.width, image.width);
    for (let y = top; y < bottom; y++) {
      const from = chunk.offset + (y - chunk.y) * chunk.rowStride;
      let source = from + (left - chunk.x) * chunk.columnStride;
      let target = (y - window.y) * window.width + left - window.x;
      for (let x = left; x < right; x++, source += chunk.columnStride) {
        pixels[target++] = Number(chunk.data[source]);
      }
    }
  }
  return pixels;
}

/** The type of the chunks; 64-bit integers become numbers. */
function pixelType(chunks) {
  const type = chunks[0]?.data.constructor ?? Uint8Array;
  return type === BigInt64Array || type === BigUint64Array ? Float64Array : type;
}
