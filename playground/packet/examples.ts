/** Packets to begin with, made for the prefixes and the VM that are set. */
import type { CoreConfig, PacketCore } from '../../src/core/index.ts';
import type { Address } from '../../src/mesh/address.ts';
import type { Mapping } from '../../src/mesh/mapping.ts';
import { nthVm, numberOf } from '../mesh.ts';
import { ipv4Packet, ping, tcpSyn, udpDatagram } from './make.ts';
import { Vm, type Way } from './run.ts';

export interface Example {
  name: string;
  way: Way;
  make: () => Uint8Array<ArrayBuffer>;
}

/** Container 90, as in README.md, or the last one that a VM has. */
const CONTAINER = 90;
const OTHERS = 6;
const MAX_TOTAL_LENGTH = 65_535;
const PROTOCOL_UDP = 17;
const TEXT = new TextEncoder().encode('hello from the other VM');

/** What a VM is told, with its MTU. */
type Told = CoreConfig & { mtu: number };
interface Parties {
  /** Two containers: of this VM, and of the other. */
  here: number;
  there: number;
  other: Address;
}

/** What may be tried on VM `local`; `core` plays the VM that sends to it meanwhile. None if there is no other VM. */
export function examplesOf(mapping: Mapping, local: Address, config: Told, core: PacketCore): Example[] {
  const other = otherVm(mapping, local);
  if (!other) return [];
  const parties = { here: containerOf(mapping, local, CONTAINER), there: containerOf(mapping, other, OTHERS), other };
  return [...outbound(mapping, parties, config), ...inbound(mapping, local, parties, config, core)];
}

function outbound(mapping: Mapping, { here, there, other }: Parties, config: Told): Example[] {
  const out = { source: here, destination: there };
  const ports: [number, number] = [40_000, 443];
  const whole = { ...out, dontFragment: true };
  const makers: [string, Example['make']][] = [
    ['empty packet', () => ipv4Packet({ ...out, protocol: 1 }, new Uint8Array())],
    ['ping', () => ping(out, 32)],
    ['TCP SYN', () => tcpSyn(whole, ports, 1460)],
    ['too big', () => udpDatagram(whole, ports, dataBeyond(config, 1))],
    ['fragmented', () => udpDatagram(out, ports, dataBeyond(config, 128))],
    ['to nobody', () => ping({ source: here, destination: numberOf(mapping.sliceOf(other)) }, 8)],
    ['foreign source', () => ping({ source: there, destination: here }, 8)],
  ];
  return makers.map(([name, make]) => ({ name, way: 'encapsulate', make }));
}

function inbound(mapping: Mapping, local: Address, parties: Parties, config: Told, core: PacketCore): Example[] {
  const { here, there, other } = parties;
  const back = { source: there, destination: here };
  /** What another VM makes of a packet. */
  const sent = (packet: Uint8Array, vm: Address, change: Partial<CoreConfig> = {}) => {
    const theirs = new Vm(core, { ...config, local: numberOf(vm), ...change });
    return theirs.handle('encapsulate', packet, 1).messages[0] ?? new Uint8Array();
  };
  const otherKey = ((config.key ?? 0) + 1) >>> 0;
  const third = otherVm(mapping, local, other);
  const makers: [string, Example['make']][] = [
    ['from the other VM', () => sent(udpDatagram(back, [443, 40_000], TEXT), other)],
    ['damaged', () => damaged(sent(ping(back, 8), other, { greChecksum: true }))],
    ['another key', () => sent(ping(back, 8), other, { key: otherKey })],
  ];
  if (third) {
    const theirs = { source: containerOf(mapping, third, OTHERS), destination: here };
    makers.push(['spoofed source', () => sentBy(numberOf(other), sent(ping(theirs, 8), third))]);
  }
  return makers.map(([name, make]) => ({ name, way: 'decapsulate', make }));
}

/** Data of a UDP datagram whose IPv4 packet has `more` bytes than fit the tunnel, as far as IPv4 has that. */
function dataBeyond({ mtu }: Told, more: number): Uint8Array {
  return new Uint8Array(Math.min(mtu + more, MAX_TOTAL_LENGTH) - 28);
}

/** The VM after the first of the given ones that is none of them, if there is one. */
function otherVm(mapping: Mapping, ...vms: [Address, ...Address[]]): Address | undefined {
  const first = mapping.numberOf(vms[0]);
  const next = Array.from({ length: Math.min(mapping.vms, vms.length + 2) }, (_, n) => nthVm(mapping, first + n));
  return next.find(({ bits }) => vms.every((vm) => vm.bits !== bits));
}

function containerOf(mapping: Mapping, vm: Address, container: number): number {
  const most = Number(mapping.containersPerVm);
  return numberOf(mapping.addressOf(vm, BigInt(Math.min(container, most) + 1)));
}

/** With a bit of its last byte changed. */
function damaged(packet: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> {
  const at = packet.length - 1;
  packet[at] = (packet[at] ?? 0) ^ 1;
  return packet;
}

/** As if it came from another VM. */
function sentBy(source: number, packet: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> {
  const view = new DataView(packet.buffer);
  const [destination, protocol] = [view.getUint32(16), view.getUint8(9)];
  const parts = { source, destination, dontFragment: true };
  if (protocol !== PROTOCOL_UDP) return ipv4Packet({ ...parts, protocol }, packet.subarray(20));
  return udpDatagram(parts, [view.getUint16(20), view.getUint16(22)], packet.subarray(28));
}
