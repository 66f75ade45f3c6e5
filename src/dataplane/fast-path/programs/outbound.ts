/**
 * From a container: to the underlay, with the outer headers that the core would have put, or straight to another container of this
 * VM. Runs where packets come in at the host's end of each container's veth.
 */

import * as bpf from '../../../linux/bpf/assembler.ts';
import { R0, R1, R2, R3, R4, STACK } from '../../../linux/bpf/assembler.ts';
import { ROOM_ENCAP_GRE, ROOM_ENCAP_IPV4, ROOM_ENCAP_UDP, SKB_IFINDEX } from '../../../linux/bpf/skb.ts';
import { AF_INET } from '../../../linux/native.ts';
import { lowBits } from '../../../mesh/address.ts';
import { inMapping, placesOf, unlessNoVm, unlessReserved, vmOf } from '../../check/arithmetic.ts';
import { ETHERNET_HEADER, IPV4_HEADER } from '../../check/header-loads.ts';
import {
  COUNT_LOCAL,
  COUNT_OUTBOUND,
  type MapFds,
  NEXT_HOP_LOOKED_UP,
  NEXT_HOP_VM,
  SETTING_LIMIT,
  SETTING_NEXT_HOP,
  SETTING_UPLINK,
  SLOT_LINK,
  VM_HEARD,
  VM_LIMIT,
  VM_OUTBOUND,
  VM_OUTBOUND_FRESH,
} from '../state.ts';
import { adjustRoom, copyHeader, makeFrame, putBytes, putFrame } from './frame.ts';
import { checkLink, measure } from './measure.ts';
import { outerHeaders, outerLength } from './outer-headers.ts';
import {
  address,
  begin,
  checkHeader,
  checkInner,
  checkLength,
  count,
  DESTINATION,
  end,
  HEADERS,
  KEY,
  LINK,
  LONGEST,
  lookUp,
  pointTo,
  pointToCounts,
  SKB,
  SOURCE,
  slotKey,
  unlessAlive,
  unlessFresh,
  unlessSyn,
} from './packet.ts';
import type { ProgramOptions } from './programs.ts';

const INNER = ETHERNET_HEADER;

// Registers that calls leave alone, beside those of packet.ts: the VM that the packet goes to, and its number, then its record;
// or the destination, then its slot. Once the headers are made, VM has the counters.
const VM = bpf.R8;
const RECORD = bpf.R9;
const SLOT = bpf.R9;
const COUNTS = bpf.R8;

export function outbound(options: ProgramOptions, maps: MapFds): bpf.Line[] {
  return [
    ...begin(maps.settings),
    ...pointTo(INNER + IPV4_HEADER),
    ...findVm(options),
    { label: 'remote' },
    ...checkContainer(options, maps),
    ...toUnderlay(options, maps),
    { label: 'own slice' },
    ...checkContainer(options, maps),
    ...straightAcross(options, maps),
    ...end(),
  ];
}

/** Goes to 'remote' with VM and its number, to 'own slice', or to 'pass'. */
function findVm({ mappings, local }: ProgramOptions): bpf.Line[] {
  const places = placesOf(mappings);
  const [destination, vm] = [VM, RECORD];
  return [
    ...address(destination, INNER + DESTINATION),
    ...inMapping(mappings, destination, (mapping, i) => [
      ...vmOf(mapping, destination, vm),
      bpf.jumpIfEqual32(vm, Number(local.bits), 'own slice'),
      ...unlessNoVm(mapping, vm, 'pass'),
      ...unlessReserved(mapping, destination, 'pass'),
      bpf.copy(VM, vm),
      bpf.and32(RECORD, Number(lowBits(mapping.vmBits))),
      bpf.add(RECORD, places[i] as number),
      bpf.jump('remote'),
    ]),
    bpf.jump('pass'),
  ];
}

/** Goes to 'pass' unless the packet is sound, and its source is the container behind this device. */
function checkContainer({ mappings, local }: ProgramOptions, { slots }: MapFds): bpf.Line[] {
  return [
    ...checkHeader(INNER),
    ...checkLength(),
    ...checkInner(INNER),
    ...address(R1, INNER + SOURCE),
    ...slotKey(mappings, local, R1),
    bpf.storeWord(STACK, KEY, R1),
    ...lookUp(slots),
    bpf.loadWord(R1, R0, SLOT_LINK),
    bpf.loadWord(R2, SKB, SKB_IFINDEX),
    bpf.jumpUnlessSame32(R1, R2, 'pass'),
  ];
}

