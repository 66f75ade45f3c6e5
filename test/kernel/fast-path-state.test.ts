/** What the daemon tells the programs of the fast path, as the kernel's maps have it. */
import { describe, expect, test } from 'vitest';
import { FastPathState, VM_INBOUND_FRESH, VM_OUTBOUND_FRESH, VM_SIZE } from '../../src/dataplane/fast-path/state.ts';
import * as native from '../../src/linux/native.ts';
import { type Address, type Prefix, parseAddress, parsePrefix } from '../../src/mesh/address.ts';
import { Mapping } from '../../src/mesh/mapping.ts';
import { why } from '../fast-path/twin.mjs';
import { skip } from '../net/require.ts';

const VMS = 2 ** 16;
const WORDS = VM_SIZE / 4;
const FRESH = [VM_OUTBOUND_FRESH, VM_INBOUND_FRESH];
/** Every so many VMs together. */
const STEP = 30;

describe.skipIf(skip('fast path: state', why()))('tunnels are renewed', () => {
  const mappings = [new Mapping(parsePrefix('10.0.0.0/8') as Prefix, parsePrefix('192.168.0.0/16') as Prefix)];

  /** Every word is 1 before; the numbers of VMs whose tunnels are renewed after `work`, and of other words that changed. */
  function renewed(work: (state: FastPathState) => void): { vms: number[]; others: number } {
    const state = new FastPathState(mappings, parseAddress('192.168.16.32') as Address);
    const view = native.mapped(state.fds.vms, VMS * VM_SIZE, 'the VMs of a test', true);
    try {
      const words = new Uint32Array(view.bytes).fill(1);
      work(state);
      const isRenewed = (vm: number) => FRESH.every((offset) => words[vm * WORDS + offset / 4] === 0);
      const vms = Array.from({ length: VMS }, (_, vm) => vm).filter(isRenewed);
      return { vms, others: words.filter((word) => word !== 1).length - FRESH.length * vms.length };
    } finally {
      view.unmap();
      state.close();
    }
  }

  test('one', () => {
    const found = renewed((state) => state.renew(0xc0a81021));
    expect(found).toEqual({ vms: [0x1021], others: 0 });
  });

  test('none, of a VM that the mapping does not have', () => {
    expect(renewed((state) => state.renew(0x0a000001))).toEqual({ vms: [], others: 0 });
  });

  test('each once, in turns', () => {
    const turns = Array.from({ length: STEP }, (_, turn) => renewed((state) => state.renewEvery(STEP, turn)));
    expect(turns.map(({ others }) => others)).toEqual(turns.map(() => 0));
    expect(Math.max(...turns.map(({ vms }) => vms.length))).toBe(Math.ceil(VMS / STEP));
    const all = turns.flatMap(({ vms }) => vms).sort((a, b) => a - b);
    expect(all).toEqual(Array.from({ length: VMS }, (_, vm) => vm));
  });
});
