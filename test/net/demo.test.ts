/** `inlay demo` with every core, engine, format and plan: all pairs that are tested reachable, no first packet lost. */
import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { promisify } from 'node:util';
import { describe, expect, test } from 'vitest';
import type { DemoResult } from '../../src/demo/demo.ts';
import { Lab } from '../../src/demo/lab.ts';
import { CLI } from './mesh.ts';
import { missing, notRoot, rawSocketMissing, skip } from './require.ts';

const run = promisify(execFile);

/** Any two values of core, engine, format, key and plan that go together meet in one of these. */
const cases: { flags: string[]; vms?: number; containers?: number; expected: Partial<DemoResult> }[] = [
  { flags: [], containers: 2, expected: { core: 'wasm', engine: 'linux', encapsulation: 'gre', mtu: 1476 } },
  {
    flags: ['--engine', 'portable', '--core', 'typescript', '--key', '0'],
    expected: { engine: 'portable', core: 'typescript', encapsulation: 'gre', mtu: 1472 },
  },
  {
    flags: ['--engine', 'portable', '--encapsulation', 'gre-udp'],
    expected: { engine: 'portable', core: 'wasm', encapsulation: 'gre-udp', mtu: 1468 },
  },
  {
    flags: ['--encapsulation', 'gre-udp', '--core', 'typescript', '--key', '1', '--queues', '3'],
    expected: { engine: 'linux', core: 'typescript', encapsulation: 'gre-udp', mtu: 1464 },
  },
  {
    flags: ['--gre-segmentation', 'kernel', '--queues', '2', '--key', '4294967295', '--overlay', '240.0.0.0/4'],
    expected: { engine: 'linux', core: 'wasm', encapsulation: 'gre', mtu: 1472, overlay: '240.0.0.0/4' },
  },
  { flags: ['--gre-segmentation', 'kernel', '--core', 'typescript'], expected: { core: 'typescript', mtu: 1476 } },
  {
    flags: [
      ...['--overlay', '240.0.0.0/4', '--underlay', '192.168.0.0/17'],
      ...['--engine', 'portable', '--core', 'typescript', '--encapsulation', 'gre-udp'],
    ],
    expected: { engine: 'portable', core: 'typescript', mtu: 1468, underlay: '192.168.0.0/17' },
  },
  {
    flags: ['--underlay', '172.16.8.0/21', '--engine', 'portable'],
    vms: 2,
    expected: { engine: 'portable', core: 'wasm', mtu: 1476, underlay: '172.16.8.0/21' },
  },
  { flags: ['--encapsulation', 'gre-udp'], vms: 6, containers: 3, expected: { core: 'wasm', mtu: 1468 } },
  // More pairs than are tested.
  { flags: ['--dataplane', 'kernel', '--encapsulation', 'vxlan'], containers: 20, expected: { tested: 1983 } },
];

/** Meshes that can have the fast path, with it and without it. */
const switched = cases.flatMap(({ flags, ...rest }) =>
  flags.includes('vxlan')
    ? [{ flags, ...rest }]
    : ['on', 'off'].map((to) => ({ flags: [...flags, '--fast-path', to], ...rest })),
);

describe.skipIf(skip('demo', await missing('ping')))('demo', () => {
  const noRawSocket = rawSocketMissing();
  for (const { flags, vms = 3, containers = 1, expected } of switched) {
    const words = [...flags, '--vms', String(vms), '--containers', String(containers)];
    const skipped = flags.includes('portable') && skip(`demo ${flags.join(' ')}`, noRawSocket);
    test.skipIf(skipped)(words.join(' '), { timeout: 120_000 }, async () => {
      const { stdout } = await run(process.execPath, [CLI, 'demo', '--json', ...words]);
      const result = JSON.parse(stdout) as DemoResult;
      const count = vms * containers;
      const pairs = count * (count - 1);
      expect(result).toMatchObject({ pairs, tested: pairs, ...expected });
      expect(result.reachable).toBe(result.tested);
      expect(result).toMatchObject({ firstPackets: vms * (vms - 1), firstPacketsLost: 0 });
      expect(result.results.filter((r) => r.received !== r.sent)).toEqual([]);
      const { state, taken, betweenVms, withinVms } = result.fastPath;
      const isOn = flags.join(' ').includes('--fast-path on');
      expect({ state, takes: taken > 0, takesWithin: withinVms > 0 }).toEqual({
        ...{ state: isOn ? 'on' : 'off', takes: isOn, takesWithin: isOn && containers > 1 },
      });
      expect(taken).toBeLessThanOrEqual(betweenVms);
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

describe.skipIf(skip('lab', notRoot))('lab', () => {
  test('a command that is stopped ends with the lab', async () => {
    const lab = await Lab.open();
    const child = lab.start(undefined, ['sh', '-c', 'kill -STOP $$'], { stdio: 'ignore' });
    const ended = once(child, 'exit');
    await expect.poll(() => readFileSync(`/proc/${child.pid}/stat`, 'utf8')).toContain(') T ');
    await lab.close();
    expect(await ended).toEqual([null, 'SIGKILL']);
  });
});
