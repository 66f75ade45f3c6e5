/** The fuzzer sees what is wrong with a core, and makes small what shows it: else a run that finds nothing would say nothing. */
import { describe, expect, test } from 'vitest';
import { abi, type PacketCore, typescriptCore } from '../src/core/index.ts';
import { Judge } from './fuzz/judge.mjs';
import { minimise } from './fuzz/minimise.mjs';
import { caseOf, replay, runRound } from './fuzz/rounds.mjs';

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

/** A core that does something wrong after each such call. */
function broken(spoil: (call: Call) => void): PacketCore {
  const core = typescriptCore();
  const view = new DataView(core.memory);
  for (const name of ['encapsulate', 'decapsulate', 'learn'] as const) {
    const right = core[name].bind(core);
    core[name] = (first, count, now) => {
      const next = right(first, count, now);
      if (first < 0 || first >= next) return next;
      const descriptor = abi.DESCRIPTORS + first * abi.DESCRIPTOR_SIZE;
      const start = view.getUint32(descriptor + abi.DESCRIPTOR_ADDRESS, true);
      const end = start + view.getUint32(descriptor + abi.DESCRIPTOR_LENGTH, true);
      spoil({ core, view, name, descriptor, start, end, verdict: core.verdict(first) });
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
  spoil: (call: Call) => void;
}

/** Where the first piece of the first message is. */
const firstPiece = ({ view }: Call) =>
  view.getUint32(abi.IOVS, true) - view.getUint32(abi.CONFIG + abi.CONFIG_BASE, true);
/** In SCRATCH, behind all that the core itself notes there. */
const NOTE = abi.SCRATCH + abi.SCRATCH_SIZE - 1;

const BREAKS: Break[] = [
  {
    what: 'flips a bit of what it forwards',
    bytes: 50,
    spoil: (call) => {
      const { core, verdict, view } = call;
      if (verdict !== abi.FORWARD || core.messageCount() === 0) return;
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
  { what: 'changes a tunnel', spoil: ({ view }) => view.setUint8(abi.TUNNELS + 1000 * abi.TUNNEL_SIZE, 1) },
  { what: 'writes far away in the slots', spoil: ({ view }) => view.setUint8(abi.MEMORY_SIZE - abi.SLOT_SIZE * 9, 1) },
  {
    what: 'throws',
    spoil: ({ verdict }) => {
      if (verdict === abi.DROP_TRUNCATED) throw new RangeError('outside the bounds of the DataView');
    },
  },
];

describe.each(BREAKS)('a core that $what', ({ spoil, both, steps = 1, inputs = 1, bytes = 0 }) => {
  test('is found, and what shows it is small', { timeout: 300_000 }, () => {
    const pair = (careful: boolean) => new Judge(both ? broken(spoil) : typescriptCore(), broken(spoil), careful);
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
  });
});
