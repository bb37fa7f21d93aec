// What is known of an object: the rows that a click on it shows.

const ROWS = [
  ['class_name', 'Class', ''],
  ['area_px', 'Area', 'px'],
  ['area_um2', 'Area', 'µm²'],
  ['perimeter_px', 'Perimeter', 'px'],
  ['eccentricity', 'Eccentricity', ''],
];
const MEAN = 'mean_';

/** Rows [name, value] of one object; none where there is no object, or it was not measured. */
export async function measurementsOf(labels, identity) {
  if (!labels.measured || !identity) return [];
  const answer = await fetch(`measurements/${encodeURIComponent(labels.name)}/${identity}.json`);
  const found = await answer.json();
  if (!answer.ok) return [['Measurements', found.error]];
  const means = Object.keys(found).filter((column) => column.startsWith(MEAN));
  return [...ROWS, ...means.map((column) => [column, `Mean ${column.slice(MEAN.length).replaceAll('_', ' ')}`, ''])]
    .filter(([column]) => column in found)
    .map(([column, name, unit]) => [name, `${text(found[column])} ${unit}`.trim()]);
}

function text(value) {
  return typeof value === 'number' ? `${Number(value.toPrecision(5))}` : value;
}
