/**
 * Which packets the kernel drops in some network namespaces, where and why: what tells when a packet vanishes and no counter moves. An eBPF program at the
 * tracepoint skb:kfree_skb writes them down; the kernel's own types (BTF) say where it finds the device and the namespace.
 */
import { readFileSync, statSync } from 'node:fs';
import type { Lab } from '../../src/demo/lab.ts';
import type { Instruction, Line } from '../../src/linux/bpf/assembler.ts';
import * as bpf from '../../src/linux/bpf/assembler.ts';
import { BPF_MAP_TYPE_ARRAY, BpfMap } from '../../src/linux/bpf/map.ts';
import { mustBpf } from '../../src/linux/bpf/syscall.ts';
import * as native from '../../src/linux/native.ts';
import { Btf } from './btf.ts';

// <linux/bpf.h>
const BPF_PROG_LOAD = 5;
const BPF_RAW_TRACEPOINT_OPEN = 17;
const BPF_PROG_TYPE_RAW_TRACEPOINT = 17;
const BPF_MAP_TYPE_HASH = 1;
const BPF_FETCH = 1;
const PROBE_READ_KERNEL = 113;

const RECORDS = 4096;
/** A record: the place in the kernel's code (u64), the reason (u64), namespace and interface index (u32), the packet from its network header on. */
const [LOCATION, REASON, NAMESPACE, IFINDEX, PACKET] = [0, 8, 16, 20, 24];
const PACKET_BYTES = 64;
const RECORD_SIZE = PACKET + PACKET_BYTES;

export interface Drop {
  namespace: string;
  ifindex: number;
  reason: string;
  /** A function of the kernel and an offset. */
  location: string;
  /** What begins at the network header. */
  packet: string;
}

export class Drops {
  readonly #btf = new Btf();
  readonly #next = new BpfMap(BPF_MAP_TYPE_ARRAY, 8, 1);
  readonly #records = new BpfMap(BPF_MAP_TYPE_ARRAY, RECORD_SIZE, RECORDS);
  readonly #namespaces = new BpfMap(BPF_MAP_TYPE_HASH, 8, 1024);
  /** By the inode number of its file. */
  readonly #names = new Map<number, string>();
  readonly #fds: number[] = [];
  #seen = 0;

