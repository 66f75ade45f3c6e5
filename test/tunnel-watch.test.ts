/** What the watch says of tunnels, from looks at their counters; time is an argument. */
import { describe, expect, test } from 'vitest';
import type { Tunnel } from '../src/core/tunnels.ts';
import { type TunnelChange, TunnelWatch } from '../src/observe/tunnel-watch.ts';

const VM = 0xc0a81021;

/** A watch, what it told, and a look at one tunnel: packets sent and received so far, at so many seconds. */
function watched(obstacles: Record<number, string> = {}) {
  const changes: TunnelChange[] = [];
  const asked: number[] = [];
  const watch = new TunnelWatch({
    obstacle: (vm) => {
      asked.push(vm);
      return obstacles[vm];
    },
    onChanges: (found) => changes.push(...found),
  });
  const look = (at: number, sent: number, received: number, rest: Partial<Tunnel> & { uncounted?: string } = {}) => {
    const { uncounted, ...tunnel } = rest;
    watch.observe({ now: 1000 * at, tunnels: [tunnelOf(VM, at, sent, received, tunnel)], uncounted });
    return watch.of(VM, 1000 * at);
  };
  return { watch, changes, asked, look, told: () => changes.map(({ state }) => state) };
}

function tunnelOf(vm: number, at: number, sent: number, received: number, rest: Partial<Tunnel> = {}): Tunnel {
  const traffic = (packets: number) => ({ packets, bytes: 100 * packets });
  return { vm, lastUse: 1000 * at, outbound: traffic(sent), inbound: traffic(received), ...rest };
}

describe('states', () => {
  test('new, and heard with the first packet', () => {
    const { look, told } = watched();
    expect(look(1, 1, 0)).toMatchObject({ state: 'new', unanswered: { packets: 1, since: 0 } });
    expect(look(2, 1, 0)).toMatchObject({ state: 'new', unanswered: { packets: 1, since: 1000 } });
    expect(look(3, 2, 1)).toMatchObject({ state: 'heard', heard: 0, open: 2000, unanswered: { packets: 0, since: 0 } });
    expect(look(60, 2, 1, { lastUse: 3000 })).toMatchObject({ state: 'heard', heard: 57_000 });
    expect(told()).toEqual([]);
  });

  test.each([
    ['after a few packets and some seconds', [1, 3, 6], 5, 'silent'],
    ['not after fewer packets', [1, 2, 2], 60, 'new'],
    ['not before', [1, 50, 100], 4, 'new'],
  ])('silent %s', (_, sent, seconds, state) => {
    const { look } = watched();
    const [first, second, third] = sent as [number, number, number];
    look(0, first, 0);
    look(seconds / 2, second, 0);
    expect(look(seconds, third, 0)).toMatchObject({ state, unanswered: { packets: third, since: 1000 * seconds } });
  });

  test('silence counts from the first packet that was not answered, not from the last that came', () => {
    const { look } = watched();
    look(0, 10, 10);
    expect(look(600, 20, 10)).toMatchObject({ state: 'heard', heard: 600_000, unanswered: { packets: 10, since: 0 } });
    expect(look(605, 20, 10)).toMatchObject({ state: 'silent', heard: 605_000, unanswered: { since: 5000 } });
  });

  test('a tunnel that only takes packets is heard', () => {
    const { look } = watched();
    expect(look(1, 0, 5)).toMatchObject({ state: 'heard', unanswered: { packets: 0 } });
    expect(look(100, 0, 5)).toMatchObject({ state: 'heard' });
  });

  test('unreachable as long as the underlay says so, and until a packet that it says nothing about', () => {
    const { look } = watched();
    expect(look(1, 1, 0, { unreachable: 1 })).toMatchObject({ state: 'unreachable', why: 1 });
    expect(look(40, 1, 0)).toMatchObject({ state: 'unreachable', why: 1 });
    expect(look(41, 2, 0)).toMatchObject({ state: 'new' });
  });

  test('unknown where nothing is counted', () => {
    const { look } = watched();
    expect(look(1, 0, 0, { uncounted: 'CAP_BPF is missing' })).toMatchObject({
      state: 'unknown',
      why: 'CAP_BPF is missing',
    });
  });

  test('counters that go back are those of another tunnel', () => {
    const { look } = watched();
    look(1, 10, 10);
    expect(look(20, 1, 0)).toEqual({ state: 'new', open: 0, unanswered: { packets: 1, since: 0 } });
  });

  test('a tunnel that has gone is forgotten, and a look that comes too late is left out', () => {
    const { watch, look } = watched();
    look(5, 1, 1);
    look(4, 9, 9);
    expect(watch.of(VM, 5000)).toMatchObject({ state: 'heard', heard: 0 });
    watch.observe({ now: 6000, tunnels: [] });
    expect(watch.of(VM, 6000)).toBeUndefined();
    expect(watch.summary(6000)).toEqual({ heard: 0, silent: 0, unreachable: 0, new: 0, unknown: 0 });
  });
});

