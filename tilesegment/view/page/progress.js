// The part of the panel for runs that go on: asked for once a second.

import { byId, element } from './dom.js';

const INTERVAL_MS = 1000;
/** Without a new tile for so long a run may have stopped. */
const LONG_SECONDS = 60;

/** Follows progress.json: emits "progress" after each look, "labels" when other ones are there. */
export class Runs extends EventTarget {
  #runs = [];
  #labels = null;

  /** The run whose newest tile is the youngest, or null. */
  get newest() {
    return [...this.#runs].sort((a, b) => a.idleSeconds - b.idleSeconds)[0] ?? null;
  }

  async follow() {
    try {
      const answer = await fetch('progress.json');
      if (answer.ok) this.#take(await answer.json());
    } catch {
      // The viewer was stopped, or the machine sleeps: the page shows what it has.
    }
    setTimeout(() => this.follow(), INTERVAL_MS);
  }

  #take({ runs, labels }) {
    this.#runs = runs;
    byId('runs').replaceChildren(...runs.map(runRow));
    byId('runs').hidden = runs.length === 0;
    const revisions = JSON.stringify(labels);
    if (this.#labels !== null && this.#labels !== revisions) this.dispatchEvent(new Event('labels'));
    this.#labels = revisions;
    this.dispatchEvent(new Event('progress'));
  }
}

function runRow({ name, grid, done, idleSeconds }) {
  const { tiles } = grid;
  const state =
    idleSeconds > LONG_SECONDS
      ? `no new tile for ${Math.round(idleSeconds / 60)} min`
      : done.length === tiles
        ? 'making the coarser levels'
        : 'running';
  return element(
    'div',
    { class: 'run' },
    element('h2', {}, `Segmenting ${name}`),
    element('progress', { max: tiles, value: done.length, 'aria-label': `Tiles of ${name}` }),
    element('p', {}, `${done.length} of ${tiles} tiles · ${state}`),
  );
}
