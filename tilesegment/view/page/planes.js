// The part of the panel for images with several planes: one slider for each of t and z.

import { byId, element } from './dom.js';

/** Index of a position among the planes, counted through as a run counts them. */
export function planeNumber(image, position) {
  return leadingAxes(image).reduce((sum, { axis, size }) => sum * size + position[axis], 0);
}

/** Fills the panel; `show` is called with {t, z}, at first and on every change. */
export function addPlanes(image, show) {
  const position = {};
  for (const { axis, size } of leadingAxes(image)) {
    position[axis] = Math.floor((size - 1) / 2);
    if (size > 1) byId('planes').append(slider(axis, size, position, show));
  }
  byId('planes').hidden = leadingAxes(image).every(({ size }) => size === 1);
  show(position);
}

function leadingAxes(image) {
  return image.axes
    .map((axis, index) => ({ axis, size: image.levels[0].shape[index] }))
    .filter(({ axis }) => axis === 't' || axis === 'z');
}

function slider(axis, size, position, show) {
  const id = `plane-${axis}`;
  const input = element('input', { type: 'range', id, min: 0, max: size - 1, value: position[axis] });
  const number = element('output', {}, position[axis]);
  input.addEventListener('input', () => {
    position[axis] = Number(input.value);
    number.textContent = input.value;
    show({ ...position });
  });
  return element('div', { class: 'field' }, element('label', { for: id }, axis), input, number);
}
