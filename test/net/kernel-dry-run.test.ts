/** What `up --dry-run` prints is what the daemon does: run by a shell in a namespace just like the daemon's, it leaves the same network. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { withoutCatchAllRoute, withoutCatchAllRules } from './catch-all.ts';
import { KernelVms } from './kernel-vms.ts';
import { missing, skip } from './require.ts';

describe.skipIf(skip('kernel dry run', await missing('ping', 'tc', 'bridge', 'sysctl')))('kernel dry run', () => {
  let vms: KernelVms;

  beforeAll(async () => {
    vms = await KernelVms.open('a', 'b');
    await vms.lab.ip(undefined, [
      'netns add shell',
      'link add port-shell type veth peer name eth0 netns shell',
      'link set port-shell up',
    ]);
    await vms.lab.ip('shell', [
      'link set lo up',
      'address add 192.168.16.32/16 dev eth0',
      'link set eth0 addrgenmode none up',
    ]);
  });
  afterEach(async () => {
    await vms.reset('a');
    await vms.lab.run('shell', [
      'sh',
      '-c',
      'ip link del inlay0; ip route flush proto 73; ip route flush proto 75; ip rule flush protocol 75',
    ]);
  });
  afterAll(() => vms?.close());

  const dryRun = async (...flags: string[]) => {
    const output = await vms.lab.must('shell', [...vms.words('a', ...flags), '--dry-run']);
    // A shell takes all of it; the rest is comments.
    await vms.lab.must('shell', ['sh', '-e'], output);
    return output;
  };
  const shown = async (where: string, ...words: string[]) =>
    JSON.parse((await vms.lab.must(where, ['ip', '-d', '-j', ...words])) || '[]') as Record<string, unknown>[];
  const sysctls = async (where: string) =>
    (
      await vms.lab.must(where, [
        'sh',
        '-c',
        'grep -r . /proc/sys/net/ipv4/conf/inlay0 /proc/sys/net/ipv4/neigh/inlay0 | sort',
      ])
    ).split('\n');
  const routes = async (where: string) =>
    (await shown(where, 'route', 'show', 'table', 'all')).filter(
      ({ protocol, dev }) => protocol === '73' || protocol === '75' || dev === 'inlay0',
    );

  test.each([
    [[]],
    [['--key', '7', '--ttl', 'inherit', '--dscp', '46', '--path-mtu-discovery', 'off', '--underlay-mtu', '1400']],
    [['--overlay', '240.0.0.0/4', '--underlay', '192.168.0.0/17']],
  ])('dataplane kernel, %j', async (flags) => {
    await vms.up('a', ...flags);
    await dryRun(...flags);
    const network = async (where: string) => ({
      link: (await shown(where, 'link', 'show', 'dev', 'inlay0')).map(({ ifindex: _, ...rest }) => rest),
      addresses: (await shown(where, 'address', 'show', 'dev', 'inlay0')).map(({ addr_info }) => addr_info),
      routes: await routes(where),
      rules: await shown(where, 'rule'),
      sysctls: await sysctls(where),
    });
    expect(await network('shell')).toEqual(await network('a'));
    const { routes: made, rules } = await network('shell');
    const overlay = /^--overlay,([^,]+)/.exec(flags.join())?.[1];
    withoutCatchAllRoute(made, overlay);
    withoutCatchAllRules(rules, overlay);
  });

  test('dataplane kernel: what is said about a remote VM is what its first packet makes', async () => {
    await vms.up('a');
    await vms.up('b');
    const output = await dryRun();
    const about = output.split('\n').flatMap((line) => /^# {3}(.*)$/.exec(line)?.[1] ?? []);
    expect(about).toHaveLength(3);
    expect(output).toContain('for the VM 192.168.16.33,');
    await vms.lab.must('shell', ['sh', '-e'], about.join('\n'));
    expect(await vms.pings('a', vms.overlay('b'), 1)).toBe('1');
    expect(await vms.entries('shell')).toEqual(await vms.entries('a'));
    expect(await vms.entries('a')).toEqual(vms.entriesOf('a', 'b'));
    expect(await routes('shell')).toEqual(await routes('a'));
    await vms.reset('b');
  });

  test('dataplane wasm', async () => {
    await vms.up('a', '--dataplane', 'wasm');
    const output = await dryRun('--dataplane', 'wasm');
    const printed = [...output.matchAll(/^sysctl -qw (\S+)=(\S+)$/gm)];
    expect(printed.length).toBeGreaterThan(0);
    // What is about gre0 is no error where the module ip_gre is not loaded.
    expect(output.split('\n').filter((line) => line.includes('gre0'))).toEqual([
      'sysctl -e -qw net/ipv4/conf/gre0/rp_filter=1',
      'sysctl -e -qw net/ipv4/conf/gre0/forwarding=0',
      'ip link set dev gre0 up 2>/dev/null || true',
      'sysctl -e -qw net/ipv6/conf/gre0/disable_ipv6=1',
    ]);
    for (const where of ['shell', 'a']) {
      for (const [, name, value] of printed)
        expect([where, name, await vms.lab.must(where, ['cat', `/proc/sys/${name}`])]).toEqual([
          where,
          name,
          `${value}\n`,
        ]);
    }
    const network = async (where: string) => ({
      link: (await shown(where, 'link', 'show', 'dev', 'inlay0')).map(
        ({ ifalias, mtu, txqlen, linkinfo, gso_max_segs, gso_max_size, inet6_addr_gen_mode }) => ({
          ...{ ifalias, mtu, txqlen, gso_max_segs, gso_max_size, inet6_addr_gen_mode },
          type: (linkinfo as { info_data: Record<string, unknown> }).info_data['type'],
          vnet: (linkinfo as { info_data: Record<string, unknown> }).info_data['vnet_hdr'],
        }),
      ),
      addresses: (await shown(where, 'address', 'show', 'dev', 'inlay0')).map(({ addr_info }) => addr_info),
      // Nobody reads from the shell's device, which has no carrier therefore, and no IPv6.
      routes: (await routes(where)).filter(({ dst }) => dst !== 'ff00::/8').map(({ flags: _, ...rest }) => rest),
    });
    expect(await network('shell')).toEqual(await network('a'));
  });

  test('it changes nothing, needs no rights, and works beside the daemon', async () => {
    await vms.up('a');
    const before = await vms.network('a');
    const asUser = [
      'setpriv',
      '--reuid=65534',
      '--regid=65534',
      '--clear-groups',
      '--bounding-set=-all',
      '--inh-caps=-all',
    ];
    const { code, stdout, stderr } = await vms.lab.run('a', [...asUser, ...vms.words('a'), '--dry-run']);
    expect([code, stderr]).toEqual([0, '']);
    expect(stdout).toMatch(
      /^ip route add unreachable 10\.0\.0\.0\/8 proto 75 metric 1\nip rule add .*\nip rule add .*\nip link add name inlay0 address 02:00:c0:a8:10:20 type vxlan id 1 local 192\.168\.16\.32 dstport 4789 /,
    );
    expect(await vms.network('a')).toEqual(before);
  });
});
