// The grid of a run's tiles: what is done is clear, what waits is dimmed.

import { Layer } from './vendor/libraries.js';

const DIMMED = 'rgba(10, 12, 16, 0.55)';
/** A dark line below a light one, to be seen on every picture: width in screen pixels, colour. */
const LINES = [
  [3, 'rgba(10, 12, 16, 0.35)'],
  [1, 'rgba(235, 238, 245, 0.6)'],
];
/** Screen pixels below which a tile gets no line of its own. */
const SMALLEST_LINED = 7;

/** A layer that draws `state()`: null, or {grid, done, plane}; `done` is null where all are. */
export function makeTileLayer(state) {
  const canvas = document.createElement('canvas');
  canvas.className = 'tile-grid';
  return new Layer({
    render(frame) {
      const [width, height] = frame.size;
      const ratio = frame.pixelRatio;
      if (canvas.width !== width * ratio) canvas.width = width * ratio;
      if (canvas.height !== height * ratio) canvas.height = height * ratio;
      const context = canvas.getContext('2d');
      context.setTransform(ratio, 0, 0, ratio, 0, 0);
      context.clearRect(0, 0, width, height);
      const shown = state();
      if (shown) draw(context, shown, frame);
      return canvas;
    },
  });
}

function draw(context, { grid, done, plane }, frame) {
  const { center, resolution } = frame.viewState;
  const [width, height] = frame.size;
  const side = grid.side / resolution;
  const left = width / 2 - center[0] / resolution;
  const top = height / 2 + center[1] / resolution;
  const [imageWidth, imageHeight] = [grid.width / resolution, grid.height / resolution];
  const rows = visible(top, side, grid.rows, height);
  const columns = visible(left, side, grid.columns, width);
  const waiting = new Path2D();
  const outlines = new Path2D();
  for (let row = rows.first; row < rows.end; row++) {
    for (let column = columns.first; column < columns.end; column++) {
      const x = Math.round(left + column * side);
      const y = Math.round(top + row * side);
      const right = Math.round(Math.min(left + (column + 1) * side, left + imageWidth));
      const bottom = Math.round(Math.min(top + (row + 1) * side, top + imageHeight));
      const number = (plane * grid.rows + row) * grid.columns + column;
      if (done && !done.has(number)) waiting.rect(x, y, right - x, bottom - y);
      outlines.rect(x + 0.5, y + 0.5, right - x, bottom - y);
    }
  }
  context.fillStyle = DIMMED;
  context.fill(waiting);
  if (side >= SMALLEST_LINED) stroke(context, outlines);
}

function stroke(context, path) {
  for (const [width, colour] of LINES) {
    context.lineWidth = width;
    context.strokeStyle = colour;
    context.stroke(path);
  }
}

/** The tiles along one axis of which a part is on the screen. */
function visible(start, side, count, screen) {
  return {
    first: Math.max(Math.floor(-start / side), 0),
    end: Math.min(Math.ceil((screen - start) / side), count),
  };
}
