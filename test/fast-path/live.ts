/**
 * Two VMs whose containers are packet sockets: frames go through both programs as the kernel runs them, super-packets
 * among them. VM A is a network namespace with the containers of B in it, and the other way round: a frame that is
 * redirected to the other end of a veth has to change namespaces.
 */
import { execFileSync } from 'node:child_process';
import { closeSync, openSync } from 'node:fs';
import os from 'node:os';
import { type CoreConfig, overhead } from '../../src/core/index.ts';
import type { NextHop } from '../../src/dataplane/fast-path/obstacles/ways.ts';
import { inbound, outbound, type ProgramOptions } from '../../src/dataplane/fast-path/programs/programs.ts';
import { FastPathState } from '../../src/dataplane/fast-path/state.ts';
import { assemble } from '../../src/linux/bpf/assembler.ts';
import { loadProgram } from '../../src/linux/bpf/program.ts';
import * as native from '../../src/linux/native.ts';
import { request } from '../../src/linux/netlink/message.ts';
import { Netlink } from '../../src/linux/netlink/netlink.ts';
import * as tc from '../../src/linux/netlink/traffic-control.ts';
import { ipv4 } from '../../src/mesh/address.ts';
import { Mapping } from '../../src/mesh/mapping.ts';
import { prefix } from '../golden.ts';

const UNSHARE = { x64: 272, arm64: 97 }[os.arch() as 'x64' | 'arm64'];
const NLM_F_CREATE = 0x400;
/** VMs 192.168.16.32 and .33, and the last bytes of Ethernet addresses. */
export const [A, B] = [0xc0a81020, 0xc0a81021];
/** A router, of which there is no more than its address. */
export const ROUTER = 0xc0a81063;
const ROUTER_MAC = [2, 0, 0, 9, 9, 9];
const UPLINK = 100;
const LINKS = [101, 102, 103] as const;
const MAPPING = new Mapping(prefix('10.0.0.0/8'), prefix('192.168.0.0/16'));

/** The container behind a link. */
export const containerOf = (vm: number, link: number) => (0x0a000000 + (vm - 0xc0a80000) * 256 + link - 99) >>> 0;
const macOf = (vm: number, link: number, end: 0 | 1) => [2, 0, 0, end, vm & 255, link];
const text = (mac: readonly number[]) => mac.map((byte) => byte.toString(16).padStart(2, '0')).join(':');

// Packet sockets (packet(7), <linux/if_packet.h>).
const AF_PACKET = 17;
const ETH_P_ALL = 0x0300;
const SOL_PACKET = 263;
const PACKET_VNET_HDR = 15;
const PACKET_IGNORE_OUTGOING = 23;
const VIRTIO_SIZE = 10;
const MOST = 70_000;
/** How often, and how long each time, ms, frames are waited for. */
const [TRIES, WAIT] = [100, 50];

/** What comes or goes by a link: struct virtio_net_hdr, and the frame. */
export interface Frame {
  flags: number;
  gso: number;
  headers: number;
  size: number;
  start: number;
  offset: number;
  bytes: Uint8Array<ArrayBuffer>;
}

/** One end of a link, as who is there sees it. */
class Port {
  readonly #fd: number;
  readonly #buffer = new Uint8Array(MOST);
  /** struct pollfd */
  readonly #poll: Int32Array;

