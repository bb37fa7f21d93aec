// The part of the panel for probabilities: of which class a heat map is drawn over the image.

import { byId, element } from './dom.js';
import { HEAT, HeatLayer } from './layers.js';
import { Pyramid } from './pyramid.js';

const NONE = '';
const Z_INDEX = 2;

/** Offers the classes of the label image that is shown, if its probabilities are stored. */
export class HeatPanel {
  #map;
  #projection;
  #panel;
  #position = {};
  #image = null;
  #pyramid = null;
  #heat = null;
  #wanted = NONE;

  constructor(map, projection, panel) {
    this.#map = map;
    this.#projection = projection;
    this.#panel = panel;
    panel.addEventListener('change', () => this.#offer());
    byId('heat-class').addEventListener('change', (event) => this.choose(event.target.value));
    byId('heat-opacity').addEventListener('input', () => this.#applyOpacity());
    const stops = HEAT.map((colour) => `rgb(${colour.join(' ')})`);
    byId('heat-scale').style.background = `linear-gradient(to right, ${stops.join(', ')})`;
  }

  showPlane(position) {
    this.#position = position;
    this.#draw();
  }

  /** Draws the class of this name; none if there is no such class. */
  choose(name) {
    this.#wanted = name;
    byId('heat-class').value = this.#classes.includes(name) ? name : NONE;
    this.#draw();
  }

  /** Goes on to the next class, and after the last to none. */
  next() {
    const names = [NONE, ...this.#classes];
    this.choose(names[(names.indexOf(byId('heat-class').value) + 1) % names.length]);
  }

  /** Rows [name, value] of all classes at a pixel of the finest level. */
  async valuesAt({ y, x }) {
    const pyramid = this.#pyramid;
    if (!pyramid) return [];
    const { factor } = pyramid.levels[0];
    const window = { y: Math.floor(y / factor), x: Math.floor(x / factor), height: 1, width: 1 };
    return Promise.all(
      this.#classes.map(async (name, c) => {
        const [value] = await pyramid.read(0, { ...this.#position, c }, window);
        return [`P(${name})`, (value / 255).toFixed(2)];
      }),
    );
  }

  get #classes() {
    return this.#image?.classes ?? [];
  }

  #offer() {
    const image = this.#panel.probabilities;
    byId('heat').hidden = !image;
    if (image === this.#image) return;
    if (this.#heat) this.#map.removeLayer(this.#heat.layer);
    this.#image = image;
    this.#pyramid = image && new Pyramid(image);
    this.#heat = image && new HeatLayer(this.#pyramid, this.#projection);
    const options = this.#classes.map((name) => element('option', { value: name }, name));
    byId('heat-class').replaceChildren(element('option', { value: NONE }, 'no class'), ...options);
    if (image) {
      this.#heat.layer.setZIndex(Z_INDEX);
      this.#map.addLayer(this.#heat.layer);
    }
    this.choose(this.#wanted);
    this.#applyOpacity();
  }

  #draw() {
    if (!this.#heat) return;
    const number = this.#classes.indexOf(byId('heat-class').value);
    this.#heat.layer.setVisible(number >= 0);
    if (number >= 0) this.#heat.show(this.#position, number);
  }

  #applyOpacity() {
    this.#heat?.layer.setOpacity(byId('heat-opacity').valueAsNumber / 100);
  }
}
