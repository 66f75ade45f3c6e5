/** One peer's figures, from container to container. */
import { quiet } from '../machine.mjs';
import { tcp, udp } from '../overlay/measure.mjs';
import { exchanges, roundTrip } from './traffic.mjs';

/** First TCP port of the servers: each has its own, so that none waits for one that is just ending. */
const PORT = 5201;
/** The least part of the packets that has to go the fast path, where there is one: else it is not the fast path that is measured. */
const LEAST_TAKEN = 0.9;

/**
 * us of a round trip; thousands of requests a second that were answered; thousands of UDP packets a second; Gbit/s with four
 * streams and with one, and for the latter the CPU seconds of the whole machine per GB.
 */
export async function measure(lab, vms, fastPath, seconds) {
  const run = { lab, vms, port: PORT };
  const background = await quiet();
  const before = await vms.status?.();
  const rtt = await roundTrip(run);
  const rate = await exchanges(run, seconds);
  const { delivered } = await udp(run, 0, seconds);
  if (!(delivered > 0)) throw new Error('no UDP packet was delivered');
  const four = await tcp(run, 4, seconds);
  const one = await tcp(run, 1, seconds);
  const part = before && partTaken(before, await vms.status(), fastPath === 'on');
  return {
    rtt,
    exchanges: rate / 1000,
    udp: delivered,
    tcp4: four.rate,
    tcp1: one.rate,
    cpu: one.cpu,
    background,
    part,
  };
}

/** Which part of the packets the fast path took between two looks at `status`. Throws if that is not what was to be measured. */
export function partTaken(before, after, isOn) {
  const part = partOf(before, after);
  if (isOn ? part >= LEAST_TAKEN : part === 0) return part;
  throw new Error(`the fast path took ${part.toFixed(3)} of the packets`);
}

/** The same, whatever it is. Packets between containers of one VM count nowhere else. */
export function partOf(before, after) {
  const taken = packetsOf(after.fastPath) - packetsOf(before.fastPath);
  const local = (after.fastPath?.local.packets ?? 0) - (before.fastPath?.local.packets ?? 0);
  const all = after.outbound.received - before.outbound.received + local;
  return all > 0 ? taken / all : 0;
}

/** What the fast path took, out of a VM or between two containers of it. */
export function packetsOf(fastPath) {
  return (fastPath?.outbound.packets ?? 0) + (fastPath?.local.packets ?? 0);
}