  constructor(ifindex: number) {
    this.#fd = native.must(
      native.socket(AF_PACKET, native.SOCK_RAW | native.SOCK_CLOEXEC | native.SOCK_NONBLOCK, ETH_P_ALL),
      'socket',
      'of packets',
    );
    this.#poll = Int32Array.of(this.#fd, native.POLLIN);
    for (const option of [PACKET_VNET_HDR, PACKET_IGNORE_OUTGOING])
      native.must(native.setsockopt(this.#fd, SOL_PACKET, option, native.int(1), 4), 'setsockopt', `${option}`);
    const address = new Uint8Array(20);
    const view = new DataView(address.buffer);
    view.setUint16(0, AF_PACKET, true);
    view.setUint16(2, ETH_P_ALL, true);
    view.setInt32(4, ifindex, true);
    native.must(native.bind(this.#fd, address, address.length), 'bind', 'of packets');
  }

  send({ flags, gso, headers, size, start, offset, bytes }: Frame): void {
    const message = new Uint8Array(VIRTIO_SIZE + bytes.length);
    const view = new DataView(message.buffer);
    message.set([flags, gso]);
    [headers, size, start, offset].forEach((value, i) => {
      view.setUint16(2 + 2 * i, value, true);
    });
    message.set(bytes, VIRTIO_SIZE);
    native.must(native.write(this.#fd, message, message.length), 'write', 'of a frame');
  }

  /** All IPv4 that has come: waits for so many frames, but not for ever. */
  take(least = 0): Frame[] {
    const frames: Frame[] = [];
    for (let tries = 0; ; ) {
      const length = native.read(this.#fd, native.pointer(this.#buffer), MOST);
      if (length >= 0) frames.push(...this.#frame(length));
      else if (frames.length >= least || tries++ === TRIES) return frames;
      else native.poll(native.pointer(this.#poll), 1, WAIT);
    }
  }

  /** What was read: a frame, or nothing if it is not IPv4. */
  #frame(length: number): Frame[] {
    const view = new DataView(this.#buffer.buffer, 0, length);
    const word = (at: number) => view.getUint16(at, true);
    const bytes = this.#buffer.slice(VIRTIO_SIZE, length);
    if (bytes[12] !== 8 || bytes[13] !== 0) return [];
    const [flags, gso] = [view.getUint8(0), view.getUint8(1)];
    return [{ flags, gso, headers: word(2), size: word(4), start: word(6), offset: word(8), bytes }];
  }

  close(): void {
    native.close(this.#fd);
  }
}

interface Vm {
  state: FastPathState;
  programs: number[];
  options: ProgramOptions;
}

/** The namespaces, while the calling thread is in them. */
export class Live {
  readonly #home = openSync('/proc/thread-self/ns/net', 'r');
  readonly #limit: number;

  readonly #opened: { close(): void }[] = [];
  readonly #namespaces = new Map<number, number>();
  readonly vms = new Map<number, Vm>();
  /** Those of the containers, by VM and link; and the end of the underlay that is B's. */
  readonly ports = new Map<string, Port>();
  readonly underlay: Port;

  /** `limit` is for inner packets. Unless `isWhole`, the underlay's devices cut super-packets before they send them. */
  constructor(config: Omit<CoreConfig, 'local' | 'mappings'>, limit: number, isWhole: boolean) {
    this.#limit = limit;
    const mtu = limit + overhead(config.encapsulation ?? 'gre', config);
    for (const vm of [A, B]) {
      native.must(
        native.syscall(UNSHARE as number, native.CLONE_NEWNET, new Uint8Array(8), 0),
        'unshare',
        'of the network',
      );
      this.#namespaces.set(vm, openSync('/proc/thread-self/ns/net', 'r'));
    }
    const pathOf = (vm: number) => `/proc/${process.pid}/fd/${this.#namespaces.get(vm)}`;
    this.#enter(A);
    this.#ip([
      `link add u${A & 255} index ${UPLINK} address ${text(macOf(A, UPLINK, 0))} mtu ${mtu} type veth ` +
        `peer name u${B & 255} index ${UPLINK} address ${text(macOf(B, UPLINK, 0))} mtu ${mtu} netns ${pathOf(B)}`,
    ]);
    for (const [vm, other] of [
      [A, B],
      [B, A],
    ] as const) {
      this.#enter(vm);
      this.#ip([
        ...LINKS.map(
          (link) =>
            `link add c${link} index ${link} address ${text(macOf(vm, link, 0))} mtu 65535 type veth ` +
            `peer name p${link} index ${link + 100} address ${text(macOf(vm, link, 1))} mtu 65535 netns ${pathOf(other)}`,
        ),
        ...[`u${vm & 255}`, ...LINKS.map((link) => `c${link}`)].map((name) => `link set ${name} up`),
        `addr add 192.168.16.${vm & 255}/16 dev u${vm & 255}`,
        `neigh add 192.168.16.99 lladdr ${text(ROUTER_MAC)} nud permanent dev u${vm & 255}`,
        `neigh add 192.168.16.${other & 255} lladdr ${text(macOf(other, UPLINK, 0))} nud permanent dev u${vm & 255}`,
      ]);
      if (!isWhole) execFileSync('ethtool', ['-K', `u${vm & 255}`, 'tso', 'off', 'gso', 'off']);
    }
    for (const [vm, other] of [
      [A, B],
      [B, A],
    ] as const) {
      this.#enter(other);
      this.#ip(LINKS.map((link) => `link set p${link} up`));
      for (const link of LINKS) this.ports.set(`${vm} ${link}`, this.#port(link + 100));
      this.#enter(vm);
      this.vms.set(vm, this.#fastPath(vm, config));
    }
    this.#enter(B);
    this.underlay = this.#port(UPLINK);
  }

  port(vm: number, link: number): Port {
    return this.ports.get(`${vm} ${link}`) as Port;
  }

  state(vm: number): FastPathState {
    return this.vms.get(vm)?.state as FastPathState;
  }

  /** Daemons are there, for a while, and have found out by which way packets go. */
  accompany(nextHop?: NextHop): void {
    const settings = { enabled: true, uplink: UPLINK, limit: this.#limit, nextHop };
    for (const { state } of this.vms.values()) state.set(settings);
  }

  close(): void {
    for (const each of this.#opened) each.close();
    for (const { state, programs } of this.vms.values()) {
      state.close();
      for (const program of programs) native.close(program);
    }
    if (native.setns(this.#home, native.CLONE_NEWNET) < 0) process.abort();
    for (const fd of [this.#home, ...this.#namespaces.values()]) closeSync(fd);
  }

  #enter(vm: number): void {
    native.must(native.setns(this.#namespaces.get(vm) as number, native.CLONE_NEWNET), 'setns', 'to a VM');
  }

  #port(ifindex: number): Port {
    const port = new Port(ifindex);
    this.#opened.push(port);
    return port;
  }

  #ip(lines: readonly string[]): void {
    execFileSync('ip', ['-batch', '-'], { input: lines.map((line) => `${line}\n`).join('') });
  }

  /** What a VM has, its programs attached: in the thread's namespace. */
  #fastPath(vm: number, config: Omit<CoreConfig, 'local' | 'mappings'>): Vm {
    const { encapsulation = 'gre', key, ttl = 64, dscp = 0, ecn = 'normal', clampMss = false } = config;
    const state = new FastPathState([MAPPING], ipv4(vm));
    const options: ProgramOptions = {
      ...{ mappings: [MAPPING], local: ipv4(vm), encapsulation, receives: ['gre', 'gre-udp'] },
      ...{ key, ttl, dscp, ecn, clampMss },
    };
    const netlink = Netlink.open();
    const attach = (program: number, ifindex: number) => {
      const clsact = { ifindex, handle: tc.CLSACT_HANDLE, parent: tc.TC_H_CLSACT, kind: 'clsact' };
      netlink.do(request(tc.RTM_NEWQDISC, NLM_F_CREATE, 'clsact', tc.trafficControl, clsact));
      const bpf = { fd: program, name: tc.OUR_FILTER, flags: tc.TCA_BPF_FLAG_ACT_DIRECT };
      const filter = { ifindex, handle: 1, parent: tc.CLSACT_INGRESS, info: (73 << 16) | 8, kind: 'bpf', options: bpf };
      netlink.do(request(tc.RTM_NEWTFILTER, NLM_F_CREATE, 'filter', tc.bpfFilter, filter));
    };
    const programs = [outbound, inbound].map((make) => loadProgram(assemble(make(options, state.fds)), 'for a test'));
    const [out, back] = programs as [number, number];
    for (const link of LINKS) {
      attach(out, link);
      const [mac, hostMac] = [macOf(vm, link, 1), macOf(vm, link, 0)].map((each) => Uint8Array.from(each));
      state.setContainer(containerOf(vm, link), { link, mac: mac as Uint8Array, hostMac: hostMac as Uint8Array });
    }
    attach(back, UPLINK);
    netlink.close();
    const other = vm === A ? B : A;
    state.hear(other);
    return { state, programs, options };
  }
}

/** The frame that B sends to A. */
export const fromUnderlay = (packet: Uint8Array): Uint8Array<ArrayBuffer> =>
  Uint8Array.from([...macOf(A, UPLINK, 0), ...macOf(B, UPLINK, 0), 8, 0, ...packet]);

/** The frame that A sends to B, or to the router. */
export const toUnderlay = (packet: Uint8Array, isRouted: boolean): Uint8Array<ArrayBuffer> =>
  Uint8Array.from([...(isRouted ? ROUTER_MAC : macOf(B, UPLINK, 0)), ...macOf(A, UPLINK, 0), 8, 0, ...packet]);

/** The frame that a container sends to its VM. */
export const fromContainer = (vm: number, link: number, packet: Uint8Array): Uint8Array<ArrayBuffer> =>
  Uint8Array.from([...macOf(vm, link, 0), ...macOf(vm, link, 1), 8, 0, ...packet]);

/** The frame that comes to a container. */
export const toContainer = (vm: number, link: number, packet: Uint8Array): Uint8Array<ArrayBuffer> =>
  Uint8Array.from([...macOf(vm, link, 1), ...macOf(vm, link, 0), 8, 0, ...packet]);
