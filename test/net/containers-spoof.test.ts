/** Root in a container that was attached sends what it likes: nothing of it is taken for another's, nor reaches what is not for containers. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { A, B, gre, greUdp, HOST, ip, udp } from './barrier-vms.ts';
import { ContainerVms, type Library } from './container-vms.ts';
import { missing, skip } from './require.ts';
import { PATIENCE } from './vms.ts';

const [C1, C2, D1] = ['10.16.32.91', '10.16.32.92', '10.16.33.91'];
const [OWN_A, OWN_B] = ['10.16.32.1', '10.16.33.1'];
/** How often each packet is sent. */
const FLOOD = 10;
const NOBODY = [
  '198.51.100.1',
  '0.0.0.1',
  '127.0.0.1',
  '224.0.0.1',
  '255.255.255.255',
  '10.16.32.0',
  '10.16.32.255',
  '10.16.32.200',
];

/** An echo request without data. */
const echo = (from: string, to: string) => ip({ from, to }, 1, [8, 0, 0xf7, 0xff, 0, 0, 0, 0]);
const number = (address: string) => address.split('.').map(Number);
const bytesOf = (mac: string) => mac.split(':').map((part) => Number.parseInt(part, 16));

const skipped = skip('containers, spoofing', await missing('ping', 'nft'));
let vms: ContainerVms;
const libraries: Library[] = [];
beforeAll(async () => {
  if (skipped) return;
  vms = await ContainerVms.of('wasm', 'a', 'b');
  await vms.namespaces('c1', 'c2', 'd1');
  await vms.lab.ip(undefined, [`address add ${HOST}/16 dev underlay`]);
  libraries.push(vms.library('a'), vms.library('b'));
  await libraries[0]?.attach({ netns: 'c1', id: 'c1', container: 90 });
  await libraries[0]?.attach({ netns: 'c2', id: 'c2', container: 91 });
  await libraries[1]?.attach({ netns: 'd1', id: 'd1', container: 90 });
});
afterAll(async () => {
  await Promise.all(libraries.map((library) => library.close()));
  await vms?.close();
});

/** What c1 sends with the sources of others reaches none of these; what it sends as itself does, behind all of it. */
async function noneIsTaken(targets: Readonly<Record<string, string>>): Promise<void> {
  for (const [where, target] of Object.entries(targets)) {
    const sources = [C2, D1, OWN_A, OWN_B, A, B, ...NOBODY].filter((each) => each !== target);
    const before = await vms.echoes(where);
    const flood = sources.flatMap((source) => Array.from({ length: FLOOD }, () => echo(source, target)));
    expect(await vms.inject('c1', [...flood, echo(C1, target)])).toBe(flood.length + 1);
    await expect.poll(() => vms.echoes(where), PATIENCE).toBe(before + 1);
  }
}

const setAll = (value: number) => vms.set('a', 'all', { 'ipv4/rp_filter': value });
const deviceOf = async (id: string) => (await libraries[0]?.find({ id }))?.hostInterface ?? '';

