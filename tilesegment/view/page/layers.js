// The layers of the map that are made of pixels: the image and its labels.
//
// Map coordinates are pixels of the finest level: x to the right, y upwards from the image's
// top, so that row r lies between -r and -r - 1.

import { notice } from './dom.js';
import { DataTileSource, Projection, TileGrid, WebGLTileLayer } from './vendor/libraries.js';

const SMALLEST_TILE = 256;
const LARGEST_TILE = 512;
const KEPT_TEXTURES = 160;
const UNLISTED_COLOURS = 24;

/** From 0 to 1 in equal steps: "inferno" (matplotlib), which everybody sees get brighter. */
export const HEAT = [
  [0, 0, 4],
  [87, 16, 110],
  [188, 55, 84],
  [249, 142, 9],
  [252, 255, 164],
];

/** [left, bottom, right, top] of an image. */
export function extentOf(pyramid) {
  const [height, width] = pyramid.levels[0].shape.slice(-2);
  const factor = pyramid.levels[0].factor;
  return [0, -height * factor, width * factor, 0];
}

export function pixelProjection(extent) {
  return new Projection({ code: 'tilesegment:pixels', units: 'pixels', extent });
}

/** The layer of an image; `showChannels` and `showPlane` decide what it draws. */
export class ImageLayer {
  #pyramid;
  #projection;
  #smooth;
  #sharp;
  #shown = [];
  #position = {};

  constructor(pyramid, projection) {
    this.#pyramid = pyramid;
    this.#projection = projection;
    const options = { extent: extentOf(pyramid), cacheSize: KEPT_TEXTURES };
    this.#smooth = new WebGLTileLayer(options);
    this.#sharp = new WebGLTileLayer({ ...options, maxResolution: 1 });
    /** In the overview. */
    this.overview = new WebGLTileLayer(options);
  }

  /** In the map: from afar smoothed, and enlarged pixels as the squares that they are. */
  get main() {
    return [this.#smooth, this.#sharp];
  }

  get #layers() {
    return [this.#smooth, this.#sharp, this.overview];
  }

  showPlane(position) {
    this.#position = position;
    this.#refresh();
  }

  /** `channels`: visible ones, each with number, colour and window. */
  showChannels(channels) {
    const numbers = channels.map((channel) => channel.number);
    const before = this.#shown.map((channel) => channel.number);
    this.#shown = channels;
    if (numbers.join() !== before.join()) this.#refresh();
    else this.#layers.forEach((layer) => layer.updateStyleVariables(variables(channels, this.#unit)));
  }

  /** The value that the graphics card takes for 1: it maps bytes to 0..1. */
  get #unit() {
    return this.#pyramid.bytes ? 255 : 1;
  }