function toUnderlay(options: ProgramOptions, { settings, vms, counts }: MapFds): bpf.Line[] {
  const { encapsulation, clampMss } = options;
  const outer = outerLength(encapsulation, options);
  const narrower = Symbol('limit');
  return [
    bpf.storeWord(STACK, KEY, RECORD),
    ...lookUp(vms),
    bpf.copy(RECORD, R0),
    bpf.loadWord(R1, RECORD, VM_HEARD),
    bpf.jumpIfEqual(R1, 0, 'pass'),
    ...measure(INNER, outer),
    ...bpf.loadMapValue(R2, settings),
    bpf.loadWord(R1, R2, SETTING_UPLINK),
    bpf.storeWord(STACK, LINK, R1),
    bpf.loadWord(R1, R2, SETTING_LIMIT),
    bpf.jumpIfAboveRegister(R3, R1, 'pass'),
    bpf.loadWord(R1, RECORD, VM_LIMIT),
    bpf.jumpIfEqual(R1, 0, narrower),
    bpf.jumpIfAboveRegister(R3, R1, 'pass'),
    { label: narrower },
    ...(clampMss ? unlessSyn(INNER) : []),
    ...unlessFresh(settings, RECORD, VM_OUTBOUND_FRESH),
    ...outerHeaders(options, VM),
    ...copyHeader(INNER, HEADERS + outer, { isWhole: true }),
    ...pointToCounts(COUNTS, counts),
    ...adjustRoom(outer, ROOM_ENCAP_IPV4 | (encapsulation === 'gre' ? ROOM_ENCAP_GRE : ROOM_ENCAP_UDP)),
    ...putBytes(INNER, HEADERS, outer + IPV4_HEADER, 'broken'),
    ...count(COUNTS, COUNT_OUTBOUND, { record: RECORD, offset: VM_OUTBOUND }),
    ...leave(settings),
  ];
}

/** struct bpf_redir_neigh, over the outer headers, so that the address in it is the VM's. */
const NEXT_HOP = HEADERS + DESTINATION - 4;
const NEXT_HOP_ADDRESS = NEXT_HOP + 4;
const NEXT_HOP_SIZE = 20;

/**
 * To the uplink: the kernel looks for the neighbour, and puts the Ethernet header. That it also looks for the way takes longer than
 * all of this program. It does so only where packets to VMs go different ways, or no daemon follows the routes.
 */
function leave(settings: number): bpf.Line[] {
  const [lookedUp, vm, redirect] = [Symbol('looked up'), Symbol('to the VM'), Symbol('redirect')];
  return [
    ...unlessAlive(settings, lookedUp),
    ...bpf.loadMapValue(R2, settings),
    bpf.loadWord(R1, R2, SETTING_NEXT_HOP),
    bpf.jumpIfEqual(R1, NEXT_HOP_LOOKED_UP, lookedUp),
    bpf.jumpIfEqual32(R1, NEXT_HOP_VM, vm),
    bpf.storeWord(STACK, NEXT_HOP_ADDRESS, R1),
    { label: vm },
    bpf.storeWordOf(STACK, NEXT_HOP, AF_INET),
    bpf.copy(R2, STACK),
    bpf.add(R2, NEXT_HOP),
    bpf.set(R3, NEXT_HOP_SIZE),
    bpf.jump(redirect),
    { label: lookedUp },
    bpf.set(R2, 0),
    bpf.set(R3, 0),
    { label: redirect },
    bpf.loadWord(R1, STACK, LINK),
    bpf.set(R4, 0),
    bpf.call(bpf.REDIRECT_NEIGH),
    bpf.exit,
  ];
}

/** To a container of this VM: its frame, as the kernel's routing would make it. */
function straightAcross({ mappings, local }: ProgramOptions, { slots, counts }: MapFds): bpf.Line[] {
  return [
    ...address(R1, INNER + DESTINATION),
    ...slotKey(mappings, local, R1),
    bpf.storeWord(STACK, KEY, R1),
    ...lookUp(slots),
    bpf.copy(SLOT, R0),
    bpf.loadWord(R1, SLOT, SLOT_LINK),
    bpf.jumpIfEqual(R1, 0, 'pass'),
    bpf.loadWord(R2, SKB, SKB_IFINDEX),
    bpf.xor32(R2, R1),
    bpf.jumpIfEqual(R2, 0, 'pass'),
    bpf.storeWord(STACK, LINK, R1),
    ...measure(INNER),
    bpf.storeWord(STACK, LONGEST, R3),
    ...checkLink(0),
    ...makeFrame(SLOT, INNER, false),
    ...pointToCounts(COUNTS, counts),
    ...putFrame('pass'),
    ...count(COUNTS, COUNT_LOCAL),
    bpf.loadWord(R1, STACK, LINK),
    bpf.set(R2, 0),
    bpf.call(bpf.REDIRECT_PEER),
    bpf.exit,
  ];
}
