/** What the log says about dropped packets: an example, what it means and what can be done, and no more lines than are good for it. */
import { pino } from 'pino';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { settings } from '../src/config/settings.ts';
import { abi, DROP_REASONS } from '../src/core/index.ts';
import { dropHint } from '../src/dataplane/drop-hints.ts';
import { DropLog, type DropSample } from '../src/dataplane/drop-log.ts';
import { refusalCause } from '../src/dataplane/refusal-causes.ts';

const SPOOFED: DropSample = {
  ...{ direction: 'inbound', verdict: abi.DROP_SPOOFED_SOURCE, packets: 3 },
  ...{ outerSource: 0xc0a81063, outerDestination: 0xc0a81021, innerSource: 0x0a10205b, innerDestination: 0x0a10215b },
  ...{ protocol: 1, length: 84 },
};

function open(level: string) {
  const lines: Record<string, unknown>[] = [];
  const log = pino(
    { level, base: null, timestamp: false, formatters: { level: (label) => ({ level: label }) } },
    { write: (line: string) => lines.push(JSON.parse(line)) },
  );
  return { lines, drops: new DropLog(log, 1000) };
}

describe('lines', () => {
  beforeEach(() => void vi.useFakeTimers());
  afterEach(() => void vi.useRealTimers());

  test('the first packet is one line, with its addresses, what it means and a hint', () => {
    const { lines, drops } = open('info');
    drops.add(SPOOFED);
    expect(lines).toEqual([
      {
        ...{ level: 'warn', packets: 3, direction: 'inbound', reason: 'spoofed-source' },
        ...{ outerSource: '192.168.16.99', outerDestination: '192.168.16.33' },
        ...{ innerSource: '10.16.32.91', innerDestination: '10.16.33.91', protocol: 1, length: 84 },
        meaning: 'inbound: the inner source does not live on the sending VM',
        hint: expect.stringMatching(/NAT.*MASQUERADE.*--local/),
        msg: 'packets dropped',
      },
    ]);
  });

  test('one line an interval with what came meanwhile, and none when nothing comes', () => {
    const { lines, drops } = open('info');
    for (let i = 0; i < 5000; i++) {
      drops.add({ ...SPOOFED, packets: 2 });
      vi.advanceTimersByTime(1);
    }
    vi.advanceTimersByTime(10_000);
    expect(lines.map(({ packets }) => packets)).toEqual([2, 1998, 2000, 2000, 2000, 2000]);
    // After that it is as if it were the first.
    drops.add(SPOOFED);
    expect(lines.length).toBe(7);
  });

  test('kinds do not hide each other: direction, reason, and why it was not written', () => {
    const { lines, drops } = open('info');
    const refused = { direction: 'outbound', verdict: abi.DROP_NOT_WRITTEN, packets: 1 } as const;
    for (let i = 0; i < 3; i++) {
      drops.add(SPOOFED);
      drops.add({ ...SPOOFED, verdict: abi.DROP_RESERVED_ADDRESS });
      drops.add({ ...SPOOFED, verdict: abi.DROP_RESERVED_ADDRESS, direction: 'outbound' });
      drops.add({ ...refused, refusal: { errno: 'EPERM', device: 'underlay' } });
      drops.add({ ...refused, refusal: { errno: 'EIO', device: 'underlay' } });
      drops.add({ ...refused, refusal: { errno: 'EIO', device: 'overlay' } });
    }
    expect(lines.length).toBe(6);
    expect(lines[3]).toMatchObject({ level: 'warn', errno: 'EPERM', device: 'underlay' });
    expect(lines[3]).toMatchObject({ cause: expect.stringMatching(/firewall.*OUTPUT/), hint: expect.any(String) });
    expect(lines[3]).not.toHaveProperty('code');
    expect(lines[5]).toMatchObject({ device: 'overlay', cause: 'the overlay device is down' });
  });

  test('what is dropped all the time is not said; the level debug says each example', () => {
    const routine = { ...SPOOFED, verdict: abi.DROP_NOT_IPV4 };
    const quiet = open('info');
    quiet.drops.add(routine);
    expect(quiet.lines).toEqual([]);
    const { lines, drops } = open('debug');
    for (let i = 0; i < 3; i++) drops.add(routine);
    drops.add(SPOOFED);
    expect(lines.map(({ level, reason, msg }) => `${level} ${reason} ${msg}`)).toEqual([
      ...Array(3).fill('debug not-ipv4 packet dropped'),
      'debug spoofed-source packet dropped',
      'warn spoofed-source packets dropped',
    ]);
  });
});

test('hints name settings that there are', () => {
  const names = ['EPERM', 'EMSGSIZE', 'EACCES', 'ENETUNREACH', 'EHOSTUNREACH', 'EINVAL', 'ENOBUFS', 'EAGAIN'];
  const causes = names.map((errno) => refusalCause('underlay', errno).hint);
  const hints = [...DROP_REASONS.map(({ verdict }) => dropHint(verdict)), ...causes].map((hint) => hint ?? '');
  const options = hints.join(' ').match(/--[a-z][a-z-]*/g) ?? [];
  expect(options).toContain('--underlay-mtu');
  for (const option of options) expect(Object.keys(settings)).toContain(option.slice(2));
});

test.each([
  ['ENETUNREACH', 0],
  ['EHOSTUNREACH', 1],
  ['EACCES', 13],
  ['ENETDOWN', 0],
  ['EINVAL', undefined],
  ['EPERM', undefined],
  ['EMSGSIZE', undefined],
  ['EAGAIN', undefined],
  ['EXYZ', undefined],
])('%s from the underlay is ICMP code %s, from the overlay device none', (errno, code) => {
  expect(refusalCause('underlay', errno).code).toBe(code);
  expect(refusalCause('overlay', errno).code).toBe(undefined);
  expect(refusalCause('underlay', errno).cause).not.toBe('');
});
