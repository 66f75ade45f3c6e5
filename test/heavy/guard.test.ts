/** Containers' devices, whoever made them: safe as soon as their route is there, kept so, and as before after `down`. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Lab } from '../../src/demo/lab.ts';
import { missing, skip } from '../net/require.ts';
import { PATIENCE, type Plane } from '../net/vms.ts';
import { GuardedVms } from './guarded-vms.ts';

/** Remarks come every 5 s, or later on a busy machine. */
const LOOK = { ...PATIENCE, timeout: 60_000 };
const SAFE = '1 0 0 1 ';
const MANY = 300;
const reason = await missing('ping', 'tc');

describe.skipIf(skip('guard', reason)).each<Plane>(['wasm', 'kernel'])('guard, %s', (plane) => {
  let vms: GuardedVms;
  beforeAll(async () => {
    vms = await new GuardedVms(await Lab.open(), plane, ['a', 'b']).joined();
    await vms.attach('a', 'c1', 91);
    await vms.set('a', 'c1', { 'ipv4/rp_filter': 2, 'ipv4/accept_redirects': 1, 'ipv4/send_redirects': 0 });
    await vms.up('a');
    await vms.up('b');
  });
  afterAll(() => vms?.close());

  const isSafe = (device: string) =>
    expect.poll(() => vms.settings('a', device), PATIENCE).toEqual(expect.stringMatching(`^${SAFE}`));
  const repaired = async () => (await vms.status('a')).repaired;

  test('a device that is there is safe when the daemon is ready, and a later one soon', async () => {
    expect(await vms.settings('a', 'c1')).toMatch(new RegExp(`^${SAFE}`));
    await vms.attach('a', 'c2', 92);
    await isSafe('c2');
    expect(vms.noted('a')).toEqual([
      { device: 'c1', before: 'ipv4/accept_redirects=1 ipv4/rp_filter=2 ipv6/disable_ipv6=0' },
      { device: 'c2', before: expect.stringContaining('ipv4/rp_filter=0') },
    ]);
    expect(await repaired()).toBe(0);
    expect(await vms.pings('c1', vms.overlay('b'), 2)).toBe('2');
  });

  test.each(['ipv4/rp_filter', 'ipv4/accept_redirects', 'ipv4/send_redirects', 'ipv6/disable_ipv6'])(
    '%s that others change is right again',
    async (name) => {
      const before = await repaired();
      await vms.set('a', 'c1', { [name]: name.startsWith('ipv6') || name.endsWith('filter') ? 0 : 1 });
      await isSafe('c1');
      expect(await repaired()).toBeGreaterThan(before);
      // What was there before the first change stays noted.
      expect(vms.noted('a').find(({ device }) => device === 'c1')?.before).toContain('ipv4/rp_filter=2');
    },
  );

  test('what a new default brings to devices is right again', async () => {
    await vms.attach('a', 'c9', 99, 'link set c9 addrgenmode none');
    await isSafe('c9');
    await vms.set('a', 'default', { 'ipv4/rp_filter': 2, 'ipv4/accept_redirects': 0, 'ipv4/send_redirects': 0 });
    await vms.set('a', 'all', { 'ipv6/disable_ipv6': 0 });
    await isSafe('c1');
    await isSafe('c9');
    await vms.set('a', 'default', { 'ipv4/rp_filter': 0, 'ipv4/accept_redirects': 1, 'ipv4/send_redirects': 1 });
    await vms.ip('a', 'link del c9');
  });

  test('a router in a container leads nowhere, even if it speaks before the daemon hears of its device', async () => {
    await vms.lab.ip(undefined, ['netns add c3']);
    await vms.ip('a', 'link add c3 type veth peer name eth0 netns c3', 'link set c3 up');
    await vms.lab.ip('c3', ['link set eth0 up']);
    const advertise = () => vms.advertise('c3', 'eth0');
    const afterwards = async () => {
      await advertise();
      return await defaults();
    };
    const defaults = () => vms.lab.must('a', ['ip', '-6', 'route', 'show', 'default']);
    await expect.poll(afterwards, PATIENCE).toContain('c3');
    await vms.ip('a', `route add ${vms.container('a', 93)}/32 dev c3`);
    await isSafe('c3');
    expect(await defaults()).toBe('');
    expect(await afterwards()).toBe('');
    expect(await vms.lab.must('a', ['ip', '-6', 'address', 'show', 'dev', 'c3'])).toBe('');
  });

  test('a device with an IPv6 address of its own keeps IPv6, but believes no router, and status says so', async () => {
    await vms.lab.ip(undefined, ['netns add c4']);
    await vms.ip('a', 'link add c4 type veth peer name eth0 netns c4', 'link set c4 up');
    await vms.ip('a', 'address add 2001:db8:4::1/64 dev c4 nodad', `route add ${vms.container('a', 94)}/32 dev c4`);
    await expect.poll(() => vms.settings('a', 'c4'), PATIENCE).toBe('1 0 0 0 0 0');
    await expect.poll(() => vms.open('a'), LOOK).toContainEqual(expect.stringContaining('c4 has an IPv6 address'));
    await vms.ip('a', 'address del 2001:db8:4::1/64 dev c4');
    await isSafe('c4');
    await expect.poll(() => vms.open('a'), LOOK).toEqual([]);
  });

  test('a numbered bridge keeps its rp_filter, and status says what is open there', async () => {
    await vms.ip(
      'a',
      'link add br0 type bridge',
      'link set br0 up',
      `address add ${vms.container('a', 129)}/28 dev br0`,
    );
    await expect.poll(() => vms.settings('a', 'br0'), PATIENCE).toMatch(/^0 0 0 1 /);
    await expect
      .poll(() => vms.open('a'), LOOK)
      .toEqual([
        expect.stringMatching(/^containers on br0 can speak for each other/),
        expect.stringMatching(/^reverse path filtering is not strict on br0, /),
      ]);
    await vms.set('a', 'all', { 'ipv4/accept_local': 1, 'ipv4/route_localnet': 1 });
    await expect
      .poll(() => vms.open('a'), LOOK)
      .toEqual(
        expect.arrayContaining([
          expect.stringMatching(/^net\.ipv4\.conf\.all\.accept_local is 1: containers on br0 /),
          expect.stringMatching(/^route_localnet is on for /),
        ]),
      );
    await vms.set('a', 'all', { 'ipv4/accept_local': 0, 'ipv4/route_localnet': 0 });
    await vms.set('a', 'br0', { 'ipv4/rp_filter': 1 });
    await expect.poll(() => vms.open('a'), LOOK).toEqual([expect.stringMatching(/^containers on br0 /)]);
    await vms.ip('a', 'link del br0');
    await expect.poll(() => vms.open('a'), LOOK).toEqual([]);
  });

  test('a device by which others are reached is left alone', async () => {
    const before = await vms.settings('a', 'eth0');
    await vms.ip('a', `route add ${vms.container('a', 150)}/32 via ${vms.underlay('b')}`);
    await expect.poll(() => vms.open('a'), LOOK).toContainEqual(expect.stringContaining('lead to eth0, by which'));
    expect(await vms.settings('a', 'eth0')).toBe(before);
    await vms.ip('a', `route del ${vms.container('a', 150)}/32`);
    await expect.poll(() => vms.open('a'), LOOK).toEqual([]);
  });

  test('a device without a route of ours is as before, and one that has gone is forgotten', async () => {
    await vms.ip('a', `route del ${vms.container('a', 92)}/32`);
    await expect.poll(() => vms.settings('a', 'c2'), PATIENCE).toMatch(/^0 1 1 0 /);
    expect(vms.noted('a').map(({ device }) => device)).not.toContain('c2');
    await vms.ip('a', `route add ${vms.container('a', 92)}/32 dev c2`);
    await isSafe('c2');
    await vms.ip('a', 'link del c4');
    await expect
      .poll(
        () =>
          vms
            .noted('a')
            .map(({ device }) => device)
            .sort(),
        PATIENCE,
      )
      .toEqual(['c1', 'c2', 'c3']);
    // Another device with its name is another device.
    await vms.lab.ip(undefined, ['netns del c4']);
    await vms.attach('a', 'c4', 94);
    await isSafe('c4');
    await vms.ip('a', 'link del c4');
    await expect
      .poll(
        () =>
          vms
            .noted('a')
            .map(({ device }) => device)
            .sort(),
        PATIENCE,
      )
      .toEqual(['c1', 'c2', 'c3']);
  });

  test('neighbour entries of containers are exempt from the garbage collection, and follow a changed address', async () => {
    const entry = (device: string) =>
      vms.lab.must('a', ['sh', '-c', `ip neighbour show nud all dev ${device} | grep "^[0-9]*\\."; true`]);
    await vms.pings('a', vms.container('a', 91), 1);
    await expect.poll(() => entry('c1'), PATIENCE).toContain('extern_learn');
    await vms.lab.ip('c1', ['link set eth0 address 02:00:00:00:00:77']);
    // The container itself asks where its VM is, from the new address.
    await vms.lab.ip('c1', ['neighbour flush dev eth0']);
    await expect.poll(() => vms.pings('c1', vms.overlay('a'), 1), PATIENCE).toBe('1');
    expect(await entry('c1')).toMatch(/02:00:00:00:00:77 extern_learn/);
    await vms.ip('a', 'neighbour flush dev c1');
    await expect.poll(() => vms.pings('a', vms.container('a', 91), 1), PATIENCE).toBe('1');
    await expect.poll(() => entry('c1'), PATIENCE).toContain('extern_learn');
    if (plane === 'kernel') return;
    expect(await entry('inlay0')).toMatch(/^0\.0\.0\.0 .*PERMANENT/);
    await vms.ip('a', 'link set inlay0 down', 'link set inlay0 up');
    await expect.poll(() => entry('inlay0'), PATIENCE).toMatch(/^0\.0\.0\.0 .*PERMANENT/);
  });

  test.each([0, 1, 2])('with all.rp_filter %i no container sends as another', async (value) => {
    await vms.set('a', 'all', { 'ipv4/rp_filter': value });
    const sources = [vms.container('a', 92), vms.overlay('a'), vms.overlay('b'), vms.container('b', 91)];
    const strangers = ['192.168.16.33', '192.168.77.7', '198.51.100.1', '0.0.0.1'];
    const targets = { c2: vms.container('a', 92), a: vms.overlay('a'), b: vms.overlay('b') };
    for (const [where, target] of Object.entries(targets)) {
      const before = await vms.echoes(where);
      for (const source of [...sources, ...strangers].filter((each) => each !== target)) {
        await vms.lab.ip('c1', [`address add ${source}/32 dev eth0`]);
        await vms.lab.run('c1', ['ping', '-n', '-q', '-c', '2', '-i', '0.01', '-W', '0.01', '-I', source, target]);
        await vms.lab.ip('c1', [`address del ${source}/32 dev eth0`]);
      }
      // What it sends as itself arrives, behind all of these.
      expect(await vms.pings('c1', target, 1, '-I', vms.container('a', 91))).toBe('1');
      expect([where, await vms.echoes(where)]).toEqual([where, before + 1]);
    }
    await vms.set('a', 'all', { 'ipv4/rp_filter': 0 });
  });

  test(`${MANY} devices are safe, those of a daemon that was killed, too, and all are as before after down`, async () => {
    const names = Array.from({ length: MANY }, (_, i) => `m${i}`);
    await vms.lab.ip(undefined, ['netns add many']);
    // 10.16.32.0/24 has not as many: these addresses are of one container each or of several.
    await vms.ip(
      'a',
      ...names.flatMap((name, i) => [
        `link add ${name} type veth peer name ${name} netns many`,
        ...[`link set ${name} up`, `route add ${vms.container('a', 130 + (i % 100))}/32 metric ${i} dev ${name}`],
      ]),
    );
    const unsafe = () =>
      vms.lab.must('a', [
        'sh',
        '-c',
        `cd /proc/sys/net; cat ipv4/conf/m*/rp_filter ipv6/conf/m*/disable_ipv6 | grep -c 0; true`,
      ]);
    await expect.poll(unsafe, { ...PATIENCE, timeout: 60_000 }).toBe('0\n');
    expect(vms.noted('a')).toHaveLength(MANY + 3);
    await vms.reset('a');
    expect(await vms.settings('a', 'c1')).toMatch(/^2 1 1 0 /);
    expect(await vms.settings('a', 'c2')).toMatch(/^0 1 1 0 /);
    expect(await unsafe()).toBe(`${2 * MANY}\n`);
  });
});