describe.skipIf(skipped)('a container', () => {
  test.each([0, 1, 2])('without a daemon, sends as no other where conf.all.rp_filter is %i', async (value) => {
    await setAll(value);
    await noneIsTaken({ c2: C2, a: OWN_A });
    await setAll(0);
  });

  test('can be heard as another where somebody turns the filter off: so these tests see it', async () => {
    const device = await deviceOf('c1');
    await vms.set('a', device, { 'ipv4/rp_filter': 0 });
    const before = await vms.echoes('c2');
    await vms.inject('c1', [echo(D1, C2)]);
    await expect.poll(() => vms.echoes('c2'), PATIENCE).toBe(before + 1);
    await vms.set('a', device, { 'ipv4/rp_filter': 1 });
  });

  test('cannot say by ARP that it is another, or elsewhere', async () => {
    const { neighbours } = await vms.traces('a');
    const [own, theirs] = [await libraries[0]?.find({ id: 'c1' }), '02:00:00:00:00:66'];
    const arp = (operation: number, from: string, mac: string) => [
      ...[255, 255, 255, 255, 255, 255, ...bytesOf(own?.mac ?? ''), 8, 6, 0, 1, 8, 0, 6, 4, 0, operation],
      ...[...bytesOf(mac), ...number(from), 255, 255, 255, 255, 255, 255, ...number(from)],
    ];
    const lies = [C1, C2, OWN_A, D1].flatMap((each) =>
      [1, 2].map((operation) => Uint8Array.from(arp(operation, each, theirs))),
    );
    expect(await vms.inject('c1', lies, 'eth0')).toBe(lies.length);
    expect((await vms.traces('a')).neighbours).toEqual(neighbours);
    expect(await vms.lab.must('a', ['ip', 'neighbour', 'show', 'nud', 'all'])).not.toContain(theirs);
    for (const to of [C1, C2]) expect(await vms.pings('a', to, 1)).toBe('1');
    expect(await vms.pings('c1', C2, 1)).toBe('1');
  });

  test('gets nowhere by IPv6, whatever it gives itself', async () => {
    const before = await counters();
    const hostMac = (await libraries[0]?.find({ id: 'c1' }))?.hostMac;
    await vms.ip('a', 'address add 2001:db8:1::1/64 dev eth0 nodad');
    await vms.lab.must('a', ['sh', '-c', 'echo 1 >/proc/sys/net/ipv6/conf/all/forwarding']);
    for (const [name, last] of Object.entries({ c1: 2, c2: 3 }))
      await vms.lab.ip(name, [
        `address add fe80::${last}/64 dev eth0 nodad`,
        `address add 2001:db8::${last}/128 dev eth0 nodad`,
      ]);
    await vms.lab.ip('c1', [
      ...['route add fe80::1 dev eth0', 'route add default via fe80::1 dev eth0'],
      `neighbour add fe80::1 lladdr ${hostMac} dev eth0`,
    ]);
    for (const to of ['ff02::1%eth0', '2001:db8:1::1', '2001:db8::3'])
      await vms.lab.run('c1', ['ping', '-6', '-n', '-c', '3', '-i', '0.01', '-W', '0.1', to]);
    const after = await counters();
    expect(after.device).toBeGreaterThan(before.device);
    expect([after.a, after.c2]).toEqual([before.a, before.c2]);
    await vms.ip('a', 'address del 2001:db8:1::1/64 dev eth0');
  });

  /** IPv6 echo requests that were heard, and packets that came by c1's device. */
  async function counters(): Promise<{ a: string; c2: string; device: number }> {
    const heard = (where: string) => vms.lab.must(where, ['grep', 'Icmp6InEchos', '/proc/net/snmp6']);
    const { sentPackets = 0 } = (await libraries[0]?.list())?.find(({ id }) => id === 'c1') ?? {};
    return { a: await heard('a'), c2: await heard('c2'), device: sentPackets };
  }
});

describe.skipIf(skipped)('beside a daemon', () => {
  beforeAll(async () => {
    await vms.up('a');
    await vms.up('b');
  });

  const barrier = async () => (await vms.status('a')).barrier?.drops ?? {};

  test('a container sends as no other, here and through tunnels', async () => {
    await noneIsTaken({ c2: C2, a: OWN_A, b: OWN_B, d1: D1 });
  });

  test.each([0, 2])('another program sets rp_filter of its device to %i: it is right again', async (value) => {
    const device = await deviceOf('c1');
    const { repaired } = await vms.status('a');
    await vms.set('a', device, { 'ipv4/rp_filter': value });
    await expect.poll(() => vms.settings('a', device), PATIENCE).toMatch(/^1 0 0 1 /);
    await expect.poll(async () => (await vms.status('a')).repaired, PATIENCE).toBeGreaterThan(repaired);
    // Without the barrier, which hides it.
    await vms.lab.must('a', ['nft', 'delete', 'table', 'ip', 'inlay-inlay0']);
    const before = await vms.echoes('c2');
    await vms.inject('c1', [echo(D1, C2), echo(OWN_A, C2), echo(C1, C2)]);
    await expect.poll(() => vms.echoes('c2'), PATIENCE).toBe(before + 1);
    await expect
      .poll(async () => (await vms.lab.run('a', ['nft', 'list', 'table', 'ip', 'inlay-inlay0'])).code, PATIENCE)
      .toBe(0);
  });

  test('it reaches neither tunnels nor VMs: each packet is dropped, and counted by its name', async () => {
    const inner = udp({ from: D1, to: C2 }, 7777);
    const packets = {
      'forged-outer': [
        gre({ from: B, to: A }, inner),
        greUdp({ from: B, to: A }, inner),
        gre({ from: C1, to: B }, inner),
        greUdp({ from: C1, to: B }, inner),
      ],
      'forged-container': [
        udp({ from: C2, to: D1 }, 7777),
        udp({ from: D1, to: C2 }, 7777),
        udp({ from: OWN_B, to: D1 }, 7777),
      ],
      'container-access': [
        udp({ from: C1, to: A }, 53),
        udp({ from: C1, to: OWN_A }, 53),
        udp({ from: C1, to: B }, 53),
        udp({ from: C1, to: HOST }, 53),
      ],
    };
    const before = await barrier();
    const all = Object.values(packets).flat();
    expect(await vms.inject('c1', all)).toBe(all.length);
    const more = async () => {
      const after = await barrier();
      return Object.fromEntries(
        Object.keys(packets).map((name) => [
          name,
          (after[name as keyof typeof after] ?? 0) - (before[name as keyof typeof before] ?? 0),
        ]),
      );
    };
    await expect
      .poll(more, PATIENCE)
      .toEqual(Object.fromEntries(Object.entries(packets).map(([name, { length }]) => [name, length])));
    expect(await vms.pings('c1', D1, 1)).toBe('1');
  });
});
