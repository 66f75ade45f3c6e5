/** Golden packets, one a line, each through a fresh core; what a line holds is said in examples/README.md. */
import { abi } from 'inlay/core';

/** @typedef {import('inlay/core').PacketCore} PacketCore */

/**
 * The answers to all lines: verdict, peer, messages and replies.
 * @param {string} text
 * @param {() => Promise<PacketCore>} makeCore
 */
export async function answersTo(text, makeCore) {
  const answers = [];
  for (const line of text.split('\n').filter((it) => it !== '')) answers.push(`${answer(await makeCore(), line)}\n`);
  return answers.join('');
}

/**
 * @param {PacketCore} core
 * @param {string} line
 */
function answer(core, line) {
  const [direction, ...rest] = line.split(' ');
  const [local = 0, options = 0, key = 0, ttl = 0, dscp = 0, encapsulation = 0, mtu = 0] = rest.slice(0, 7).map(Number);
  const [merged = 0, refused = -1] = rest.slice(7, 9).map(Number);
  const packet = bytesOf(rest[9] ?? '');
  const has = (/** @type {number} */ option) => (options & option) !== 0;
  core.attach({ base: 0, offloads: 0, ports: 1 });
  core.configure({
    local,
    key: has(abi.OPTION_KEY) ? key : undefined,
    greChecksum: has(abi.OPTION_CHECKSUM),
    greSequence: has(abi.OPTION_SEQUENCE),
    ttl: has(abi.OPTION_TTL_INHERIT) ? 'inherit' : ttl,
    ecn: has(abi.OPTION_ECN_COMPATIBILITY) ? 'compatibility' : 'normal',
    dscp: has(abi.OPTION_DSCP_UNIFORM) ? 'uniform' : dscp,
    pathMtuDiscovery: !has(abi.OPTION_MAY_FRAGMENT),
    clampMss: has(abi.OPTION_CLAMP_MSS),
    encapsulation: encapsulation === abi.ENCAPSULATION_GRE_UDP ? 'gre-udp' : 'gre',
    mtu,
    mappings: mappingsIn(rest.slice(10).map(Number)),
  });
  core.put(0, packet);
  core.describe(0, packet.length, core.slot(0), merged);
  if (direction === 'outbound') core.encapsulate(0, 1, 1);
  else core.decapsulate(0, 1, 1);
  const messages = core.messages.all();
  if (refused >= 0) for (const message of messages) core.refuse(message, refused, 1);
  const hexOf = (/** @type {number[]} */ list) => list.map((m) => hex(core.messages.bytes(m))).join(',') || '-';
  const peer = core.peer(0).toString(16).padStart(8, '0');
  return `${core.verdict(0)} ${peer} ${hexOf(messages)} ${hexOf(core.messages.replies())}`;
}

/**
 * Four numbers a mapping.
 * @param {number[]} numbers
 */
function mappingsIn(numbers) {
  const mappings = [];
  for (let i = 0; i + 4 <= numbers.length; i += 4) {
    const [overlay = 0, overlayLength = 0, underlay = 0, underlayLength = 0] = numbers.slice(i, i + 4);
    mappings.push({ overlay, overlayLength, underlay, underlayLength });
  }
  return mappings;
}

const hex = (/** @type {Uint8Array} */ bytes) =>
  Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');

const bytesOf = (/** @type {string} */ text) =>
  Uint8Array.from(text.match(/../g) ?? [], (byte) => Number.parseInt(byte, 16));
