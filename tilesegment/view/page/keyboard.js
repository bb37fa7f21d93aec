// Shortcuts, and the dialog that lists them.

import { byId, element } from './dom.js';

/** What OpenLayers does by itself. */
const OF_THE_MAP = [
  ['← ↑ ↓ →', 'move'],
  ['+', 'closer'],
  ['-', 'farther'],
];

/** `shortcuts`: rows [key, what it does, function]. */
export function addShortcuts(shortcuts) {
  const help = byId('help');
  const all = [...shortcuts, ['?', 'this list', () => help.showModal()]];
  document.addEventListener('keydown', (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || help.open || takesText(event.target)) return;
    const found = all.find(([key]) => key === event.key);
    if (!found) return;
    event.preventDefault();
    found[2]();
  });
  byId('help-button').addEventListener('click', () => help.showModal());
  for (const [key, does] of [...OF_THE_MAP, ...all]) {
    help
      .querySelector('dl')
      .append(element('dt', {}, element('kbd', {}, key)), element('dd', {}, does));
  }
}

function takesText(target) {
  return target.matches('select, input:not([type=range], [type=checkbox])');
}
