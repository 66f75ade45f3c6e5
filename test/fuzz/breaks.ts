/** Cores that do something wrong, and the proof that the fuzzer sees it and makes small what shows it: else a run that finds nothing would say nothing. */
import { expect } from 'vitest';
import { abi, type PacketCore } from '../../src/core/index.ts';
import { typescriptCore } from '../../src/core/typescript.ts';
import { Judge } from './judge.mjs';
import { minimise } from './minimise.mjs';
import { caseOf, replay, runRound } from './rounds.mjs';

/** A call of a core that handled at least one descriptor. */
interface Call {
  core: PacketCore;
  view: DataView;
  name: 'encapsulate' | 'decapsulate' | 'learn';
  /** The record of the first descriptor that it handled, and where that lies in memory. */
  descriptor: number;
  start: number;
  end: number;
  verdict: number;
}

/** A core that does something wrong before or after each such call. */
function broken({ prepare, spoil }: Break): PacketCore {
  const core = typescriptCore();
  const view = new DataView(core.memory);
  for (const name of ['encapsulate', 'decapsulate', 'learn'] as const) {
    const right = core[name].bind(core);
    core[name] = (first, count, now) => {
      const undo = prepare?.(view);
      const next = right(first, count, now);
      undo?.();
      if (first < 0 || first >= next) return next;
      const descriptor = abi.DESCRIPTORS + first * abi.DESCRIPTOR_SIZE;
      const start = view.getUint32(descriptor + abi.DESCRIPTOR_ADDRESS, true);
      const end = start + view.getUint32(descriptor + abi.DESCRIPTOR_LENGTH, true);
      spoil?.({ core, view, name, descriptor, start, end, verdict: core.verdict(first) });
      return next;
    };
  }
  return core;
}

/** The packet lies somewhere. */
const isSomewhere = ({ verdict, end }: Call) => verdict !== abi.DROP_BAD_DESCRIPTOR && end < abi.MEMORY_SIZE;

const decide = ({ view, descriptor }: Call) =>
  view.setInt32(descriptor + abi.DESCRIPTOR_VERDICT, abi.DROP_FRAGMENT, true);

/** Something that no core may do, after a call. */
interface Break {
  what: string;
  /** The twin does it too. */
  both?: boolean;
  /** How little shows it: batches, packets, and bytes in them that are not 0. */
  steps?: number;
  inputs?: number;
  bytes?: number;
  /** Before a call; what it returns undoes it afterwards. */
  prepare?: (view: DataView) => () => void;
  spoil?: (call: Call) => void;
}

/** Where the first piece of the first message is. */
const firstPiece = ({ view }: Call) =>
  view.getUint32(abi.IOVS, true) - view.getUint32(abi.CONFIG + abi.CONFIG_BASE, true);
/** Where the record of the tunnel to `vm` is; 0 if there is none. */
function tunnelOf(view: DataView, vm: number): number {
  const set = (Math.imul(vm, 0x9e3779b1) >>> (32 - abi.TUNNEL_SETS_LOG2)) * abi.TUNNEL_WAYS;
  for (let i = set; i < set + abi.TUNNEL_WAYS; i++) {
    if (vm !== 0 && view.getUint32(abi.TUNNEL_KEYS + 4 * i, true) === vm) return abi.TUNNELS + i * abi.TUNNEL_SIZE;
  }
  return 0;
}

/** Gives a word of the configuration another value until it is undone. */
function pretend(view: DataView, offset: number, change: (word: number) => number): () => void {
  const at = abi.CONFIG + offset;
  const word = view.getUint32(at, true);
  view.setUint32(at, change(word), true);
  return () => view.setUint32(at, word, true);
}

/** In SCRATCH, behind all that the core itself notes there. */
const NOTE = abi.SCRATCH + abi.SCRATCH_SIZE - 1;

