/** Which pairs of containers the demo tests. */
import { describe, expect, test } from 'vitest';
import type { Container, Vm } from '../src/demo/mesh.ts';
import { pairsToTest } from '../src/demo/pairs.ts';

function vmsWith(vms: number, containers: number): Vm[] {
  return Array.from({ length: vms }, (_, i) => {
    const vm = { name: `vm${i}`, containers: [] as Container[] } as unknown as Vm;
    vm.containers = Array.from({ length: containers }, (_, n) => ({ name: `c${i}-${n}`, vm }) as Container);
    return vm;
  });
}

describe.each([
  { vms: 3, containers: 2, pairs: 30 },
  { vms: 1, containers: 1, pairs: 0 },
  { vms: 8, containers: 4, pairs: 992 },
  { vms: 3, containers: 200, pairs: 1800 },
  { vms: 1, containers: 1000, pairs: 2000 },
  { vms: 64, containers: 1000, pairs: 64_000 },
])('$vms VMs with $containers containers', ({ vms, containers, pairs }) => {
  const found = pairsToTest(vmsWith(vms, containers));
  const count = vms * containers;

  test(`${pairs} pairs, none of them twice, none with itself`, () => {
    expect(found.length).toBe(pairs);
    expect(new Set(found.map(([from, to]) => `${from.name} ${to.name}`)).size).toBe(pairs);
    expect(found.filter(([from, to]) => from === to)).toEqual([]);
  });

  test('each container is reached, and reaches one on another VM if there is one', () => {
    const isElsewhere = ([from, to]: readonly [Container, Container]) => vms === 1 || from.vm !== to.vm;
    const across = found.filter(isElsewhere);
    expect(new Set(across.map(([from]) => from)).size).toBe(pairs === 0 ? 0 : count);
    expect(new Set(across.map(([, to]) => to)).size).toBe(pairs === 0 ? 0 : count);
  });
});
