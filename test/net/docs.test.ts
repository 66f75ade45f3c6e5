/** The commands in the documents are typed as they are printed, on a VM whose daemon runs. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { blocksOf, DOCUMENTS } from '../documents.ts';
import { CLI, shellLine } from './mesh.ts';
import { missing, notRoot, skip } from './require.ts';
import { Vms } from './vms.ts';

const USER = '65534';
const needed = (await missing('ping', 'sysctl', 'iptables', 'setpriv')) ?? notRoot;

/** The units for systemd: what they start, and with which capabilities. */
const units = blocksOf('docs/operations.md')
  .filter(({ words }) => words[0] === 'ini')
  .map(({ text }) => ({
    flags: text.includes('--dataplane kernel') ? ['--dataplane', 'kernel', '--encapsulation', 'vxlan'] : [],
    groups: /^SupplementaryGroups=root$/m.test(text) ? '--groups=0' : '--clear-groups',
    capabilities: (/^AmbientCapabilities=(.*)$/m.exec(text)?.[1] ?? '').toLowerCase().replaceAll('cap_', '').split(' '),
  }));

const tested = DOCUMENTS.flatMap((file) => {
  return blocksOf(file)
    .filter(({ words }) => words.join(' ') === 'sh tested')
    .map(({ text }, i) => ({ name: `${file}, block ${i + 1}`, text }));
});

test('there are blocks to be run', () => {
  expect(tested.length).toBeGreaterThan(5);
});

describe.skipIf(skip('docs', needed))('on the VM 192.168.16.32', () => {
  let vms: Vms;
  beforeAll(async () => {
    vms = await Vms.of('wasm', 'a', 'b');
    // The command `inlay`, as an installation has it, and the run directory that it looks for without flags.
    const script = `#!/bin/sh\nexec ${shellLine([process.execPath, CLI])} "$@"\n`;
    const install = `mkdir /run/bin && cat >/run/bin/inlay && chmod +x /run/bin/inlay && ln -s ${vms.runDir('a')} /run/inlay`;
    await vms.lab.must(undefined, ['sh', '-c', install], script);
    await vms.up('a');
  });
  afterAll(() => vms?.close());

  test.each(tested)('$name', async ({ text }) => {
    const script = `export PATH=/run/bin:$PATH\nset -e\n${text}`;
    const { code, stdout, stderr } = await vms.lab.run('a', ['bash', '-c', script]);
    expect({ code, stderr: code === 0 ? '' : stderr, stdout: code === 0 ? '' : stdout }).toEqual({
      code: 0,
      stderr: '',
      stdout: '',
    });
  });

  test.each(units)('a user with $capabilities alone gets all of $flags', async ({ flags, groups, capabilities }) => {
    const [dir, user] = [vms.runDir('b'), USER];
    // The mode that udev gives the TUN driver's file; the run directory that systemd makes.
    const prepare = `mount -t tmpfs tmpfs /dev/net && mknod -m 666 /dev/net/tun c 10 200
      install -d -o ${user} -g ${user} ${dir}`;
    await vms.lab.must(undefined, ['sh', '-c', prepare]);
    const least = `-all,${capabilities.map((name) => `+${name}`).join(',')}`;
    const sets = ['--inh-caps', '--ambient-caps', '--bounding-set'].map((set) => `${set}=${least}`);
    const unit = ['setpriv', `--reuid=${user}`, `--regid=${user}`, groups, '--no-new-privs', ...sets];
    await vms.upAs(unit, 'b', ...flags);
    try {
      const { state, segmentation, segmentationObstacle, segmentSizes, sourceCheck } = await vms.status('b');
      expect(state).toBe('running');
      if (flags.length > 0) expect(sourceCheck).toBe('on');
      else {
        expect(segmentSizes).toBe('known');
        expect({ segmentation, segmentationObstacle }).toEqual({ segmentation: 'kernel' });
      }
    } finally {
      await vms.reset('b');
    }
  });
});