export const BREAKS: readonly Break[] = [
  {
    what: 'flips a bit of what it forwards',
    bytes: 50,
    spoil: (call) => {
      const { core, verdict, view } = call;
      if (verdict !== abi.FORWARD || core.messages.count() === 0) return;
      const at = firstPiece(call) >>> 0;
      view.setUint8(at + 3, view.getUint8(at + 3) ^ 1);
    },
  },
  {
    what: 'reads the byte behind a packet',
    spoil: (call) => {
      if (isSomewhere(call) && call.view.getUint8(call.end) % 2 === 1) decide(call);
    },
  },
  {
    what: 'reads the byte before a packet',
    spoil: (call) => {
      if (isSomewhere(call) && call.view.getUint8(call.start - 1) % 2 === 1) decide(call);
    },
  },
  {
    what: 'writes the byte behind a packet',
    spoil: (call) => {
      if (isSomewhere(call)) call.view.setUint8(call.end, 0x55);
    },
  },
  {
    what: 'writes the byte behind a packet, as its twin does',
    both: true,
    spoil: (call) => {
      if (isSomewhere(call)) call.view.setUint8(call.end, 0x55);
    },
  },
  {
    what: 'writes into headroom that it does not need, as its twin does',
    both: true,
    spoil: (call) => {
      if (isSomewhere(call)) call.view.setUint8(call.start - 50, 0x55);
    },
  },
  {
    what: 'drops for another reason at a rare value',
    bytes: 2,
    spoil: (call) => {
      if (call.verdict !== abi.DROP_TRUNCATED || call.end <= call.start + 8) return;
      if (call.view.getUint8(call.start + 8) === 0xff) decide(call);
    },
  },
  {
    what: 'remembers the call before',
    steps: 2,
    inputs: 2,
    spoil: (call) => {
      if (call.name === 'decapsulate' && call.view.getUint8(NOTE) === 1) decide(call);
      call.view.setUint8(NOTE, call.name === 'encapsulate' ? 1 : 0);
    },
  },
  {
    what: 'counts one too many, as its twin does',
    both: true,
    spoil: ({ view }) => {
      const counter = abi.INBOUND_COUNTERS + abi.COUNTERS_RECEIVED;
      view.setFloat64(counter, view.getFloat64(counter, true) + 1, true);
    },
  },
  {
    what: 'changes a descriptor, as its twin does',
    both: true,
    spoil: ({ view, descriptor }) => view.setUint32(descriptor + abi.DESCRIPTOR_SIZE - 4, 1, true),
  },
  {
    what: 'changes a byte of what it drops, as its twin does',
    both: true,
    bytes: 1,
    spoil: (call) => {
      if (isSomewhere(call) && call.verdict < 0 && call.end > call.start) call.view.setUint8(call.end - 1, 0x55);
    },
  },
  {
    what: 'believes a quote that is not from it',
    steps: 2,
    inputs: 2,
    bytes: 90,
    spoil: (call) => {
      if (call.name !== 'learn' || call.verdict !== abi.DROP_FOREIGN_ICMP || call.end < call.start + 48) return;
      const tunnel = tunnelOf(call.view, call.view.getUint32(call.start + 44));
      if (tunnel !== 0) call.view.setUint16(tunnel + abi.TUNNEL_PATH_MTU, 576, true);
    },
  },
  {
    what: 'reads the byte behind a quote that it believes',
    steps: 2,
    inputs: 2,
    bytes: 90,
    spoil: (call) => {
      if (call.name !== 'learn' || call.verdict !== abi.FORWARD || !isSomewhere(call)) return;
      if (call.view.getUint8(call.end) % 2 === 1) decide(call);
    },
  },
  {
    what: 'puts a wrong offset into a fragment',
    bytes: 60,
    spoil: (call) => {
      // Where the limit is the least that there is, it need not be learnt first.
      if (call.view.getInt32(abi.CONFIG + abi.CONFIG_MTU, true) !== 68) return;
      if (call.name !== 'encapsulate' || call.core.messages.count() === 0) return;
      const inner = (firstPiece(call) >>> 0) + call.view.getUint32(abi.IOVS + abi.IOV_LENGTH, true) - 20;
      if (inner >= abi.SLOTS || call.view.getUint8(inner) !== 0x45 || call.view.getUint8(inner + 6) !== 0x20) return;
      call.view.setUint8(inner + 7, 1);
    },
  },
  {
    what: 'sends packets that are longer than the limit, as its twin does',
    both: true,
    bytes: 40,
    prepare: (view) => pretend(view, abi.CONFIG_MTU, (mtu) => mtu + 8),
  },
  {
    what: 'quotes the byte behind a packet, as its twin does',
    both: true,
    bytes: 40,
    spoil: ({ core, view, name, end }) => {
      if (name !== 'encapsulate' || core.messages.count(abi.REPLY_PORT) === 0) return;
      const iov = abi.IOVS + (abi.MESSAGES * abi.IOVS_PER_MESSAGE + 1) * abi.IOV_SIZE;
      const length = view.getUint32(iov + abi.IOV_LENGTH, true);
      const start = view.getUint32(iov, true) - view.getUint32(abi.CONFIG + abi.CONFIG_BASE, true);
      if (start >>> 0 !== end - length) return;
      view.setUint32(iov + abi.IOV_LENGTH, length + 1, true);
      const message = abi.MESSAGE_TABLE + abi.MESSAGES * abi.MESSAGE_SIZE + abi.MESSAGE_LENGTH;
      view.setUint32(message, view.getUint32(message, true) + 1, true);
    },
  },
  {
    what: 'goes on clamping when it is no longer to',
    steps: 2,
    bytes: 60,
    prepare: (view) =>
      pretend(view, abi.CONFIG_OPTIONS, (options) => {
        view.setUint8(NOTE, view.getUint8(NOTE) | (options & abi.OPTION_CLAMP_MSS));
        return options | view.getUint8(NOTE);
      }),
  },
  {
    what: 'counts ICMP messages as packets, as its twin does',
    both: true,
    spoil: ({ name, view }) => {
      if (name !== 'learn') return;
      for (const counter of [abi.COUNTERS_RECEIVED, abi.COUNTERS_FORWARDED]) {
        const at = abi.INBOUND_COUNTERS + counter;
        view.setFloat64(at, view.getFloat64(at, true) + 1, true);
      }
    },
  },
  { what: 'changes a tunnel', spoil: ({ view }) => view.setUint8(abi.TUNNELS + 1000 * abi.TUNNEL_SIZE, 1) },
  { what: 'writes far away in the slots', spoil: ({ view }) => view.setUint8(abi.MEMORY_SIZE - abi.SLOT_SIZE * 9, 1) },
  {
    what: 'throws',
    spoil: ({ verdict }) => {
      if (verdict === abi.DROP_TRUNCATED) throw new RangeError('outside the bounds of the DataView');
    },
  },
];

/** The fuzzer finds this, and leaves no more than the break itself says. */
export function expectFound(each: Break): void {
  const { both, steps = 1, inputs = 1, bytes = 0 } = each;
  const pair = (careful: boolean) => new Judge(both ? broken(each) : typescriptCore(), broken(each), careful);
  const judge = pair(false);
  let seed = 0;
  while (seed < 20 && runRound(judge, ++seed).wrong === null);
  const careful = pair(true);
  const found = caseOf(judge, seed);
  const least = minimise(found, (candidate) => replay(careful, candidate));
  expect(least?.difference).toBeTruthy();
  const all = least?.steps.flatMap((step) => step.inputs) ?? [];
  expect({ steps: least?.steps.length, inputs: all.length }).toEqual({ steps, inputs });
  const left = all.flatMap((input) => [...Buffer.from(input.bytes ?? '', 'hex')]).filter((byte) => byte !== 0);
  expect(left.length).toBeLessThanOrEqual(bytes);

  // As it is written, it shows it again; and cores that are right, it does not blame.
  const written = JSON.parse(JSON.stringify(least));
  expect(replay(careful, written)).toBe(least?.difference);
  expect(replay(new Judge(typescriptCore(), typescriptCore(), true), written)).toBeNull();
}
