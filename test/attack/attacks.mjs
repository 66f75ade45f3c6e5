/**
 * The attacks: who does it (T, a tenant that is root in a container; V, a compromised VM; U, a host on the
 * underlay; L, a local user of a VM), and whether it works. `shots` are packets that nobody may get; `run`
 * tells what got through. `planes` are those where it means something. `limit` says why it stays possible, in
 * all planes or by plane. `means` is what stops it where nothing counts. What `isSlow` takes seconds.
 */
import { floodAttacks } from './floods.mjs';
import { localAttacks } from './local.mjs';
import { messageAttacks } from './messages.mjs';
import { plainAttacks } from './plain.mjs';
import { delivered, tunnelAttacks } from './tunnels.mjs';
import { Broken } from './world.mjs';

/**
 * @typedef {object} Attack
 * @property {string} who
 * @property {string} title
 * @property {string[]} [planes]
 * @property {string | Record<string, string>} [limit]
 * @property {string} [means]
 * @property {boolean} [isSlow]
 * @property {boolean} [isLasting]
 * @property {(world: any) => any[]} [shots]
 * @property {(world: any) => Promise<string[]>} [run]
 */

/** @type {readonly Attack[]} */
export const ATTACKS = [...tunnelAttacks, ...plainAttacks, ...messageAttacks, ...floodAttacks, ...localAttacks];

/**
 * What of an attack got through, by names; none if it is stopped. A world that has learnt something false is
 * made new; after what breaks it, another is needed.
 *
 * @param {any} world
 * @param {Attack} attack
 */
export async function attempt(world, { shots, run, isLasting }) {
  try {
    const open = run ? await run(world) : await delivered(world, shots(world));
    if (isLasting && open.length > 0) await world.renew();
    return { open, isBroken: false };
  } catch (error) {
    if (!(error instanceof Broken)) throw error;
    return { open: [error.message], isBroken: true };
  }
}

/** @type {(attack: Attack, plane: string) => string | undefined} */
export const limitOf = ({ limit }, plane) => (typeof limit === 'object' ? limit[plane] : limit);

/** @type {(attack: Attack, plane: string) => boolean} */
export const isFor = ({ planes }, plane) => planes?.includes(plane) ?? true;
