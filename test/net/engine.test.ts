/** Engines: the MTU changes while packets flow, and the counters outlive an engine that ends because its device is deleted. */
import { readlinkSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import { DROP_TOO_BIG } from '../../src/core/abi.ts';
import { Lab } from '../../src/demo/lab.ts';
import { missing, rawSocketMissing, skip } from './require.ts';

const SCRIPT = fileURLToPath(new URL('engine.mjs', import.meta.url));
const portableSkipped = skip('engines, portable', rawSocketMissing());
/** Engine and queues. */
const engines: [string, number][] = [
  ['linux', 1],
  ['linux', 3],
  ['portable', 1],
];

describe.skipIf(skip('engines', await missing('ping')))('engines', () => {
  for (const [engine, queues] of engines) {
    test.skipIf(engine === 'portable' && portableSkipped)(`${engine}, ${queues} queues`, async () => {
      const lab = await Lab.open();
      try {
        await lab.ip(undefined, [
          'link add eth0 type veth peer name cable',
          'link set eth0 up',
          'link set cable up',
          'address add 192.168.16.32/16 dev eth0',
        ]);
        const here = readlinkSync('/proc/self/ns/net');
        const words = ['timeout', '40', process.execPath, SCRIPT, engine, String(queues), here];
        const { failures, before, during, after, closed } = JSON.parse(await lab.must(undefined, words));
        expect(failures).toEqual([expect.stringContaining('EBADFD')]);
        const { outbound } = before;
        expect([outbound.received, outbound.forwarded, outbound.drops[-DROP_TOO_BIG], outbound.replies]).toEqual([
          ...[4, 3, 1, 1],
        ]);
        expect([before.tunnels, before.list]).toEqual([3, 3]);
        expect(during).toEqual(outbound);
        expect(after).toEqual({ ...before, tunnels: 0, list: 0 });
        expect(closed).toEqual(outbound);
      } finally {
        await lab.close();
      }
    });
  }
});