  #refresh() {
    const channels = this.#shown;
    if (channels.length === 0) {
      this.#layers.forEach((layer) => layer.setSource(null));
      return;
    }
    const smooth = this.#source(true);
    this.#smooth.setSource(smooth);
    this.overview.setSource(smooth);
    this.#sharp.setSource(this.#source(false));
    const style = { color: blend(channels.length), variables: variables(channels, this.#unit) };
    this.#layers.forEach((layer) => layer.setStyle(style));
  }

  #source(interpolate) {
    const bands = this.#shown.map((channel) => channel.number);
    const Type = this.#pyramid.bytes ? Uint8Array : Float32Array;
    const read = async (level, window) => {
      const planes = await Promise.all(
        bands.map((c) => this.#pyramid.read(level, { ...this.#position, c }, window)),
      );
      return interleave(planes, Type);
    };
    const options = { bandCount: bands.length, interpolate };
    return tileSource(this.#pyramid, this.#projection, read, options);
  }
}

function variables(channels, unit) {
  const values = {};
  channels.forEach(({ colour, window: [low, high] }, index) => {
    values[`low${index}`] = low / unit;
    values[`span${index}`] = Math.max(high - low, 1e-6) / unit;
    ['red', 'green', 'blue'].forEach((part, place) => {
      values[`${part}${index}`] = colour[place];
    });
  });
  return values;
}

/** Each channel in its colour, as bright as its contrast says; the sum of all. */
function blend(count) {
  const sum = (part) => {
    const terms = Array.from({ length: count }, (_, index) => {
      const above = ['-', ['band', index + 1], ['var', `low${index}`]];
      const strength = ['clamp', ['/', above, ['var', `span${index}`]], 0, 1];
      return ['*', strength, ['var', `${part}${index}`]];
    });
    return ['clamp', terms.reduce((total, term) => ['+', total, term]), 0, 255];
  };
  return ['color', sum('red'), sum('green'), sum('blue')];
}

function interleave(planes, Type) {
  const bands = planes.length;
  const pixels = new Type(bands * planes[0].length);
  planes.forEach((plane, band) => {
    for (let from = 0, to = band; from < plane.length; from++, to += bands) pixels[to] = plane[from];
  });
  return pixels;
}

/**
 * The layer of one label image.
 * `labels`: as in description.json; `drawing`: "fill" or "outline".
 */
export class LabelLayer {
  #pyramid;
  #projection;
  #classes;
  #numbers;
  #hidden = new Set();

  constructor(labels, pyramid, projection) {
    this.#pyramid = pyramid;
    this.#projection = projection;
    this.#classes = labels.classes.filter((item) => item.value !== 0);
    this.#numbers = new Map(this.#classes.map((item, index) => [item.value, index + 1]));
    this.layer = new WebGLTileLayer({ extent: extentOf(pyramid), cacheSize: KEPT_TEXTURES });
  }

  show(position, drawing) {
    const read = async (level, window) => {
      const grown = {
        y: window.y - 1,
        x: window.x - 1,
        height: window.height + 2,
        width: window.width + 2,
      };
      const labels = await this.#pyramid.read(level, position, grown);
      return this.#paletteIndices(labels, window, drawing === 'outline');
    };
    const options = { bandCount: 1, interpolate: false };
    this.layer.setSource(tileSource(this.#pyramid, this.#projection, read, options));
    this.layer.setStyle(this.#style());
  }

  hideClasses(values) {
    this.#hidden = values;
    this.layer.setStyle(this.#style());
  }

  /** Labels of the window and one pixel around it, to one byte per pixel of the window. */
  #paletteIndices(labels, { height, width }, outline) {
    const indices = new Uint8Array(height * width);
    const stride = width + 2;
    for (let y = 0, to = 0; y < height; y++) {
      for (let x = 0, from = (y + 1) * stride + 1; x < width; x++, from++, to++) {
        const value = labels[from];
        if (value === 0) continue;
        const inside =
          outline &&
          labels[from - 1] === value &&
          labels[from + 1] === value &&
          labels[from - stride] === value &&
          labels[from + stride] === value;
        if (!inside) indices[to] = this.#index(value);
      }
    }
    return indices;
  }

  /** Values without a class of their own, as identities of objects, share a few colours. */
  #index(value) {
    const known = this.#numbers.get(value);
    if (known !== undefined) return known;
    return 1 + this.#classes.length + (Math.imul(value, 2654435761) >>> 8) % UNLISTED_COLOURS;
  }

  #style() {
    const transparent = 'rgba(0, 0, 0, 0)';
    const listed = this.#classes.map(({ value, colour }) =>
      this.#hidden.has(value) ? transparent : `rgb(${colour.join(', ')})`,
    );
    const unlisted = Array.from({ length: UNLISTED_COLOURS }, (_, index) =>
      hue((index * 360) / UNLISTED_COLOURS),
    );
    return { color: ['palette', ['*', ['band', 1], 255], [transparent, ...listed, ...unlisted]] };
  }
}

/**
 * The layer of the probability of one class; `image`: "probabilities" of a label image in
 * description.json.
 */
export class HeatLayer {
  #pyramid;
  #projection;

  constructor(pyramid, projection) {
    this.#pyramid = pyramid;
    this.#projection = projection;
    const style = { color: ['interpolate', ['linear'], ['band', 1], ...HEAT.flatMap(heatStop)] };
    this.layer = new WebGLTileLayer({ extent: extentOf(pyramid), cacheSize: KEPT_TEXTURES, style });
  }

  /** `c`: number of the class. */
  show(position, c) {
    const read = (level, window) => this.#pyramid.read(level, { ...position, c }, window);
    const options = { bandCount: 1, interpolate: false };
    this.layer.setSource(tileSource(this.#pyramid, this.#projection, read, options));
  }
}

/** Where nothing is likely the image stays as it is. */
function heatStop(colour, index) {
  const opacity = index === 0 ? 0 : 1;
  return [index / (HEAT.length - 1), `rgba(${colour.join(', ')}, ${opacity})`];
}

/** A light colour of one hue (degrees), as "rgb(...)". */
function hue(degrees) {
  const part = (shift) => Math.round(160 + 95 * Math.cos(((degrees - shift) * Math.PI) / 180));
  return `rgb(${part(0)}, ${part(120)}, ${part(240)})`;
}

/** A tile source over the levels of an image; `read(level, window)` gives a tile's pixels. */
function tileSource(pyramid, projection, read, options) {
  const levels = pyramid.levels.map((level, number) => ({ ...level, number }));
  const coarsestFirst = levels
    .filter((level, index) => index === 0 || level.factor > levels[index - 1].factor)
    .reverse();
  const tileSizes = coarsestFirst.map(({ chunk }) => [...chunk].reverse().map(tileSide));
  return new DataTileSource({
    ...options,
    projection,
    wrapX: false,
    transition: 0,
    tileGrid: new TileGrid({
      extent: extentOf(pyramid),
      origin: [0, 0],
      resolutions: coarsestFirst.map((level) => level.factor),
      tileSizes,
    }),
    loader: async (z, x, y) => {
      const [width, height] = tileSizes[z];
      const window = { y: y * height, x: x * width, height, width };
      try {
        return await read(coarsestFirst[z].number, window);
      } catch (error) {
        const reasons = [error.message, error.cause?.message].filter(Boolean);
        notice(`A part of the picture cannot be read: ${reasons.join(' – ')}`);
        throw error;
      }
    },
  });
}

/** Pixels per side of a tile of the page, so that it takes whole chunks where they are small. */
function tileSide(chunk) {
  if (chunk > LARGEST_TILE) return LARGEST_TILE;
  return chunk * Math.max(1, Math.floor(SMALLEST_TILE / chunk));
}
