/** Golden packets, one a line, each through a fresh core; what a line holds is said in examples/README.md. */
import { abi } from 'inlay/core';

/** @typedef {import('inlay/core').PacketCore} PacketCore */

const [U32, MOST_CODE] = [0xffffffff, 255];
/** The largest that the numbers of a line may be: LOCAL OPTIONS KEY TTL DSCP ENCAPSULATION MTU MERGED; and of a mapping. */
const LARGEST = [U32, 255, U32, 255, 63, 1, 65535, U32];
const LARGEST_OF_MAPPING = [U32, 32, U32, 32];
/** Words before the first mapping. */
const WORDS = 11;

/**
 * The answers to all lines: verdict, peer, messages and replies. Throws for a line that is none.
 * @param {string} text
 * @param {() => Promise<PacketCore>} makeCore
 * @param {string} name what errors call the file
 */
export async function answersTo(text, makeCore, name) {
  const answers = [];
  for (const [i, line] of text.replace(/\n$/, '').split('\n').entries()) {
    if (text === '') break;
    try {
      answers.push(`${answer(await makeCore(), line)}\n`);
    } catch (error) {
      throw new Error(`${name}: line ${i + 1}: ${/** @type {Error} */ (error).message}`);
    }
  }
  return answers.join('');
}

/**
 * @param {PacketCore} core
 * @param {string} line
 */
function answer(core, line) {
  const words = line.split(' ');
  const [direction = '', ...rest] = words;
  if (words.length < WORDS + 4 || (words.length - WORDS) % 4 !== 0) {
    throw new Error(`${words.length} words: expected ${WORDS}, and four for each mapping`);
  }
  if (!['outbound', 'inbound'].includes(direction)) throw new Error(`"${direction}": expected outbound or inbound`);
  const [local = 0, options = 0, key = 0, ttl = 0, dscp = 0, encapsulation = 0, mtu = 0, merged = 0] = LARGEST.map(
    (largest, i) => numberOf(rest[i], largest),
  );
  const refused = rest[8] === '-1' ? -1 : numberOf(rest[8], MOST_CODE);
  const packet = bytesOf(rest[9] ?? '');
  const longest = abi.SLOT_SIZE - abi.HEADROOM;
  if (packet.length > longest) throw new Error(`a packet of ${packet.length} bytes: expected at most ${longest}`);
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
    mappings: mappingsIn(rest.slice(10)),
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
 * @param {string[]} words
 */
function mappingsIn(words) {
  const mappings = [];
  for (let at = 0; at < words.length; at += 4) {
    const numbers = LARGEST_OF_MAPPING.map((largest, i) => numberOf(words[at + i], largest));
    const [overlay = 0, overlayLength = 0, underlay = 0, underlayLength = 0] = numbers;
    mappings.push({ overlay, overlayLength, underlay, underlayLength });
  }
  return mappings;
}

/** @param {number} largest */
function numberOf(word = '', largest) {
  const number = /^[0-9]+$/.test(word) ? Number(word) : Number.POSITIVE_INFINITY;
  if (number > largest) throw new Error(`"${word}": expected a whole number from 0 to ${largest}`);
  return number;
}

const hex = (/** @type {Uint8Array} */ bytes) =>
  Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');

/** @param {string} text */
function bytesOf(text) {
  if (text === '-') return new Uint8Array();
  if (!/^([0-9a-f]{2})+$/i.test(text))
    throw new Error('the packet: expected pairs of hex digits, or - for an empty one');
  return Uint8Array.from(text.match(/../g) ?? [], (byte) => Number.parseInt(byte, 16));
}
