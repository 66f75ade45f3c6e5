/** `inlay demo` with every core, engine and plan: all pairs reachable, no first packet lost. */
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { describe, expect, test } from 'vitest';
import type { DemoResult } from '../../src/demo/demo.ts';
import { Lab } from '../../src/demo/lab.ts';
import { CLI } from './mesh.ts';
import { missing, notRoot, rawSocketMissing, skip } from './require.ts';

const run = promisify(execFile);

const cases: { flags: string[]; vms?: number; containers?: number; expected: Partial<DemoResult> }[] = [
  { flags: [], expected: { core: 'wasm', engine: 'linux', encapsulation: 'gre', mtu: 1476 } },
  { flags: ['--core', 'typescript'], expected: { core: 'typescript', engine: 'linux' } },
  { flags: ['--engine', 'portable'], expected: { core: 'wasm', engine: 'portable' } },
  {
    flags: ['--engine', 'portable', '--core', 'typescript', '--key', '0'],
    expected: { engine: 'portable', mtu: 1472 },
  },
  { flags: ['--key', '4294967295'], expected: { mtu: 1472 } },
  { flags: ['--encapsulation', 'gre-udp'], expected: { encapsulation: 'gre-udp', mtu: 1468 } },
  { flags: ['--encapsulation', 'gre-udp', '--core', 'typescript', '--key', '1'], expected: { mtu: 1464 } },
  { flags: ['--encapsulation', 'gre-udp', '--engine', 'portable'], expected: { engine: 'portable', mtu: 1468 } },
  { flags: ['--encapsulation', 'gre-udp', '--engine', 'portable', '--core', 'typescript'], expected: { mtu: 1468 } },
  { flags: ['--encapsulation', 'gre-udp', '--queues', '3'], expected: { encapsulation: 'gre-udp' } },
  { flags: ['--queues', '2', '--key', '9'], expected: { mtu: 1472 } },
  { flags: ['--gre-segmentation', 'kernel'], expected: { encapsulation: 'gre' } },
  { flags: ['--gre-segmentation', 'kernel', '--core', 'typescript', '--key', '5'], expected: { mtu: 1472 } },
  { flags: ['--overlay', '240.0.0.0/4'], expected: { overlay: '240.0.0.0/4' } },
  { flags: ['--overlay', '240.0.0.0/4', '--underlay', '192.168.0.0/17'], expected: { underlay: '192.168.0.0/17' } },
  { flags: ['--underlay', '172.16.8.0/21'], vms: 2, containers: 1, expected: { underlay: '172.16.8.0/21' } },
  { flags: [], vms: 8, containers: 4, expected: {} },
];

describe.skipIf(skip('demo', await missing('ping')))('demo', () => {
  const noRawSocket = rawSocketMissing();
  for (const { flags, vms = 3, containers = 2, expected } of cases) {
    const words = [...flags, '--vms', String(vms), '--containers', String(containers)];
    const skipped = flags.includes('portable') && skip(`demo ${flags.join(' ')}`, noRawSocket);
    test.skipIf(skipped)(words.join(' '), { timeout: 120_000 }, async () => {
      const { stdout } = await run(process.execPath, [CLI, 'demo', '--json', ...words]);
      const result = JSON.parse(stdout) as DemoResult;
      const count = vms * containers;
      expect(result).toMatchObject({ pairs: count * (count - 1), reachable: count * (count - 1) });
      expect(result).toMatchObject({ firstPackets: vms * (vms - 1), firstPacketsLost: 0, ...expected });
      expect(result.results.filter((r) => r.received !== r.sent)).toEqual([]);
      // Every VM has one tunnel to every other, and to nobody else.
      expect(result.tunnels.length).toBe(vms * (vms - 1));
    });
  }
});

/** Runs the demo as an ordinary user, in a lab whose /dev/net/tun has this mode. */
async function asUser(mode: string) {
  const lab = await Lab.open();
  try {
    const device = `mount -t tmpfs tmpfs /dev/net && mknod -m ${mode} /dev/net/tun c 10 200`;
    const user = 'setpriv --reuid 65534 --regid 65534 --clear-groups env HOME=/';
    const demo = `exec ${user} "$0" "$1" demo --vms 2 --containers 1 --json`;
    return await lab.run(undefined, ['sh', '-c', `${device} && ${demo}`, process.execPath, CLI]);
  } finally {
    await lab.close();
  }
}

describe.skipIf(skip('demo as an ordinary user', (await missing('ping', 'setpriv')) ?? notRoot))(
  'as an ordinary user',
  () => {
    test('it works in a user namespace where /dev/net/tun can be opened', async () => {
      const { code, stdout, stderr } = await asUser('666');
      expect([code, stderr]).toEqual([0, expect.any(String)]);
      expect(JSON.parse(stdout)).toMatchObject({ pairs: 2, reachable: 2, firstPacketsLost: 0 });
    });

    test('where it cannot, it says what to do and exits with 77', async () => {
      const { code, stdout, stderr } = await asUser('600');
      expect([code, stdout]).toEqual([77, '']);
      expect(stderr).toContain('/dev/net/tun cannot be opened: EACCES\nhint: sudo chmod 666 /dev/net/tun && sudo ');
    });
  },
);
