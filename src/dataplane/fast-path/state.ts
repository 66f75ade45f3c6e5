/**
 * What the programs know beside a packet and the mapping: whether they may take packets, where containers are,
 * what is known about other VMs, and what they have counted. All of it is in eBPF maps, which live as long as the
 * programs, whatever becomes of the daemon.
 */
import {
  BPF_F_MMAPABLE,
  BPF_MAP_TYPE_ARRAY,
  BPF_MAP_TYPE_PERCPU_ARRAY,
  BpfMap,
  possibleCpus,
} from '../../linux/bpf/map.ts';
import * as native from '../../linux/native.ts';
import type { Address } from '../../mesh/address.ts';
import type { Mapping } from '../../mesh/mapping.ts';
import type { Traffic } from '../dataplane.ts';
import type { NextHop } from './obstacles/ways.ts';
import { Places } from './places.ts';

/**
 * The settings, a single value. The first are u64 ns of CLOCK_MONOTONIC: until when packets are taken, so that nothing goes for long
 * by what a daemon knew that is no more; and until when the daemon is taken to be there, so that packets go their ordinary way now
 * and then, and nobody else need look for next hops.
 */
export const SETTING_UNTIL = 0;
export const SETTING_ALIVE = 8;
/** u32 interface index of the device that leads to other VMs. */
export const SETTING_UPLINK = 16;
/** u32 bytes of the longest inner packet of a tunnel about which nothing else is known. */
export const SETTING_LIMIT = 20;
/**
 * u32: where packets to all VMs go next: the address of a router, in network order; or the VM itself; or, if they do not all go the
 * same way, what the kernel looks up for each packet.
 */
export const SETTING_NEXT_HOP = 24;
export const NEXT_HOP_LOOKED_UP = 0;
export const NEXT_HOP_VM = 0xffffffff;
const SETTINGS_SIZE = 32;
/** Seconds in which a daemon that has ended can be started again, and the same in ns. */
export const LEASE_SECONDS = 30;
const LEASE: bigint = BigInt(LEASE_SECONDS) * 1_000_000_000n;
/** ns from one call of `set` to the next, at most, on a machine that does much else. */
const ALIVE = 2_000_000_000n;

/**
 * A container, by its index: the u32 interface index of the host's end of its veth, 0 if there is none; then the
 * Ethernet addresses of a frame to it, destination before source.
 */
export const SLOT_LINK = 0;
export const SLOT_ADDRESSES = 4;
const SLOT_SIZE = 16;

/** A remote VM, by its number: u64 packets and bytes of inner packets that the programs took, outbound and inbound. */
export const VM_OUTBOUND = 0;
export const VM_INBOUND = 16;
/** u32: whether the VM has ever been heard. Nothing is sent to others, so that a container cannot make this VM look for VMs. */
export const VM_HEARD = 32;
/**
 * u32, one for each direction: 0 lets the next packet go its ordinary way, and becomes 1 with it. So the data plane
 * hears of each tunnel now and then, and keeps it open. Without a daemon nothing would take that packet.
 */
export const VM_OUTBOUND_FRESH = 36;
export const VM_INBOUND_FRESH = 40;
/** u32 bytes of the longest inner packet, where the path is narrower than others; else 0. */
export const VM_LIMIT = 44;
/** A line of the processor's cache. */
export const VM_SIZE = 64;

/** Counters of each processor: u64 packets and bytes, of inner packets. */
export const COUNT_OUTBOUND = 0;
export const COUNT_INBOUND = 16;
/** Between two containers of this VM. */
export const COUNT_LOCAL = 32;
const COUNTS_SIZE = 48;

/** VMs and containers that the maps have room for: packets of others go their ordinary way. */
const MAX_VMS = 1 << 18;
const MAX_SLOTS = 1 << 16;

export interface FastPathSettings {
  enabled: boolean;
  /** Interface index. */
  uplink: number;
  /** Bytes. */
  limit: number;
  /** The kernel looks it up if it is not given. */
  nextHop?: NextHop | undefined;
}

