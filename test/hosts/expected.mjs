/** What every host has to make of the vectors and of the corpus, in a folder where hosts find the files. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { typescriptCore } from 'inlay/core/typescript';
import { forwarded } from '../../examples/javascript/forward.js';
import { DIRECTIONS, digest, makeCorpus } from './corpus.mjs';
import { MESH } from './traffic.mjs';
import { readVectors } from './vectors.mjs';

/** A corpus of so many packets meets all drop reasons that a core without offloads and options has, but `bad-descriptor`. */
const LARGE = 100_000;
const VERDICTS = 25;
/** In per cent. */
const LEAST_FORWARDED = 60;

/**
 * Makes the files: `vectors` and `answers`; and the corpus of so many packets from a seed, in `pcaps`, and what the twin in
 * TypeScript makes of it, in `outcomes`. `close` removes them.
 */
export function prepare({ seed, packets }) {
  const folder = mkdtempSync(path.join(os.tmpdir(), 'inlay-hosts-'));
  const file = (name, content) => {
    writeFileSync(path.join(folder, name), content);
    return path.join(folder, name);
  };
  const vectors = readVectors();
  const corpus = makeCorpus(seed, packets);
  const outcomes = mapDirections((it) => forwarded(typescriptCore(), it, MESH, corpus[it]));
  return {
    folder,
    vectors: file('vectors.txt', vectors.map(({ line }) => `${line}\n`).join('')),
    answers: vectors.map(({ name, answer }) => ({ name, answer })),
    pcaps: mapDirections((it) => file(`${it}.pcap`, corpus[it])),
    outcomes,
    digest: digest(outcomes),
    met: verdictsIn(outcomes),
    close: () => rmSync(folder, { recursive: true, force: true }),
  };
}

const mapDirections = (make) => Object.fromEntries(DIRECTIONS.map((direction) => [direction, make(direction)]));

/** Why a corpus shows too little to say that hosts agree; undefined if it does not, or if it was made small. */
export function weakness({ outcomes, met }, packets) {
  if (packets < LARGE) return undefined;
  if (met.size < VERDICTS) return `${met.size} drop reasons are met: expected ${VERDICTS}`;
  for (const direction of DIRECTIONS) {
    const [received, forwarded] = outcomes[direction].counters.match(/\d+/g).map(Number);
    const share = (100 * forwarded) / received;
    if (share < LEAST_FORWARDED)
      return `${direction}: ${share.toFixed(0)} % are forwarded: expected ${LEAST_FORWARDED}`;
  }
  return undefined;
}

function verdictsIn(outcomes) {
  const lines = DIRECTIONS.flatMap((direction) => [...outcomes[direction].counters.matchAll(/^drop (-\d+) /gm)]);
  return new Set(lines.map(([, verdict]) => Number(verdict)));
}