  constructor() {
    const lines = program(this.#btf, this.#next.fd, this.#records.fd, this.#namespaces.fd);
    const load = native.structure(48, { 8: encode(bpf.assemble(lines)), 16: text('Dual MIT/GPL') });
    load.view.setUint32(0, BPF_PROG_TYPE_RAW_TRACEPOINT, true);
    load.view.setUint32(4, load.pointed[8].length / 8, true);
    this.#fds.push(mustBpf(BPF_PROG_LOAD, load, 'for a tracepoint'));
    const open = native.structure(16, { 0: text('kfree_skb') });
    open.view.setUint32(8, this.#fds[0] as number, true);
    this.#fds.push(mustBpf(BPF_RAW_TRACEPOINT_OPEN, open, 'kfree_skb'));
  }

  /** From now on drops in these network namespaces of a lab are written down. */
  watch(lab: Lab, ...names: string[]): void {
    for (const name of names) {
      const { ino } = statSync(lab.path(`/run/netns/${name}`));
      this.#names.set(ino, name);
      this.#namespaces.put(ino, [1n]);
    }
  }

  /** Those since the last call. */
  take(): Drop[] {
    const next = Number(this.#next.get(0)?.[0] ?? 0);
    const first = Math.max(this.#seen, next - RECORDS);
    this.#seen = next;
    return Array.from({ length: next - first }, (_, i) => {
      const record = this.#records.get((first + i) % RECORDS);
      if (!record) throw new Error('a record is missing');
      return this.#dropOf(new DataView(record.slice().buffer));
    });
  }

  #dropOf(record: DataView): Drop {
    const reason = record.getUint32(REASON, true);
    return {
      namespace: this.#names.get(record.getUint32(NAMESPACE, true)) ?? '',
      ifindex: record.getUint32(IFINDEX, true),
      // All of them begin alike.
      reason: this.#btf.nameOf('skb_drop_reason', reason)?.replace('SKB_DROP_REASON_', '') ?? String(reason),
      location: symbolOf(record.getBigUint64(LOCATION, true)),
      packet: Buffer.from(record.buffer, PACKET, PACKET_BYTES).toString('hex'),
    };
  }

  close(): void {
    for (const fd of this.#fds.reverse()) native.close(fd);
    for (const map of [this.#next, this.#records, this.#namespaces]) map.close();
  }
}

/** The arguments of the tracepoint: struct sk_buff *, void *location, enum skb_drop_reason (include/trace/events/skb.h). */
function program(btf: Btf, next: number, records: number, namespaces: number): Line[] {
  const [R0, R1, R2, R3, CONTEXT, SKB, RECORD, DEVICE] = [0, 1, 2, 3, 6, 7, 8, 9];
  const [KEY, POINTER, SCRATCH] = [-4, -16, -24];
  const read = (to: Line[], size: number, from: number, offset: number): Line[] => [
    ...to,
    bpf.set(R2, size),
    bpf.copy(R3, from),
    bpf.add(R3, offset),
    bpf.call(PROBE_READ_KERNEL),
  ];
  const onStack = (at: number): Line[] => [bpf.copy(R1, bpf.STACK), bpf.add(R1, at)];
  const inRecord = (at: number): Line[] => [bpf.copy(R1, RECORD), bpf.add(R1, at)];
  const lookup = (map: number): Line[] => [
    ...bpf.loadMap(R1, map),
    bpf.copy(R2, bpf.STACK),
    bpf.add(R2, KEY),
    bpf.call(bpf.MAP_LOOKUP),
    bpf.jumpIfEqual(R0, 0, 'out'),
  ];
  return [
    bpf.copy(CONTEXT, R1),
    bpf.loadDouble(SKB, CONTEXT, 0),
    bpf.storeDouble(bpf.STACK, -8, 0),
    // The namespace of the device, or else of the socket.
    ...read(onStack(POINTER), 8, SKB, btf.offset('sk_buff', 'dev')),
    bpf.loadDouble(DEVICE, bpf.STACK, POINTER),
    bpf.jumpIfEqual(DEVICE, 0, 'socket'),
    ...read(onStack(POINTER), 8, DEVICE, btf.offset('net_device', 'nd_net')),
    bpf.jump('namespace'),
    { label: 'socket' },
    ...read(onStack(POINTER), 8, SKB, btf.offset('sk_buff', 'sk')),
    bpf.loadDouble(R3, bpf.STACK, POINTER),
    ...read(onStack(POINTER), 8, R3, btf.offset('sock', '__sk_common', 'skc_net')),
    { label: 'namespace' },
    bpf.loadDouble(R3, bpf.STACK, POINTER),
    ...read(onStack(KEY), 4, R3, btf.offset('net', 'ns', 'inum')),
    ...lookup(namespaces),
    bpf.loadWord(R1, bpf.STACK, KEY),
    bpf.storeDoubleFrom(bpf.STACK, SCRATCH, R1),
    // The next record is ours.
    bpf.storeDouble(bpf.STACK, -8, 0),
    ...lookup(next),
    bpf.set(R1, 1),
    [0xdb, R0, R1, 0, BPF_FETCH] satisfies Instruction,
    bpf.and32(R1, RECORDS - 1),
    bpf.storeWord(bpf.STACK, KEY, R1),
    ...lookup(records),
    bpf.copy(RECORD, R0),
    bpf.loadDouble(R1, CONTEXT, 8),
    bpf.storeDoubleFrom(RECORD, LOCATION, R1),
    bpf.loadDouble(R1, CONTEXT, 16),
    bpf.storeDoubleFrom(RECORD, REASON, R1),
    bpf.loadDouble(R1, bpf.STACK, SCRATCH),
    bpf.storeWord(RECORD, NAMESPACE, R1),
    ...read(inRecord(IFINDEX), 4, DEVICE, btf.offset('net_device', 'ifindex')),
    ...read(onStack(POINTER), 8, SKB, btf.offset('sk_buff', 'head')),
    ...read(onStack(KEY), 2, SKB, btf.offset('sk_buff', 'network_header')),
    bpf.loadDouble(R3, bpf.STACK, POINTER),
    bpf.loadHalf(R1, bpf.STACK, KEY),
    bpf.addRegister(R3, R1),
    ...read(inRecord(PACKET), PACKET_BYTES, R3, 0),
    { label: 'out' },
    bpf.set(R0, 0),
    bpf.exit,
  ];
}

let symbols: { at: bigint; name: string }[] | undefined;

function symbolOf(address: bigint): string {
  symbols ??= readFileSync('/proc/kallsyms', 'latin1')
    .split('\n')
    .map((line) => ({ at: BigInt(`0x${line.slice(0, 16) || 0}`), name: line.slice(19).split('\t')[0] ?? '' }))
    .sort((a, b) => Number(a.at - b.at));
  const found = symbols.findLast(({ at }) => at <= address);
  return `${found?.name}+0x${(address - (found?.at ?? 0n)).toString(16)}`;
}

function text(string: string): Uint8Array {
  return new TextEncoder().encode(`${string}\0`);
}

function encode(instructions: readonly Instruction[]): Uint8Array {
  const bytes = Buffer.alloc(instructions.length * 8);
  for (const [i, [code, destination, source, offset, immediate]] of instructions.entries()) {
    bytes.writeUInt8(code, i * 8);
    bytes.writeUInt8((source << 4) | destination, i * 8 + 1);
    bytes.writeInt16LE(offset, i * 8 + 2);
    bytes.writeInt32LE(immediate, i * 8 + 4);
  }
  return bytes;
}
