// The bar that says how long things are, and lengths in words.

import { byId } from './dom.js';

const WIDEST = 160;

/** Keeps the bar in step with the map; `pixelSizeUm`: [y, x], or null where it is not known. */
export function addScaleBar(map, pixelSizeUm) {
  const [caption, bar] = byId('scale-bar').children;
  const update = () => {
    const perScreenPixel = map.getView().getResolution() * (pixelSizeUm ? pixelSizeUm[1] : 1);
    const length = roundLength(WIDEST * perScreenPixel);
    bar.style.width = `${length / perScreenPixel}px`;
    caption.textContent = pixelSizeUm ? inWords(length) : `${length} px`;
  };
  map.getView().on('change:resolution', update);
  update();
}

/** The largest of 1, 2, 5, 10, 20, ... that is not above `length`. */
function roundLength(length) {
  const power = 10 ** Math.floor(Math.log10(length));
  return Math.max(...[1, 2, 5].map((step) => step * power).filter((round) => round <= length));
}

/** A length of `um` micrometres. */
function inWords(um) {
  const [unit, size] = [['km', 1e9], ['m', 1e6], ['mm', 1e3], ['µm', 1]].find(
    ([, size]) => um >= size,
  ) ?? ['nm', 1e-3];
  return `${Number((um / size).toPrecision(3))} ${unit}`;
}
