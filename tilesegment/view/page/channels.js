// The part of the panel for channels: which are shown, their colour and their contrast.

import { byId, element } from './dom.js';

/** Fills the panel; `show` is called with the visible channels, at first and on every change. */
export function addChannels(channels, show) {
  const states = channels.map((channel, number) => ({ ...channel, number }));
  const update = () => show(states.filter((state) => state.visible));
  const rows = states.map((state) => channelRow(state, update));
  byId('channels').append(...rows);
  update();
}

function channelRow(state, update) {
  const { name, number } = state;
  const visible = element('input', { type: 'checkbox', checked: state.visible, id: `channel-${number}` });
  visible.addEventListener('change', () => {
    state.visible = visible.checked;
    update();
  });
  const colour = element('input', {
    type: 'color',
    value: toHex(state.colour),
    'aria-label': `Colour of ${name}`,
  });
  colour.addEventListener('input', () => {
    state.colour = fromHex(colour.value);
    update();
  });
  const title = element('label', { class: 'check' }, visible, ` ${name}`);
  const contrast = ['darkest', 'brightest'].map((end, index) => contrastSlider(state, end, index, update));
  return element('div', { class: 'channel' }, title, colour, ...contrast);
}

/** A slider for one end of the contrast, and its number. */
function contrastSlider(state, end, index, update) {
  const [low, high] = state.range;
  const slider = element('input', {
    type: 'range',
    min: low,
    max: high,
    step: Number.isInteger(low) && Number.isInteger(high) && high - low > 20 ? 1 : 'any',
    value: state.window[index],
    'aria-label': `Value of ${state.name} that is drawn ${end}`,
  });
  const number = element('output', {}, shortNumber(state.window[index]));
  slider.addEventListener('input', () => {
    state.window = state.window.with(index, Number(slider.value));
    number.textContent = shortNumber(state.window[index]);
    update();
  });
  return element('div', { class: 'contrast' }, slider, number);
}

function shortNumber(value) {
  return String(Number(value.toPrecision(4)));
}

function toHex(colour) {
  return `#${colour.map((part) => part.toString(16).padStart(2, '0')).join('')}`;
}

function fromHex(text) {
  return [1, 3, 5].map((start) => Number.parseInt(text.slice(start, start + 2), 16));
}
