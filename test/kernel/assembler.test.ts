/** Labels: what a jump becomes, and the programs that are refused. */
import { describe, expect, test } from 'vitest';
import * as bpf from '../../src/linux/bpf/assembler.ts';
import * as classic from '../../src/linux/socket-filter.ts';
import { run } from './classic-bpf.ts';

describe('the assembler of eBPF', () => {
  const { set, exit } = bpf;
  const distances = (lines: readonly bpf.Line[]) => bpf.assemble(lines).map(([, , , offset]) => offset);

  test('a jump is as long as there are instructions between it and its label', () => {
    const lines = [
      { label: 'back' },
      bpf.jump('end'),
      bpf.jumpIfEqual(1, -5, 'next'),
      { label: 'next' },
      bpf.jumpUnlessSame32(2, 3, 'back'),
      ...bpf.loadMap(1, 9), // Two instructions.
      { label: 'end' },
      { label: 'also the end' },
      bpf.jump('also the end'),
      exit,
    ];
    expect(distances(lines)).toEqual([4, 0, -3, 0, 0, -1, 0]);
    expect(bpf.assemble(lines)[1]).toEqual([0x15, 1, 0, 0, -5]);
    expect(bpf.assemble(lines)[2]).toEqual([0x5e, 2, 3, -3, 0]);
  });

  test('a fresh label is like no other, whatever its name', () => {
    const block = () => {
      const end = Symbol('end');
      return [bpf.jumpIfEqual(1, 0, end), set(0, 1), { label: end }];
    };
    expect(distances([...block(), ...block(), bpf.jump('end'), { label: 'end' }, exit])).toEqual([1, 0, 1, 0, 0, 0]);
  });

  test('a label that is there twice, or not at all', () => {
    expect(() => bpf.assemble([{ label: 'one' }, exit, { label: 'one' }])).toThrow('label one is there twice');
    const fresh = Symbol('fresh');
    expect(() => bpf.assemble([{ label: fresh }, exit, { label: fresh }])).toThrow('label fresh is there twice');
    expect(() => bpf.assemble([bpf.jump(fresh), { label: Symbol('fresh') }, exit])).toThrow('no label fresh');
  });

  test('a jump is at most 16 bits long', () => {
    const many = (count: number) => new Array<bpf.Instruction>(count).fill(set(0, 0));
    const forward = (count: number) => distances([bpf.jump('far'), ...many(count), { label: 'far' }, exit])[0];
    const back = (count: number) => distances([{ label: 'far' }, ...many(count), bpf.jump('far')])[count];
    expect(forward(32767)).toBe(32767);
    expect(() => forward(32768)).toThrow('label far is 32768 instructions away: expected at most 32767');
    expect(back(32767)).toBe(-32768);
    expect(() => back(32768)).toThrow('label far is -32769 instructions away');
  });
});

describe('the assembler of socket filters', () => {
  const { assemble, jump, jumpIfAtLeast, jumpIfEqual, RETURN, LD_BYTE, JUMP } = classic;
  const pad = (count: number) => new Array<classic.Line>(count).fill([LD_BYTE, 0]);

  test('a comparison goes to its labels, or on', () => {
    const filter = assemble([
      [LD_BYTE, 0],
      jumpIfEqual(7, 'seven'),
      jumpIfAtLeast(100, 'large', 'small'),
      { label: 'seven' },
      [RETURN, 7],
      { label: 'small' },
      jumpIfEqual(3, undefined, 'end'),
      [RETURN, 3],
      { label: 'large' },
      jump('end'),
      [RETURN, 99],
      { label: 'end' },
      [RETURN, 1],
    ]);
    expect([7, 100, 255, 3, 4].map((byte) => run(filter, Uint8Array.of(byte)))).toEqual([7, 1, 1, 3, 1]);
  });

  test.each([
    { name: 'twice', lines: [{ label: 'a' }, { label: 'a' }], message: 'label a is there twice' },
    { name: 'missing', lines: [jumpIfEqual(1, undefined, 'a')], message: 'no label a' },
    { name: 'backwards', lines: [{ label: 'a' }, [LD_BYTE, 0] as const, jump('a')], message: 'label a is behind' },
    { name: 'to itself', lines: [{ label: 'a' }, jumpIfEqual(1, 'a')], message: 'label a is behind' },
    {
      name: 'too far',
      lines: [jumpIfEqual(1, 'a'), ...pad(256), { label: 'a' }],
      message: 'label a is 256 instructions away: expected at most 255',
    },
    { name: 'too far if not', lines: [jumpIfEqual(1, undefined, 'a'), ...pad(256), { label: 'a' }], message: '256' },
  ])('refused: $name', ({ lines, message }) => {
    expect(() => assemble(lines)).toThrow(message);
  });

  test('the longest', () => {
    const end = Symbol('end');
    expect(assemble([jumpIfEqual(1, end, end), ...pad(255), { label: end }])[0]).toEqual([0x15, 1, 255, 255]);
    expect(assemble([jump(end), ...pad(3000), { label: end }])[0]).toEqual([JUMP, 3000]);
  });
});
