// Starts the page: what the server says of the scene becomes a map and a panel.

import { addChannels } from './channels.js';
import { byId, notice } from './dom.js';
import { HeatPanel } from './heat.js';
import { inspectOnClick, showPosition } from './inspect.js';
import { addShortcuts } from './keyboard.js';
import { LabelPanel } from './labels.js';
import { ImageLayer, extentOf, pixelProjection } from './layers.js';
import { linkToAddress } from './link.js';
import { addOverview, fit, makeMap } from './map.js';
import { addPlanes, planeNumber } from './planes.js';
import { Runs } from './progress.js';
import { Pyramid } from './pyramid.js';
import { addScaleBar } from './scale_bar.js';
import { Swipe } from './swipe.js';
import { makeTileLayer } from './tile_grid.js';

const OPACITY_STEP = 10;

async function describe() {
  const answer = await fetch('description.json');
  const description = await answer.json();
  if (!answer.ok) throw new Error(description.error);
  return description;
}

async function start() {
  const { name, image, labels } = await describe();
  document.title = `${name} – tilesegment`;
  byId('name').textContent = name;
  byId('size').textContent = sizeText(image);

  const pyramid = new Pyramid(image);
  const extent = extentOf(pyramid);
  const projection = pixelProjection(extent);
  const imageLayer = new ImageLayer(pyramid, projection);
  const runs = new Runs();
  const map = makeMap(image, projection, extent, imageLayer.main);
  const panel = new LabelPanel(map, projection, new Swipe(map));
  const heat = new HeatPanel(map, projection, panel);
  let position = {};
  const tileLayer = makeTileLayer(() => {
    if (!byId('tiles').checked) return null;
    const plane = planeNumber(image, position);
    const run = runs.newest;
    if (run) return { grid: run.grid, done: new Set(run.done), plane };
    return panel.grid && { grid: panel.grid, done: null, plane };
  });
  tileLayer.setZIndex(3);
  map.addLayer(tileLayer);
  addOverview(map, projection, extent, imageLayer.overview);
  addScaleBar(map, image.pixelSizeUm);

  addPlanes(image, (chosen) => {
    position = chosen;
    imageLayer.showPlane(chosen);
    panel.showPlane(chosen);
    heat.showPlane(chosen);
  });
  addChannels(image.channels, (visible) => imageLayer.showChannels(visible));
  panel.offer(labels);
  showPosition(map, image, image.pixelSizeUm);
  inspectOnClick(map, image, image.pixelSizeUm, [
    (pixel) => channelValues(pyramid, image, position, pixel),
    (pixel) => panel.valuesAt(pixel),
    (pixel) => heat.valuesAt(pixel),
  ]);
  linkToAddress(map, panel);
  followRuns(runs, panel, tileLayer);
  addShortcuts(shortcuts(map, extent, panel, heat));
  map.once('rendercomplete', () => (document.body.dataset.drawn = 'yes'));
}

function sizeText(image) {
  const [height, width] = image.levels[0].shape.slice(-2);
  const pixels = `${width.toLocaleString('en')} × ${height.toLocaleString('en')} px`;
  return image.pixelSizeUm ? `${pixels} · ${Number(image.pixelSizeUm[1].toPrecision(3))} µm per px` : pixels;
}

function channelValues(pyramid, image, position, { y, x }) {
  const window = { y, x, height: 1, width: 1 };
  return Promise.all(
    image.channels.map(async ({ name }, c) => {
      const [value] = await pyramid.read(0, { ...position, c }, window);
      return [name, `${Number(value.toPrecision(6))}`];
    }),
  );
}

/** The grid is shown once a run is seen to go on; new labels are offered when they appear. */
function followRuns(runs, panel, tileLayer) {
  const { checked } = byId('tiles');
  let offered = checked;
  runs.addEventListener('progress', () => {
    if (runs.newest && !offered) {
      byId('tiles').checked = true;
      offered = true;
    }
    tileLayer.changed();
  });
  runs.addEventListener('labels', async () => {
    panel.offer((await describe()).labels);
  });
  byId('tiles').addEventListener('change', () => tileLayer.changed());
  runs.follow();
}

function shortcuts(map, extent, panel, heat) {
  return [
    ['0', 'whole image', () => fit(map, extent)],
    ['1', 'one pixel of the image to one of the screen', () => map.getView().setResolution(1)],
    ['l', 'labels on and off', () => panel.toggle()],
    ['o', 'areas or outlines', () => panel.toggleDrawing()],
    ['[', 'labels fainter', () => panel.changeOpacity(-OPACITY_STEP)],
    [']', 'labels stronger', () => panel.changeOpacity(OPACITY_STEP)],
    ['p', 'probability of the next class', () => heat.next()],
    ['t', 'tiles of the run', () => byId('tiles').click()],
  ];
}

start().catch((error) => notice(`The image cannot be shown: ${error.message}`));
