// What the page uses of OpenLayers and zarrita; esbuild makes page/vendor/libraries.js of it.

export { default as Map } from 'ol/Map.js';
export { default as View } from 'ol/View.js';
export { default as OverviewMap } from 'ol/control/OverviewMap.js';
export { default as Layer } from 'ol/layer/Layer.js';
export { default as WebGLTileLayer } from 'ol/layer/WebGLTile.js';
export { default as Projection } from 'ol/proj/Projection.js';
export { default as DataTileSource } from 'ol/source/DataTile.js';
export { default as TileGrid } from 'ol/tilegrid/TileGrid.js';
export { FetchStore, open as openZarr, root as zarrRoot } from 'zarrita';
