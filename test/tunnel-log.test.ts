/** However many tunnels come, go and change: the log stays short. */
import { pino } from 'pino';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { TunnelLog } from '../src/daemon/tunnel-log.ts';
import type { Learnt } from '../src/dataplane/dataplane.ts';
import type { TunnelChange } from '../src/observe/tunnel-watch.ts';

/** 192.168.0.0 */
const FIRST = 0xc0a80000;
const VMS = Array.from({ length: 65_536 }, (_, i) => FIRST + i);
const MINUTE = 60_000;

let lines: Record<string, unknown>[];
let open: number | undefined;

function logOf(level: string): TunnelLog {
  const log = pino(
    { level, base: null, timestamp: false },
    { write: (line: string) => void lines.push(JSON.parse(line)) },
  );
  return new TunnelLog({ log, overhead: 24, encapsulation: 'gre', mtu: () => 1476, count: async () => open });
}

/** What the watch says of a VM that ICMP says to be unreachable. */
const unreachable = (vm: number): TunnelChange => {
  return { vm, state: 'unreachable', why: 1, open: 0, unanswered: { packets: 1, since: 0 } };
};

beforeEach(() => {
  lines = [];
  open = 0;
  vi.useFakeTimers();
});
afterEach(() => vi.useRealTimers());

describe('TunnelLog', () => {
  test('sums up once a minute, if something changed', async () => {
    const log = logOf('info');
    log.changed('opened', VMS);
    log.changed('closed', VMS.slice(0, 12));
    open = VMS.length - 12;
    expect(lines).toEqual([]);
    await vi.advanceTimersByTimeAsync(10 * MINUTE);
    const msg = 'tunnels: 65524 open, 65536 opened, 12 closed in the last minute';
    expect(lines).toEqual([{ level: 30, open, opened: 65_536, closed: 12, msg }]);
    log.changed('closed', [FIRST]);
    await vi.advanceTimersByTimeAsync(MINUTE);
    expect(lines[1]).toMatchObject({ opened: 0, closed: 1 });
  });

  test('says nothing when nothing forwards any more', async () => {
    const log = logOf('info');
    log.changed('closed', VMS);
    open = undefined;
    await vi.advanceTimersByTimeAsync(MINUTE);
    expect(lines).toEqual([]);
    log.changed('opened', VMS);
    log.close();
    expect(vi.getTimerCount()).toBe(0);
  });

  test.each(['info', 'debug'])(
    'a scan of 65,536 VMs, all unreachable, is less than 200 lines: level %s',
    async (level) => {
      const log = logOf(level);
      for (const vm of VMS) {
        log.changed('opened', [vm]);
        log.learnt([{ vm, pathMtu: 1400 }], () => undefined);
        log.answers([unreachable(vm)]);
        log.changed('closed', [vm]);
      }
      await vi.advanceTimersByTimeAsync(MINUTE);
      expect(lines.length).toBeGreaterThan(5);
      expect(lines.length).toBeLessThan(200);
      const told = lines.filter(({ msg }) => msg === 'VM unreachable').length;
      expect(lines).toContainEqual(expect.objectContaining({ kind: 'VM unreachable', leftOut: VMS.length - told }));
    },
  );

  test('one VM that changes again and again does not hide the others', async () => {
    const log = logOf('info');
    for (let i = 0; i < 100; i++) log.answers([unreachable(FIRST)]);
    log.answers([unreachable(FIRST + 1)]);
    expect(lines.map(({ vm }) => vm)).toEqual(['192.168.0.0', '192.168.0.1']);
    await vi.advanceTimersByTimeAsync(MINUTE);
    log.learnt([{ vm: FIRST, pathMtu: 1400 }], () => 1400);
    log.learnt([{ vm: FIRST, pathMtu: 1400 }], () => undefined);
    expect(lines.slice(2)).toMatchObject([{ vm: '192.168.0.0', mtu: 1376, msg: 'path of the tunnel changed' }]);
  });

  test.each<[string, Learnt, number | undefined, boolean]>([
    ['a look that has seen it already hides nothing', { vm: FIRST, pathMtu: 1400, before: {} }, 1400, true],
    ['nor one that came when it was over', { vm: FIRST, before: { pathMtu: 1400 } }, undefined, true],
    ['an old look does not make it new', { vm: FIRST, pathMtu: 1400, before: { pathMtu: 1400 } }, 1300, false],
  ])('what was known before counts: %s', (_, learnt, atLook, isTold) => {
    logOf('info').learnt([learnt], () => atLook);
    expect(lines.map(({ msg }) => msg)).toEqual(isTold ? ['path of the tunnel changed'] : []);
  });

  test('ways that change at once are one line', () => {
    const log = logOf('info');
    const many = VMS.slice(0, 100);
    log.learnt(
      many.map((vm) => ({ vm, pathMtu: 1400 })),
      () => undefined,
    );
    log.learnt(
      many.map((vm) => ({ vm, unreachable: 1 })),
      () => undefined,
    );
    expect(lines).toMatchObject([
      { tunnels: 100, msg: 'paths of tunnels changed' },
      { tunnels: 100, unreachable: 100, msg: 'VMs unreachable' },
    ]);
  });

  test('the last line about a VM is what holds', () => {
    const log = logOf('info');
    const heard: TunnelChange = { ...unreachable(FIRST), state: 'heard', heard: 0 };
    const silent: TunnelChange = { ...unreachable(FIRST), state: 'silent', heard: 9000 };
    log.answers([silent]);
    log.answers([heard]);
    log.answers([silent]);
    log.answers([silent]);
    expect(lines.map(({ msg }) => msg)).toEqual(['VM silent', 'VM heard again', 'VM silent']);
  });
});
