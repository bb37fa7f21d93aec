// The map: view, overview, and the layers on top of each other.

import { Map, OverviewMap, View } from './vendor/libraries.js';

const CLOSEST = 1 / 16;
/** Pixels of the coarsest level per pixel of the screen; without a pyramid this bounds the work. */
const FARTHEST = 4;
const OVERVIEW_SIDE = 170;

/** `layers`: from the bottom to the top. */
export function makeMap(image, projection, extent, layers) {
  const coarsest = image.levels.at(-1).factor;
  const map = new Map({
    target: 'map',
    // The target has no tabindex: with one, OpenLayers would let only a map with the focus be moved.
    keyboardEventTarget: document,
    layers,
    view: new View({
      projection,
      extent,
      constrainOnlyCenter: true,
      enableRotation: false,
      minResolution: CLOSEST,
      maxResolution: Math.max(FARTHEST * coarsest, 1),
      center: centre(extent),
      resolution: coarsest,
    }),
  });
  fit(map, extent);
  return map;
}

export function fit(map, extent) {
  map.getView().fit(extent, { padding: [24, 24, 24, 24] });
}

/** A small map of the whole image, with a box where the big one is. */
export function addOverview(map, projection, extent, layer) {
  const [width, height] = [extent[2] - extent[0], extent[3] - extent[1]];
  const resolution = Math.max(width, height) / OVERVIEW_SIDE;
  const middle = centre(extent);
  const overview = new OverviewMap({
    className: 'ol-overviewmap overview',
    collapsed: false,
    layers: [layer],
    tipLabel: 'Overview',
    view: new View({
      projection,
      center: middle,
      // Held still: it always shows the whole.
      extent: [...middle, ...middle],
      constrainOnlyCenter: true,
      resolution,
      minResolution: resolution,
      maxResolution: resolution,
    }),
  });
  map.addControl(overview);
  const box = map.getTargetElement().querySelector('.ol-overviewmap-map');
  box.style.width = `${width / resolution}px`;
  box.style.height = `${height / resolution}px`;
  return overview;
}

function centre([left, bottom, right, top]) {
  return [(left + right) / 2, (bottom + top) / 2];
}
