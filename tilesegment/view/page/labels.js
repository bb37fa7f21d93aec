// The part of the panel for label images: which is shown, which it is compared with, and how.

import { byId, element } from './dom.js';
import { LabelLayer } from './layers.js';
import { measurementsOf } from './measurements.js';
import { Pyramid } from './pyramid.js';

const NONE = '';

/** One side of the line: the choice of a label image, and its layer while one is chosen. */
class Side {
  labels = null;
  pyramid = null;
  layer = null;

  constructor(name, select, zIndex) {
    this.name = name;
    this.select = select;
    this.zIndex = zIndex;
  }

  /** Puts the layer of a label image (null for none) into the map, in place of the last one. */
  show(labels, map, projection, swipe) {
    if (labels === this.labels) return;
    if (this.layer) map.removeLayer(this.layer.layer);
    this.labels = labels;
    this.pyramid = labels && new Pyramid(labels);
    this.layer = labels && new LabelLayer(labels, this.pyramid, projection);
    if (!labels) return;
    this.layer.layer.setZIndex(this.zIndex);
    swipe.cut(this.layer.layer, this.name);
    map.addLayer(this.layer.layer);
  }

  /** Rows [name, value] for a pixel of the finest level of the image. */
  async valuesAt({ y, x }, position) {
    const { factor } = this.pyramid.levels[0];
    const window = { y: Math.floor(y / factor), x: Math.floor(x / factor), height: 1, width: 1 };
    const [value] = await this.pyramid.read(0, position, window);
    const found = this.labels.classes.find((item) => item.value === value);
    const row = [this.labels.name, found ? `${found.name} (${value})` : `${value}`];
    return [row, ...(await measurementsOf(this.labels, Number(value)))];
  }
}

/** Holds the label images that there are; emits "change" when another one is chosen. */
export class LabelPanel extends EventTarget {
  #map;
  #projection;
  #swipe;
  #left = new Side('left', byId('labels-shown'), 1);
  #right = new Side('right', byId('labels-compared'), 2);
  #offered = new Map();
  #position = {};
  #hidden = new Set();
  #visible = true;

  constructor(map, projection, swipe) {
    super();
    this.#map = map;
    this.#projection = projection;
    this.#swipe = swipe;
    this.#left.select.addEventListener('change', () => this.#update());
    this.#right.select.addEventListener('change', () => this.#update());
    byId('opacity').addEventListener('input', () => this.#applyOpacity());
    byId('drawing').addEventListener('change', () => this.#draw());
  }

  /** Name of the label image that is shown; empty if none is. */
  get shown() {
    return this.#left.select.value;
  }

  /** Name of the one right of the line; empty if none is. */
  get compared() {
    return this.#right.select.value;
  }

  /** The tiles of the run that made the shown label image; null if that is not known. */
  get grid() {
    return this.#left.labels?.grid ?? null;
  }

  /** Those of the classes of the shown label image; null if they are not stored. */
  get probabilities() {
    return this.#left.labels?.probabilities ?? null;
  }

  /** Takes the label images of description.json, at first and whenever they have changed. */
  offer(images) {
    const before = this.#offered;
    this.#offered = new Map(
      images.map((labels) => {
        const known = before.get(labels.name);
        return [labels.name, known?.revision === labels.revision ? known : labels];
      }),
    );
    const appeared = images.find((labels) => !before.has(labels.name));
    const shown = this.shown || (appeared?.name ?? NONE);
    const { compared } = this;
    fill(this.#left.select, this.#offered.keys(), 'no labels');
    fill(this.#right.select, this.#offered.keys(), 'nothing');
    this.choose(shown, compared);
  }

  /** Shows label images by name; a name that is not there stands for none. */
  choose(shown, compared) {
    this.#left.select.value = this.#offered.has(shown) ? shown : NONE;
    this.#right.select.value = this.#offered.has(compared) ? compared : NONE;
    this.#update();
  }

  showPlane(position) {
    this.#position = position;
    this.#draw();
  }

  /** Rows [name, value] of the shown label images at a pixel of the finest level. */
  async valuesAt(pixel) {
    const rows = await Promise.all(this.#sides.map((side) => side.valuesAt(pixel, this.#position)));
    return rows.flat();
  }

  changeOpacity(percent) {
    byId('opacity').valueAsNumber += percent;
    this.#applyOpacity();
  }

  toggle() {
    this.#visible = !this.#visible;
    this.#applyOpacity();
  }

  toggleDrawing() {
    byId('drawing').value = byId('drawing').value === 'fill' ? 'outline' : 'fill';
    this.#draw();
  }

  /** Those with a label image. */
  get #sides() {
    return [this.#left, this.#right].filter((side) => side.labels);
  }

  #update() {
    for (const side of [this.#left, this.#right]) {
      const labels = this.#offered.get(side.select.value) ?? null;
      side.show(labels, this.#map, this.#projection, this.#swipe);
    }
    this.#swipe.divide(this.shown || 'no labels', this.compared || null);
    this.#fillLegend();
    this.#applyOpacity();
    this.#draw();
    this.dispatchEvent(new Event('change'));
  }

  #draw() {
    for (const { layer } of this.#sides) layer.show(this.#position, byId('drawing').value);
  }

  #applyOpacity() {
    for (const { layer } of this.#sides) {
      layer.layer.setOpacity(byId('opacity').valueAsNumber / 100);
      layer.layer.setVisible(this.#visible);
    }
  }

  /** One entry for each class of the shown label images, to switch it off and on. */
  #fillLegend() {
    const classes = new Map();
    for (const { labels } of this.#sides) {
      for (const item of labels.classes) {
        if (item.value !== 0 && !classes.has(item.value)) classes.set(item.value, item);
      }
    }
    const entries = [...classes.values()].map((item) => this.#legendEntry(item));
    byId('legend').replaceChildren(...entries);
    this.#hideClasses();
  }

  #legendEntry({ value, name, colour }) {
    const shown = element('input', { type: 'checkbox', checked: !this.#hidden.has(value) });
    shown.addEventListener('change', () => {
      if (shown.checked) this.#hidden.delete(value);
      else this.#hidden.add(value);
      this.#hideClasses();
    });
    const swatch = element('span', { class: 'swatch' });
    swatch.style.background = `rgb(${colour.join(' ')})`;
    return element('li', {}, element('label', { class: 'check' }, shown, swatch, name));
  }

  #hideClasses() {
    for (const { layer } of this.#sides) layer.hideClasses(this.#hidden);
  }
}

/** Fills a choice of label images, with one entry more for none. */
function fill(select, names, none) {
  const options = [...names].map((name) => element('option', { value: name }, name));
  select.replaceChildren(element('option', { value: NONE }, none), ...options);
}