describe('this machine is asked why', () => {
  test('after some seconds without an answer, as long as there is none', () => {
    const { look, asked } = watched({ [VM]: 'no route to it (ENETUNREACH)' });
    look(0, 1, 0);
    look(3, 2, 0);
    expect(asked).toEqual([]);
    expect(look(4, 3, 0)).toMatchObject({ state: 'unreachable', why: 'no route to it (ENETUNREACH)' });
    expect(look(5, 3, 1)).toMatchObject({ state: 'heard' });
    expect(asked).toEqual([VM]);
  });

  test('where nothing is counted, about VMs that were sent to of late', () => {
    const obstacle = '192.168.16.33 does not answer ARP';
    const { look, asked } = watched({ [VM]: obstacle });
    const uncounted = 'CAP_BPF is missing';
    expect(look(0, 0, 0, { uncounted })).toMatchObject({ state: 'unknown' });
    expect(look(4, 0, 0, { uncounted })).toMatchObject({ state: 'unreachable', why: obstacle });
    expect(look(60, 0, 0, { uncounted, lastUse: 4000 })).toMatchObject({ state: 'unknown' });
    expect(asked).toEqual([VM]);
  });

  test('about so many at one look; they take turns', () => {
    const { watch, asked } = watched();
    const vms = Array.from({ length: 100 }, (_, i) => VM + i);
    for (const at of [0, 4, 5]) watch.observe({ now: 1000 * at, tunnels: vms.map((vm) => tunnelOf(vm, 0, 1, 0)) });
    expect(asked).toHaveLength(128);
    expect(new Set(asked).size).toBe(100);
  });
});

describe('what is told', () => {
  test('silence once, and that it is over', () => {
    const { look, told, changes } = watched();
    for (let at = 0; at <= 20; at++) look(at, at, 0);
    expect(told()).toEqual(['silent']);
    expect(changes[0]).toMatchObject({ vm: VM, unanswered: { packets: 6, since: 5000 } });
    look(21, 21, 1);
    look(22, 22, 2);
    expect(told()).toEqual(['silent', 'heard']);
    for (let at = 23; at <= 40; at++) look(at, at, 2);
    expect(told()).toEqual(['silent', 'heard', 'silent']);
  });

  test('what the underlay says again and again is told once', () => {
    const { look, told } = watched();
    for (let at = 0; at < 200; at++) look(at, at, 0, at % 20 < 10 ? { unreachable: 3 } : {});
    expect(told()).toEqual(['unreachable']);
    look(201, 200, 1);
    expect(told()).toEqual(['unreachable', 'heard']);
  });

  test('a VM that was silent and is unreachable, too', () => {
    const { look, told } = watched();
    for (let at = 0; at < 10; at++) look(at, at, 0);
    look(10, 10, 0, { unreachable: 1 });
    look(11, 12, 0);
    expect(told()).toEqual(['silent', 'unreachable']);
  });

  test('a VM that is said to be unreachable when it was just heard', () => {
    const { look, told } = watched();
    look(1, 1, 0, { unreachable: 3 });
    look(2, 2, 1, { unreachable: 3 });
    look(3, 3, 2);
    expect(told()).toEqual(['unreachable', 'heard']);
  });
});
