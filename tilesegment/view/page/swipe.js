// The line between two label images: the first is drawn to its left, the second to its right.

import { byId } from './dom.js';

const STEP = 0.02;

export class Swipe {
  #bar = byId('swipe');
  #map;
  #at = 0.5;

  constructor(map) {
    this.#map = map;
    this.#bar.addEventListener('pointerdown', (event) => this.#bar.setPointerCapture(event.pointerId));
    this.#bar.addEventListener('pointermove', (event) => {
      if (this.#bar.hasPointerCapture(event.pointerId)) this.#moveTo(this.#fraction(event.clientX));
    });
    this.#bar.addEventListener('keydown', (event) => {
      const steps = { ArrowLeft: -STEP, ArrowRight: STEP }[event.key];
      if (steps === undefined) return;
      event.preventDefault();
      // The map listens too, and would move.
      event.stopPropagation();
      this.#moveTo(this.#at + steps);
    });
    this.#moveTo(this.#at);
  }

  /** Shows the line with the names of what it divides, or takes it away. */
  divide(left, right) {
    this.#bar.hidden = right === null;
    byId('swipe-left').textContent = left ?? '';
    byId('swipe-right').textContent = right ?? '';
    this.#map.render();
  }

  /** Cuts a layer at the line while there is one; `side`: "left" or "right". */
  cut(layer, side) {
    layer.on('prerender', ({ context }) => {
      if (this.#bar.hidden) return;
      const { width, height } = context.canvas;
      const line = Math.round(width * this.#at);
      context.enable(context.SCISSOR_TEST);
      if (side === 'left') context.scissor(0, 0, line, height);
      else context.scissor(line, 0, width - line, height);
    });
    layer.on('postrender', ({ context }) => context.disable(context.SCISSOR_TEST));
  }

  #fraction(clientX) {
    const { left, width } = this.#map.getTargetElement().getBoundingClientRect();
    return (clientX - left) / width;
  }

  #moveTo(fraction) {
    this.#at = Math.min(Math.max(fraction, 0), 1);
    this.#bar.style.left = `${this.#at * 100}%`;
    this.#bar.setAttribute('aria-valuenow', Math.round(this.#at * 100));
    this.#map.render();
  }
}
