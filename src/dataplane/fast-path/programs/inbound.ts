/**
 * From the underlay: a packet with this mesh's outer headers is checked as the core does it, loses them, and goes straight into its
 * container. Runs where packets come in at the device that leads to other VMs.
 */
import { GRE_UDP_PORT } from '../../../core/abi.ts';
import * as bpf from '../../../linux/bpf/assembler.ts';
import { R0, R1, R2, R3, R4, STACK } from '../../../linux/bpf/assembler.ts';
import { ROOM_DECAP_GRE, ROOM_DECAP_UDP } from '../../../linux/bpf/skb.ts';
import { IPPROTO_GRE, IPPROTO_UDP } from '../../../linux/protocols.ts';
import { lowBits } from '../../../mesh/address.ts';
import { inMapping, placesOf, unlessNoVm, unlessReserved, vmOf } from '../../check/arithmetic.ts';
import { ETHERNET_HEADER, IPV4_HEADER } from '../../check/header-loads.ts';
import { COUNT_INBOUND, type MapFds, SLOT_LINK, VM_HEARD, VM_INBOUND, VM_INBOUND_FRESH } from '../state.ts';
import { adjustRoom, checkEcn, makeFrame, putFrame } from './frame.ts';
import { checkLink, measure } from './measure.ts';
import { greWord, network16, network32, outerLength } from './outer-headers.ts';
import {
  address,
  begin,
  checkHeader,
  checkInner,
  checkLength,
  count,
  DESTINATION,
  end,
  FRAGMENT,
  FRAGMENT_BITS,
  KEY,
  LINK,
  LONGEST,
  lookUp,
  PACKET,
  PROTOCOL,
  pointTo,
  pointToCounts,
  SKB,
  SOURCE,
  slotKey,
  totalLength,
  unlessFresh,
  unlessSyn,
} from './packet.ts';
import type { Format, ProgramOptions } from './programs.ts';

const OUTER = ETHERNET_HEADER;
const UDP: number = OUTER + IPV4_HEADER;

// Registers that calls leave alone, beside those of packet.ts. Once the frame is made, PACKET has the counters.
const RECORD = bpf.R8;
const SLOT = bpf.R9;
const COUNTS = PACKET;

export function inbound(options: ProgramOptions, maps: MapFds): bpf.Line[] {
  const { local, receives } = options;
  return [
    ...begin(maps.settings),
    ...pointTo(OUTER + IPV4_HEADER),
    bpf.loadWord(R1, PACKET, OUTER + DESTINATION),
    bpf.jumpUnlessEqual32(R1, network32(Number(local.bits)), 'pass'),
    bpf.loadByte(R1, PACKET, OUTER + PROTOCOL),
    ...receives.map((format) => bpf.jumpIfEqual(R1, protocolOf(format), format)),
    bpf.jump('pass'),
    ...receives.flatMap((format): bpf.Line[] => [{ label: format }, ...take(format, options, maps)]),
    ...end(),
  ];
}

function protocolOf(format: Format): number {
  return format === 'gre-udp' ? IPPROTO_UDP : IPPROTO_GRE;
}

function take(format: Format, options: ProgramOptions, { settings, slots, vms, counts }: MapFds): bpf.Line[] {
  const { mappings, local, dscp, clampMss, hasDecapFlags } = options;
  const isUdp = format === 'gre-udp';
  const outer = outerLength(format, options);
  const inner = ETHERNET_HEADER + outer;
  const decap = isUdp ? ROOM_DECAP_UDP : ROOM_DECAP_GRE;
  return [
    bpf.loadHalf(R1, PACKET, OUTER + FRAGMENT),
    bpf.jumpIfAny(R1, FRAGMENT_BITS, 'pass'),
    ...checkHeader(OUTER),
    ...checkLength(),
    ...pointTo(inner + IPV4_HEADER),
    ...(isUdp ? checkUdp() : []),
    ...checkGre(isUdp ? UDP + 8 : UDP, options),
    ...checkHeader(inner),
    ...totalLength(R1, inner),
    bpf.add(R1, outer),
    ...totalLength(R2, OUTER),
    bpf.jumpUnlessSame32(R1, R2, 'pass'),
    ...checkInner(inner),
    ...checkSource(inner, options),
    ...lookUp(vms),
    bpf.copy(RECORD, R0),
    ...address(R1, inner + DESTINATION),
    ...slotKey(mappings, local, R1),
    bpf.storeWord(STACK, KEY, R1),
    ...lookUp(slots),
    bpf.copy(SLOT, R0),
    bpf.loadWord(R1, SLOT, SLOT_LINK),
    bpf.jumpIfEqual(R1, 0, 'pass'),
    bpf.storeWord(STACK, LINK, R1),
    ...checkEcn(inner, dscp === 'uniform'),
    ...measure(inner),
    bpf.storeWord(STACK, LONGEST, R3),
    ...checkLink(outer),
    ...(clampMss ? unlessSyn(inner) : []),
    bpf.storeWordOf(RECORD, VM_HEARD, 1),
    ...(isUdp ? unlessVerified() : []),
    ...unlessFresh(settings, RECORD, VM_INBOUND_FRESH),
    ...makeFrame(SLOT, inner, true),
    ...(isUdp ? takeChecksum() : []),
    ...pointToCounts(COUNTS, counts),
    ...adjustRoom(-outer, hasDecapFlags ? decap : 0),
    ...putFrame('broken'),
    ...count(COUNTS, COUNT_INBOUND, { record: RECORD, offset: VM_INBOUND }),
    bpf.loadWord(R1, STACK, LINK),
    bpf.set(R2, 0),
    bpf.call(bpf.REDIRECT_PEER),
    bpf.exit,
  ];
}

