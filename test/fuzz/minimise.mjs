/** Makes a case that fails smaller, as long as it fails: fewer batches, fewer packets, fewer bytes, a plainer configuration. */

import { abi } from 'inlay/core';
import { putGreRight } from './outer.mjs';
import { GRE, headerEnd, putRight } from './packets.mjs';

const { VIRTIO_SIZE } = abi;
/** Trials that may be spent on one case. */
const TRIALS = 4000;
/** A core that reads where it should not is seen only if what lies there makes a difference to it. */
const SURROUNDINGS = 8;

const PLAIN_CONFIG = {
  ttl: 64,
  mtu: 1476,
  key: undefined,
  greChecksum: false,
  greSequence: false,
  ecn: 'normal',
  dscp: 0,
  pathMtuDiscovery: true,
  clampMss: false,
  encapsulation: 'gre',
};
const PLAIN_DEVICES = { base: 0, offloads: 0, ports: 1 };
const PLAIN_STEP = { first: 0, now: 0, expire: -1, narrow: null, refuse: null, identical: false };
const PLAIN_INPUT = { beyond: '', segment: 0, peer: 0, tos: 0, merged: 0 };

/**
 * `differs` runs a case and returns what is wrong with it, or null. Returns the least case, with its difference; null if `found` does
 * not fail at all.
 *
 * @typedef {{ direction: string, inputs: { bytes?: string }[] }} Step as Batch.toStep makes it, perhaps with `config` and `devices`
 * @param {{ steps: Step[] }} found
 * @param {(candidate: { steps: Step[] }) => string | null} differs
 * @returns {{ difference: string, steps: Step[] } | null}
 */
export function minimise(found, differs) {
  let trials = 0;
  let best = null;
  /** Whether the case fails; it is the best one then. */
  const fails = (candidate) => {
    if (best !== null && trials++ > TRIALS) return false;
    for (let n = 0; n < SURROUNDINGS; n++) {
      const steps = candidate.steps.map((step) => ({ ...step, surroundings: (step.surroundings + n) >>> 0 }));
      const difference = differs({ steps });
      if (!difference) continue;
      best = { difference, steps };
      return true;
    }
    return false;
  };
  if (!fails({ steps: found.steps.slice(-1) }) && !fails(found)) return null;

  const stepsAre = (steps) => steps.length > 0 && fails({ steps });
  shrinkList(best.steps, stepsAre);
  for (let i = 0; i < best.steps.length; i++) shrinkStep(i);
  shrinkList(best.steps, stepsAre);
  // Most often they are as before.
  for (let i = 1; i < best.steps.length; i++) {
    stepsAre(best.steps.with(i, { ...best.steps[i], config: undefined, devices: undefined }));
  }
  return best;

  function shrinkStep(i) {
    const step = () => best.steps[i];
    const becomes = (changes) => fails({ steps: best.steps.with(i, { ...step(), ...changes }) });
    const inputsAre = (inputs) =>
      becomes({ inputs, ...(step().count === step().inputs.length && { count: inputs.length }) });
    const { first, inputs } = step();
    if (!becomes({ first: 0, count: inputs.length }) && first > 0 && first < inputs.length) {
      becomes({ first: 0, count: inputs.length - first, inputs: inputs.slice(first) });
    }
    shrinkList(step().inputs, inputsAre);
    for (const [key, value] of Object.entries(PLAIN_STEP)) if (step()[key] !== value) becomes({ [key]: value });
    const configIs = (config) => becomes({ config });
    shrinkList(step().config.mappings, (mappings) => configIs({ ...step().config, mappings }));
    simplify(() => step().config, PLAIN_CONFIG, configIs);
    simplify(
      () => step().devices,
      PLAIN_DEVICES,
      (devices) => becomes({ devices }),
    );
    for (let n = 0; n < step().inputs.length; n++) {
      const inputIs = (input) => inputsAre(step().inputs.with(n, input));
      simplify(() => step().inputs[n], PLAIN_INPUT, inputIs);
      if (step().inputs[n].bytes !== undefined) shrinkBytes(() => step().inputs[n], inputIs);
    }
  }
}

/** Drops elements, at first half of them at a time, as long as `isStill` says that the rest is worth keeping. */
function shrinkList(list, isStill) {
  let kept = list;
  for (let chunk = Math.ceil(kept.length / 2); chunk >= 1; chunk = chunk === 1 ? 0 : Math.ceil(chunk / 2)) {
    for (let at = 0; at < kept.length; ) {
      const rest = kept.toSpliced(at, chunk);
      if (isStill(rest)) kept = rest;
      else at += chunk;
    }
  }
}

/** Sets fields to what they usually are. */
function simplify(current, plain, becomes) {
  for (const [key, value] of Object.entries(plain)) {
    if (current()[key] !== undefined && current()[key] !== value) becomes({ ...current(), [key]: value });
  }
}

/** Cuts bytes off the end, then makes bytes 0; checksums, and what says how long all is, may follow. */
function shrinkBytes(current, becomes) {
  const bytes = () => Buffer.from(current().bytes, 'hex');
  const are = (bytes) => becomes({ ...current(), bytes: bytes.toString('hex') });
  const areOrFollow = (bytes) => are(bytes) || are(putRightAt(bytes, current().segment));
  for (let chunk = bytes().length; chunk >= 1; chunk >>= 1) {
    while (bytes().length >= chunk && areOrFollow(bytes().subarray(0, -chunk)));
  }
  for (let chunk = 64; chunk >= 1; chunk >>= 2) {
    for (let at = 0; at < bytes().length; at += chunk) {
      const zeroed = bytes();
      zeroed.subarray(at, at + chunk).fill(0);
      if (!zeroed.equals(bytes())) areOrFollow(zeroed);
    }
  }
}

/** The outermost headers put right, whether they are IPv4's, behind a virtio header or not, or GRE's. */
function putRightAt(bytes, segment) {
  const end = bytes.length;
  if (segment > 0) putGreRight(bytes, 0, Math.min(segment, end));
  const at = bytes[0] >> 4 === 4 ? 0 : VIRTIO_SIZE;
  if (segment > 0 || end < at + 20) return bytes;
  bytes.writeUInt16BE(end - at, at + 2);
  putRight(bytes, at, end);
  if (bytes[at + 9] === GRE) putGreRight(bytes, headerEnd(bytes, at, end), end);
  return bytes;
}
