// Bundles the libraries of the page into one file, with their licences beside it.
//
//   npm ci && npm run build [FOLDER]

import { readFile, writeFile } from 'node:fs/promises';
import { build } from 'esbuild';

const FOLDER = process.argv[2] ?? '../page/vendor';
const LICENCE_FILES = ['LICENSE', 'LICENSE.md', 'LICENSE.txt', 'LICENCE', 'license'];

/** The packages whose files went into the bundle, sorted by name. */
function packagesIn(metafile) {
  const paths = Object.keys(metafile.inputs);
  const names = paths.map((path) => path.match(/node_modules\/((?:@[^/]+\/)?[^/]+)/)?.[1]);
  return [...new Set(names.filter(Boolean))].sort();
}

async function licenceOf(name) {
  const folder = `node_modules/${name}`;
  const { version, license } = JSON.parse(await readFile(`${folder}/package.json`, 'utf8'));
  const texts = await Promise.all(
    LICENCE_FILES.map((file) => readFile(`${folder}/${file}`, 'utf8').catch(() => null)),
  );
  const text = texts.find(Boolean) ?? `The package has no licence file; it states: ${license}.\n`;
  return `${name} ${version} (${license})\n\n${text.trim()}\n`;
}

const result = await build({
  entryPoints: ['libraries.js'],
  outfile: `${FOLDER}/libraries.js`,
  bundle: true,
  minify: true,
  format: 'esm',
  target: 'es2022',
  charset: 'utf8',
  legalComments: 'none',
  metafile: true,
});
await build({
  entryPoints: ['node_modules/ol/ol.css'],
  outfile: `${FOLDER}/ol.css`,
  minify: true,
});
const licences = await Promise.all(packagesIn(result.metafile).map(licenceOf));
await writeFile(`${FOLDER}/LICENCES.txt`, licences.join(`\n${'-'.repeat(80)}\n\n`));
