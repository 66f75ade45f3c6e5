/** Which of the VMs that were never heard from lose their entries early. */
import { describe, expect, test } from 'vitest';
import { Unheard } from '../../src/dataplane/kernel/unheard.ts';

const FEW = 256;
const PATIENCE = 4000;
const numbers = (from: number, count: number) => Array.from({ length: count }, (_, i) => from + i);

function unheard(...heard: number[]) {
  const asked: number[] = [];
  const vms = new Unheard((vm) => {
    asked.push(vm);
    return heard.includes(vm);
  });
  return { vms, asked };
}

describe('VMs never heard from', () => {
  test('a few stay, however old', () => {
    const { vms, asked } = unheard();
    for (const vm of numbers(1, FEW)) vms.add(vm, 0);
    expect([vms.take(1e9), asked]).toEqual([[], []]);
  });

  test('of more, the oldest go when they had their time, until few are left', () => {
    const { vms } = unheard();
    for (const vm of numbers(1, FEW + 3)) vms.add(vm, vm);
    expect(vms.take(PATIENCE)).toEqual([]);
    expect(vms.take(PATIENCE + 1)).toEqual([1]);
    expect(vms.take(1e9)).toEqual([2, 3]);
    expect(vms.take(1e9)).toEqual([]);
  });

  test('those that were heard stay, and do not count any more', () => {
    const { vms, asked } = unheard(1, 3);
    for (const vm of numbers(1, FEW + 3)) vms.add(vm, 0);
    expect(vms.take(PATIENCE)).toEqual([2]);
    expect(asked).toEqual([1, 2, 3]);
    expect(vms.take(1e9)).toEqual([]);
  });

  test('one whose entries have gone, and one that came again, has its time again', () => {
    const { vms } = unheard();
    for (const vm of numbers(1, FEW + 2)) vms.add(vm, 0);
    vms.delete(1);
    vms.add(1, PATIENCE);
    expect(vms.take(PATIENCE)).toEqual([2, 3]);
    vms.add(FEW + 3, PATIENCE);
    expect(vms.take(PATIENCE)).toEqual([4]);
  });
});
