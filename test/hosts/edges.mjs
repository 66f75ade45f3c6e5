/** What every host has to say of files that are damaged, and do with one that it reads and replaces; examples/README.md has the contract. */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { abi } from 'inlay/core';
import { typescriptCore } from 'inlay/core/typescript';
import { forwarded } from '../../examples/javascript/forward.js';
import { readPcap } from '../../examples/javascript/pcap.js';
import { MESH } from './traffic.mjs';

const LONGEST = abi.SLOT_SIZE - abi.HEADROOM;
/** More than libpcap takes for a packet. */
const TOO_LONG = 262_145;

/** What is wrong with a host, a line each. `expected` is what `prepare` made (expected.mjs). */
export async function judgeEdges(host, expected) {
  const file = path.join(expected.folder, `${host.name}-edge`);
  return [
    ...(await judgeReplacement(host, expected, file)),
    ...(await judgePcaps(host, file)),
    ...(await judgeLines(host, expected, file)),
  ];
}

const encapsulate = (host, input, output) => host.run(['encapsulate', ...Object.values(MESH), input, output]);

/** IN.pcap is OUT.pcap: Ethernet, most significant byte first, with frames that are left out and packets that are skipped. */
async function judgeReplacement(host, expected, file) {
  const { bytes } = readPcap(readFileSync(expected.pcaps.encapsulate)).next().value;
  const frame = (type, packet) => Buffer.concat([Buffer.alloc(12), Buffer.from(type), packet]);
  const ip = (packet) => frame([8, 0], packet);
  const frames = [ip(Buffer.alloc(LONGEST + 1)), frame([8, 6], bytes), Buffer.alloc(13), ip(bytes), Buffer.alloc(0)];
  const input = pcap(1, [...frames, ip(Buffer.alloc(LONGEST))]);
  const right = forwarded(typescriptCore(), 'encapsulate', MESH, input);
  writeFileSync(file, input);
  const { code, stdout, stderr } = await encapsulate(host, file, file);
  if (code !== 0) return [`IN is OUT: ends with ${code}: ${stderr.trim()}`];
  return [
    ...(stdout === right.counters ? [] : [`IN is OUT: counters: ${stdout}expected: ${right.counters}`]),
    ...(Buffer.compare(readFileSync(file), right.pcap) === 0 ? [] : ['IN is OUT: the output has other bytes']),
    ...leftOvers(file, 'IN is OUT'),
  ];
}

/** A pcap with errors: OUT.pcap stays as it was. */
async function judgePcaps(host, file) {
  const whole = pcap(101, [Buffer.alloc(20), Buffer.alloc(20)]);
  const cases = [
    [whole.subarray(0, 0), 'the file ends in its header'],
    [whole.subarray(0, 23), 'the file ends in its header'],
    [Buffer.alloc(24), 'not a pcap file with microseconds'],
    [pcap(9, []), 'link type 9: expected 1, 101 or 228'],
    [whole.subarray(0, 24 + 36 + 9), 'the file ends in packet 2'],
    [whole.subarray(0, whole.length - 1), 'the file ends in packet 2'],
    [pcap(101, [Buffer.alloc(TOO_LONG)]), `packet 1: ${TOO_LONG} bytes: expected at most ${TOO_LONG - 1}`],
  ];
  const output = `${file}-out`;
  const problems = [];
  for (const [bytes, message] of cases) {
    writeFileSync(file, bytes);
    writeFileSync(output, 'old');
    problems.push(...judgeError(await encapsulate(host, file, output), `${file}: ${message}`));
    if (readFileSync(output, 'latin1') !== 'old') problems.push(`${message}: OUT.pcap is not what it was`);
    problems.push(...leftOvers(output, message));
  }
  return problems;
}

/** A line that is no vector, after one that is. */
async function judgeLines(host, expected, file) {
  const line = readFileSync(expected.vectors, 'latin1').split('\n')[0];
  const [direction, ...words] = line.split(' ');
  const changed = (at, word) => [direction, ...words.with(at, word)].join(' ');
  const lines = [
    '',
    ['sideways', ...words].join(' '),
    ...['abc', '-5', '+5', '4294967296', '99999999999999999999', ''].map((word) => changed(0, word)),
    ...['abc', '1e3', '0x10', '65536'].map((word) => changed(6, word)),
    changed(1, '256'),
    changed(3, '256'),
    changed(4, '64'),
    changed(5, '2'),
    ...['-2', '256'].map((word) => changed(8, word)),
    ...['', '450', '4g', '--', '45'.repeat(LONGEST + 1)].map((word) => changed(9, word)),
    changed(11, '33'),
    changed(11, '32'),
    ...[1, 4, 5].map((n) => line.split(' ').slice(0, -n).join(' ')),
    `${line} 0`,
    `${line} `,
    `${line}\r`,
    `${line}\0`,
  ];
  const problems = [];
  for (const it of lines) {
    writeFileSync(file, `${line}\n${it}\n${line}\n`);
    const result = await host.run(['vectors', file]);
    problems.push(
      ...judgeError(result, `${file}: line 2: `).map((problem) => `vectors: ${it.slice(0, 60)}: ${problem}`),
    );
  }
  return problems;
}

function judgeError({ code, stderr }, message) {
  if (code === 1 && stderr.includes(message)) return [];
  return [`ends with ${code}: ${stderr.trim().split('\n').at(-1)}\n  expected 1: ${message}`];
}

/** Files that begin with the name of one, and are not that. */
function leftOvers(file, what) {
  const others = readdirSync(path.dirname(file)).filter((it) => it.startsWith(`${path.basename(file)}.`));
  return others.length === 0 ? [] : [`${what}: leaves ${others.join(', ')} behind`];
}

/** Most significant byte first; packet i is of second i. */
function pcap(link, packets) {
  const header = Buffer.from('a1b2c3d4000200040000000000000000000fffff00000000', 'hex');
  header.writeUInt32BE(link, 20);
  const records = packets.flatMap((packet, i) => {
    const record = Buffer.alloc(16);
    for (const [n, word] of [i, 5, packet.length, packet.length].entries()) record.writeUInt32BE(word, 4 * n);
    return [record, packet];
  });
  return Buffer.concat([header, ...records]);
}