/** Where a container is. */
export interface Slot {
  /** Interface index of the host's end of the veth. */
  link: number;
  /** Ethernet addresses of the container's end, and of the host's. */
  mac: Uint8Array;
  hostMac: Uint8Array;
}

/** Descriptors of the maps. */
export interface MapFds {
  settings: number;
  slots: number;
  vms: number;
  counts: number;
}

export class FastPathState {
  readonly #places: Places;
  readonly #settings: BpfMap;
  readonly #slots: BpfMap;
  readonly #vms: BpfMap;
  readonly #counts: BpfMap;
  readonly #cpus = possibleCpus();
  #last: FastPathSettings = { enabled: false, uplink: 0, limit: 0 };
  /** The record of each VM, as the programs see it. */
  readonly #view: { bytes: ArrayBuffer; unmap: () => void };
  #words: Uint32Array;

  /** Throws SystemError, such as EPERM without CAP_BPF; then nothing stays open. */
  constructor(mappings: readonly Mapping[], local: Address) {
    this.#places = new Places(mappings, local);
    const vms = Math.min(this.#places.vms, MAX_VMS);
    const slots = Math.min(Math.max(1, this.#places.slots), MAX_SLOTS);
    const opened: BpfMap[] = [];
    const open = (...of: ConstructorParameters<typeof BpfMap>) => {
      const map = new BpfMap(...of);
      opened.push(map);
      return map;
    };
    try {
      this.#settings = open(BPF_MAP_TYPE_ARRAY, SETTINGS_SIZE, 1);
      this.#slots = open(BPF_MAP_TYPE_ARRAY, SLOT_SIZE, slots);
      this.#vms = open(BPF_MAP_TYPE_ARRAY, VM_SIZE, vms, 1, BPF_F_MMAPABLE);
      this.#counts = open(BPF_MAP_TYPE_PERCPU_ARRAY, COUNTS_SIZE, 1, this.#cpus);
      this.#view = native.mapped(this.#vms.fd, vms * VM_SIZE, 'the VMs of the fast path', true);
    } catch (error) {
      for (const map of opened) map.close();
      throw error;
    }
    this.#words = new Uint32Array(this.#view.bytes);
  }

  get fds(): MapFds {
    return { settings: this.#settings.fd, slots: this.#slots.fd, vms: this.#vms.fd, counts: this.#counts.fd };
  }

  /**
   * From here on the programs do so; `enabled: false` stops them from taking packets at once. To be called twice a second, as a sign
   * of life. `now` is in ns of CLOCK_MONOTONIC.
   */
  set(settings: FastPathSettings, now: bigint = process.hrtime.bigint()): void {
    this.#last = settings;
    this.#putSettings(settings, now, now + ALIVE);
  }

  /** The daemon ends: this is its last sign of life. */
  leave(): void {
    this.#putSettings(this.#last, process.hrtime.bigint(), 0n);
  }

  #putSettings({ enabled, uplink, limit, nextHop }: FastPathSettings, now: bigint, alive: bigint): void {
    const view = new DataView(new ArrayBuffer(SETTINGS_SIZE));
    view.setBigUint64(SETTING_UNTIL, enabled ? now + LEASE : 0n, true);
    view.setBigUint64(SETTING_ALIVE, alive, true);
    view.setUint32(SETTING_UPLINK, uplink, true);
    view.setUint32(SETTING_LIMIT, limit, true);
    if (typeof nextHop === 'number') view.setUint32(SETTING_NEXT_HOP, nextHop);
    else view.setUint32(SETTING_NEXT_HOP, nextHop === 'vm' ? NEXT_HOP_VM : NEXT_HOP_LOOKED_UP);
    this.#settings.put(0, [...new BigUint64Array(view.buffer)]);
  }

  /** Where the container with an overlay address of this VM is; undefined if it is gone. False if no container has it, or there is no room. */
  setContainer(address: number, slot: Slot | undefined): boolean {
    const key = this.#places.ofContainer(address);
    if (key === undefined || key >= MAX_SLOTS) return false;
    const bytes = new Uint8Array(SLOT_SIZE);
    if (slot) {
      new DataView(bytes.buffer).setUint32(SLOT_LINK, slot.link, true);
      bytes.set(slot.mac, SLOT_ADDRESSES);
      bytes.set(slot.hostMac, SLOT_ADDRESSES + 6);
    }
    this.#slots.put(key, [...new BigUint64Array(bytes.buffer)]);
    return true;
  }

  /** What the programs took to and from a VM. */
  traffic(vm: number): { outbound: Traffic; inbound: Traffic } {
    const [at] = this.#wordsOf(vm);
    const of = (offset: number) => ({ packets: this.#long(at, offset), bytes: this.#long(at, offset + 8) });
    return { outbound: of(VM_OUTBOUND), inbound: of(VM_INBOUND) };
  }

  /** Packets that the programs took from a VM. */
  heard(vm: number): number {
    return this.#long(this.#wordsOf(vm)[0], VM_INBOUND);
  }

  /** Notes that a VM has been heard by the data plane. */
  hear(vm: number): void {
    this.#put(vm, VM_HEARD, 1);
  }

  /** Notes how long an inner packet to a VM may be; 0 if it is as for others. */
  limit(vm: number, bytes: number): void {
    this.#put(vm, VM_LIMIT, bytes);
  }

  /** Lets one packet of each direction go its ordinary way, of the tunnel to a VM. */
  renew(vm: number): void {
    const [at, end] = this.#wordsOf(vm);
    if (at < end) this.#renewAt(at);
  }

  /** The same of every `step`-th VM, from the one with number `first` on. */
  renewEvery(step: number, first: number): void {
    const record = VM_SIZE / 4;
    for (let at = first * record; at < this.#words.length; at += step * record) this.#renewAt(at);
  }

  /** Begins anew with a VM whose tunnel was closed. */
  forget(vm: number): void {
    this.#words.fill(0, ...this.#wordsOf(vm));
  }

  /** What the programs took altogether. */
  counts(): { outbound: Traffic; inbound: Traffic; local: Traffic } {
    const words = this.#counts.get(0) ?? new BigUint64Array(0);
    const sum = (offset: number) => {
      let total = 0;
      for (let cpu = 0; cpu < this.#cpus; cpu++) total += Number(words[(cpu * COUNTS_SIZE + offset) / 8] ?? 0n);
      return total;
    };
    const of = (offset: number) => ({ packets: sum(offset), bytes: sum(offset + 8) });
    return { outbound: of(COUNT_OUTBOUND), inbound: of(COUNT_INBOUND), local: of(COUNT_LOCAL) };
  }

  /** The maps stay as long as a program that is attached uses them. */
  close(): void {
    // Whoever asks later finds nothing, instead of memory that is not there.
    this.#words = new Uint32Array(0);
    this.#view.unmap();
    for (const map of [this.#settings, this.#slots, this.#vms, this.#counts]) map.close();
  }

  #put(vm: number, offset: number, value: number): void {
    const [at, end] = this.#wordsOf(vm);
    if (at < end) this.#store(at + offset / 4, value);
  }

  /** The programs write the memory at the same time: what is as it should be is left alone. */
  #store(word: number, value: number): void {
    if (this.#words[word] !== value) this.#words[word] = value;
  }

  #renewAt(record: number): void {
    this.#store(record + VM_OUTBOUND_FRESH / 4, 0);
    this.#store(record + VM_INBOUND_FRESH / 4, 0);
  }

  /** A u64 in two halves, which are of one time if the upper one has not changed. */
  #long(record: number, offset: number): number {
    const at = record + offset / 4;
    for (;;) {
      const high = this.#words[at + 1] ?? 0;
      const low = this.#words[at] ?? 0;
      if (high === (this.#words[at + 1] ?? 0)) return high * 2 ** 32 + low;
    }
  }

  /** The words of a VM's record: none if there is no room for it. */
  #wordsOf(vm: number): [first: number, end: number] {
    const at = (this.#places.ofVm(vm) ?? MAX_VMS) * (VM_SIZE / 4);
    return [at, Math.min(at + VM_SIZE / 4, this.#words.length)];
  }
}