// <linux/bpf.h>
const CSUM_LEVEL_QUERY = 0;
const CSUM_LEVEL_DEC = 2;
const UDP_LENGTH: number = UDP + 4;
const UDP_CHECKSUM: number = UDP + 6;

/** Goes to 'pass' unless the UDP header is GRE-in-UDP's. */
function checkUdp(): bpf.Line[] {
  return [
    bpf.loadHalf(R1, PACKET, UDP + 2),
    bpf.jumpUnlessEqual(R1, network16(GRE_UDP_PORT), 'pass'),
    bpf.loadHalf(R1, PACKET, UDP_LENGTH),
    bpf.fromNetwork16(R1),
    bpf.add(R1, IPV4_HEADER),
    ...totalLength(R2, OUTER),
    bpf.jumpUnlessSame32(R1, R2, 'pass'),
  ];
}

/**
 * Goes to 'pass' unless there is no UDP checksum, or the card has verified it. Between VMs of one host the kernel leaves it open
 * (CHECKSUM_PARTIAL), and would look for it where nothing is any more.
 */
function unlessVerified(): bpf.Line[] {
  const verified = Symbol('verified');
  return [
    bpf.loadHalf(R1, PACKET, UDP_CHECKSUM),
    bpf.jumpIfEqual(R1, 0, verified),
    ...csumLevel(CSUM_LEVEL_QUERY),
    bpf.jumpIfNegative(R0, 'pass'),
    { label: verified },
  ];
}

/** What the card has verified was the outer checksum: the next it may have verified is the inner one. */
function takeChecksum(): bpf.Line[] {
  const none = Symbol('no checksum');
  return [
    bpf.loadHalf(R1, PACKET, UDP_CHECKSUM),
    bpf.jumpIfEqual(R1, 0, none),
    ...csumLevel(CSUM_LEVEL_DEC),
    { label: none },
  ];
}

function csumLevel(what: number): bpf.Line[] {
  return [bpf.copy(R1, SKB), bpf.set(R2, what), bpf.call(bpf.CSUM_LEVEL)];
}

/** Goes to 'pass' unless the GRE header is exactly as this mesh has it: others are for the core. */
function checkGre(at: number, { key }: ProgramOptions): bpf.Line[] {
  return [
    bpf.loadWord(R1, PACKET, at),
    bpf.jumpUnlessEqual32(R1, greWord(key), 'pass'),
    ...(key === undefined ? [] : [bpf.loadWord(R1, PACKET, at + 4), bpf.jumpUnlessEqual32(R1, network32(key), 'pass')]),
  ];
}

/** Goes to 'pass' unless the inner source lives on the VM that the outer one names, which is another; KEY is that VM's number. */
function checkSource(inner: number, { mappings, local }: ProgramOptions): bpf.Line[] {
  const places = placesOf(mappings);
  const [source, vm, sender] = [R1, R3, R4];
  return [
    ...address(source, inner + SOURCE),
    ...address(sender, OUTER + SOURCE),
    ...inMapping(mappings, source, (mapping, i) => [
      ...vmOf(mapping, source, vm),
      bpf.jumpUnlessSame32(vm, sender, 'pass'),
      bpf.jumpIfEqual32(vm, Number(local.bits), 'pass'),
      ...unlessNoVm(mapping, vm, 'pass'),
      ...unlessReserved(mapping, source, 'pass'),
      bpf.and32(vm, Number(lowBits(mapping.vmBits))),
      bpf.add(vm, places[i] as number),
      bpf.storeWord(STACK, KEY, vm),
      bpf.jump(`believed ${inner}`),
    ]),
    bpf.jump('pass'),
    { label: `believed ${inner}` },
  ];
}
