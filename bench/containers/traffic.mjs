/** What traffic.c sends, built with gcc. */
import { execFileSync } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const SOURCE = fileURLToPath(new URL('traffic.c', import.meta.url));
const BUILD = fileURLToPath(new URL('../../build/native/', import.meta.url));
const PROGRAM = `${BUILD}traffic`;
/** s that it may take beyond the time that it sends. */
const GRACE = 10;
const PINGS = 1000;

export function buildTraffic() {
  mkdirSync(BUILD, { recursive: true });
  execFileSync('gcc', ['-O2', '-Wall', '-Wextra', '-Werror', '-o', PROGRAM, SOURCE], { stdio: ['ignore', 2, 2] });
}

/** us of an average round trip of a ping, from the process that sends to the kernel that has the answer, as ping(8) has it, but to the ns. */
export async function roundTrip({ lab, vms }) {
  return Number(await lab.must(vms.from, ['timeout', String(GRACE), PROGRAM, 'ping', vms.address, String(PINGS)]));
}

/** Requests of one byte that are answered in a second, one after the other, over one TCP connection. */
export async function exchanges(run, seconds) {
  const { lab, vms } = run;
  const port = String(run.port++);
  const limit = String(Math.ceil(seconds + GRACE));
  const server = lab.start(vms.to, ['timeout', limit, PROGRAM, 'answer', port], {
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  const ended = new Promise((resolve) => server.once('exit', resolve));
  await Promise.race([new Promise((resolve) => server.stdout.once('data', resolve)), ended]);
  const rate = Number(await lab.must(vms.from, ['timeout', limit, PROGRAM, 'ask', vms.address, port, String(seconds)]));
  await ended;
  return rate;
}

/** Sends UDP packets of 64 bytes to each of these addresses (u32) in turn; resolves to how many were sent, how many failed, and in how many seconds. */
export async function flood(lab, where, addresses, port, seconds) {
  const words = ['timeout', String(Math.ceil(seconds + GRACE)), PROGRAM, 'flood', String(port), String(seconds)];
  const [sent, failed, time] = (await lab.must(where, words, bytesOf(addresses))).split(' ').map(Number);
  return { sent, failed, seconds: time };
}

function bytesOf(addresses) {
  const bytes = Buffer.alloc(4 * addresses.length);
  for (const [i, address] of addresses.entries()) bytes.writeUInt32BE(address, 4 * i);
  return bytes;
}

/** Sends IPv4 packets of one length, as they are. */
export function inject(lab, where, packets) {
  return lab.must(where, [PROGRAM, 'inject', String(packets[0].length)], Buffer.concat(packets));
}
