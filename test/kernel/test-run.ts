/** Programs run by the kernel itself on packets made here (BPF_PROG_TEST_RUN), and such packets. */
import os from 'node:os';
import { DROP_REASONS } from '../../src/core/verdict.ts';
import { SourceCheck } from '../../src/dataplane/check/source-check.ts';
import * as native from '../../src/linux/native.ts';
import { parseAddress, parsePrefix } from '../../src/mesh/address.ts';
import { Mapping } from '../../src/mesh/mapping.ts';
import { packetAround, packetOf } from '../packet.ts';

// bpf(2), <linux/bpf.h>
const BPF = { x64: 321, arm64: 280 }[os.arch() as 'x64' | 'arm64'];
const BPF_PROG_TEST_RUN = 10;
const TEST_RUN_SIZE = 80;
const SKB_SIZE = 192;
const SKB_MARK = 8;
const SKB_GSO_SIZE = 176;
export const SHOT = 2;
export const ON = -1;

/** Runs a program on a frame that begins with an Ethernet header: its verdict, and the mark of the packet then. `gsoSize` is that of a merged packet. */
export function run(program: number, frame: Uint8Array, mark = 0, gsoSize = 0): { verdict: number; mark: number } {
  const { bytes, view, pointed } = native.structure(TEST_RUN_SIZE, {
    16: frame,
    48: new Uint8Array(SKB_SIZE),
    56: new Uint8Array(SKB_SIZE),
  });
  const markOf = (skb: Uint8Array) => new DataView(bytes.buffer, skb.byteOffset + SKB_MARK, 4);
  markOf(pointed[48]).setUint32(0, mark, true);
  new DataView(bytes.buffer, pointed[48].byteOffset).setUint32(SKB_GSO_SIZE, gsoSize, true);
  for (const [at, value] of [
    [0, program],
    [8, frame.length],
    [32, 1], // Once.
    [40, SKB_SIZE],
    [44, SKB_SIZE],
  ] as const)
    view.setUint32(at, value, true);
  native.must(native.syscall(BPF as number, BPF_PROG_TEST_RUN, bytes, TEST_RUN_SIZE), 'bpf', 'BPF_PROG_TEST_RUN');
  return { verdict: view.getInt32(4, true), mark: markOf(pointed[56]).getUint32(0, true) };
}

const prefix = (text: string) => parsePrefix(text) as NonNullable<ReturnType<typeof parsePrefix>>;
export const address = (text: string) => parseAddress(text) as NonNullable<ReturnType<typeof parseAddress>>;
export const number = (text: string) => Number(address(text).bits);
export const mapping = (overlay: string, underlay: string) => new Mapping(prefix(overlay), prefix(underlay));

/** Of the tests' network. */
export const VNI = 5;
export const vxlanHeader = (vni = VNI) => [8, 0, 0, 0, 0, 0, vni, 0];
/** A VXLAN packet around a frame, from one VM to another. */
export const vxlan = (source: number, destination: number, frame: ArrayLike<number>, parts: object = {}) =>
  packetOf({
    ...{ protocol: 17, source, destination, destinationPort: 4789, fragment: 0 },
    payload: Uint8Array.of(...vxlanHeader(), ...Array.from(frame)),
    ...parts,
  });

const OURS = [2, 0, 0, 0, 0, 2];
export const framed = (packet: ArrayLike<number>, type = 0x0800, to: readonly number[] = [2, 0, 0, 0, 0, 1]) =>
  Uint8Array.from([...to, ...OURS, type >> 8, type & 255, ...Array.from(packet)]);
/** A frame for the VXLAN device of a VM. */
export const framedTo = (vm: number, packet: ArrayLike<number>) =>
  framed(packet, 0x0800, [2, 0, vm >>> 24, (vm >> 16) & 255, (vm >> 8) & 255, vm & 255]);
/** What a program of a GRE device sees of a packet that is about to go to a VM: the kernel fills in the rest later. A test run takes an Ethernet header away. */
export const outerTo = (vm: number, packet: ArrayLike<number>, overhead = 24) => {
  const outer = new Uint8Array(overhead);
  outer.set([8, 0], 12);
  new DataView(outer.buffer).setUint32(16, vm);
  return Uint8Array.from([...outer, ...Array.from(packet)]);
};

/** What the counters say now, by reason, where it is not zero. */
export function counted(check: SourceCheck, which: number): Record<string, number> {
  const { packets, bytes, drops } = check.direction(which);
  const all = {
    packets,
    bytes,
    ...Object.fromEntries(DROP_REASONS.map(({ verdict, name }) => [name, drops[-verdict] ?? 0])),
  };
  return Object.fromEntries(Object.entries(all).filter(([, count]) => count !== 0));
}

/** What the counters say more after `work`. */
export function difference(check: SourceCheck, which: number, work: () => void): Record<string, number> {
  const before = counted(check, which);
  work();
  const after = counted(check, which);
  return Object.fromEntries(
    Object.entries(after).flatMap(([name, count]) =>
      count === (before[name] ?? 0) ? [] : [[name, count - (before[name] ?? 0)]],
    ),
  );
}

/** An IPv4 packet of 40 bytes. */
export const inner = (source: string, destination: string, protocol = 17) =>
  packetAround({ source: number(source), destination: number(destination), protocol }, new Uint8Array(20));

/** The reason why the kernel runs no such programs here; undefined if it does. */
export function why(): string | undefined {
  if (BPF === undefined) return `bpf(2) has no known number on ${os.arch()}`;
  try {
    new SourceCheck({
      mappings: [mapping('10.0.0.0/8', '192.168.0.0/16')],
      local: address('192.168.16.32'),
      isVxlan: true,
      overhead: 50,
    }).close();
    return undefined;
  } catch (error) {
    return (error as Error).message;
  }
}
