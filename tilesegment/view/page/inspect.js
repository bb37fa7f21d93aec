// Where the pointer is, and what lies under a click.

import { byId, element } from './dom.js';

/** Writes the pointer's position below the image. */
export function showPosition(map, image, pixelSizeUm) {
  const output = byId('position');
  map.on('pointermove', (event) => {
    const pixel = pixelAt(event.coordinate, image);
    output.textContent = pixel ? positionText(pixel, pixelSizeUm) : '';
  });
  map.getTargetElement().addEventListener('pointerleave', () => (output.textContent = ''));
}

/**
 * Lists on each click what `questions` answer for that pixel: each takes {y, x} and gives a
 * promise of rows [name, value].
 */
export function inspectOnClick(map, image, pixelSizeUm, questions) {
  const panel = byId('inspected').querySelector('div');
  let newest = 0;
  map.on('singleclick', async (event) => {
    const pixel = pixelAt(event.coordinate, image);
    if (!pixel) return;
    const asked = ++newest;
    const rows = (await Promise.all(questions.map((question) => question(pixel)))).flat();
    if (asked !== newest) return;
    const list = element('dl');
    [...positionRows(pixel, pixelSizeUm), ...rows].forEach(([name, value]) => list.append(element('dt', {}, name), element('dd', {}, value)));
    panel.replaceChildren(list);
  });
}

/** The pixel of the finest level at a coordinate of the map; null outside of the image. */
function pixelAt([right, up], image) {
  const [height, width] = image.levels[0].shape.slice(-2);
  const pixel = { y: Math.floor(-up), x: Math.floor(right) };
  const inside = pixel.y >= 0 && pixel.x >= 0 && pixel.y < height && pixel.x < width;
  return inside ? pixel : null;
}

function positionText(pixel, pixelSizeUm) {
  return positionRows(pixel, pixelSizeUm)
    .map(([, text]) => text)
    .join(' · ');
}

/** As OME-Zarr counts: a pixel's place is that of its centre, and the first one's is 0. */
function positionRows({ y, x }, pixelSizeUm) {
  const rows = [['Pixel', `x ${x}, y ${y}`]];
  if (pixelSizeUm) {
    const [down, right] = [y * pixelSizeUm[0], x * pixelSizeUm[1]].map((um) => um.toFixed(1));
    rows.push(['Position', `${right}, ${down} µm`]);
  }
  return rows;
}
