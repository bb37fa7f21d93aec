// The address of a view: #x=1203&y=805&zoom=2&labels=nuclei brings back what was looked at.
//
// x and y are pixels of the finest level in the middle of the window, zoom the screen pixels
// that one of them takes.

/** Follows the map and the choice of labels into the address, and the address into them. */
export function linkToAddress(map, panel) {
  const apply = () => {
    const wanted = new URLSearchParams(location.hash.slice(1));
    const [x, y, zoom] = ['x', 'y', 'zoom'].map((key) => Number.parseFloat(wanted.get(key)));
    if (Number.isFinite(x) && Number.isFinite(y)) map.getView().setCenter([x, -y]);
    if (zoom > 0) map.getView().setResolution(1 / zoom);
    if (wanted.has('labels')) panel.choose(wanted.get('labels'), wanted.get('compare') ?? '');
  };
  const write = () => {
    const [x, up] = map.getView().getCenter();
    const zoom = 1 / map.getView().getResolution();
    const parts = new URLSearchParams({ x: short(x), y: short(-up), zoom: short(zoom) });
    parts.set('labels', panel.shown);
    if (panel.compared) parts.set('compare', panel.compared);
    history.replaceState(null, '', `#${parts}`);
  };
  apply();
  window.addEventListener('hashchange', apply);
  map.on('moveend', write);
  panel.addEventListener('change', write);
}

function short(number) {
  return String(Number(number.toPrecision(7)));
}
