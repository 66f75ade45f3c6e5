/** A mesh of three VMs: who reaches whom, by which hops, and what is counted, with the fast path and without it. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { ethernet } from '../attack/packets.mjs';
import { packetOf, payloadOf } from '../packet.ts';
import { PORT } from './fast-path/probes.ts';
import { expectExact, FastPathVms, takenOf } from './fast-path/vms.ts';
import { missing, skip } from './require.ts';
import { stream } from './stream.ts';
import { PATIENCE, type Plane } from './vms.ts';

const BYTES = 5_000_000;
/** Datagrams of the test that counts, and bytes in each. */
const [COUNT, LENGTH] = [500, 300];
/** Of them the data plane gets one of each tunnel and direction every so many seconds. */
const RENEWED = 3;
const number = (address: string) => address.split('.').reduce((all, part) => all * 256 + Number(part), 0);

describe.skipIf(skip('fast path', await missing('ping'))).each<{ plane: Plane; fastPath: 'on' | 'off' }>([
  { plane: 'wasm', fastPath: 'off' },
  { plane: 'wasm', fastPath: 'on' },
  { plane: 'wasm-udp', fastPath: 'off' },
  { plane: 'wasm-udp', fastPath: 'on' },
])('three VMs, $plane, fast path $fastPath', ({ plane, fastPath }) => {
  let vms: FastPathVms;
  const [all, containers] = [
    ['a', 'b', 'c'],
    ['c1', 'c2', 'd1', 'e1'],
  ];
  beforeAll(async () => {
    vms = await FastPathVms.of(plane, ...all);
    for (const vm of all) {
      await vms.up(vm, '--fast-path', fastPath);
      // As many hops answer as are asked.
      await vms.lab.must(vm, ['sh', '-c', 'echo 0 >/proc/sys/net/ipv4/icmp_ratemask']);
    }
    await vms.attachTo('a', 'c1', 'c2');
    await vms.attachTo('b', 'd1');
    await vms.attachTo('c', 'e1');
    await vms.settled(...all);
    await vms.watch('c1');
    await vms.take(PORT, 'c2', 'd1');
  });
  afterAll(() => vms?.close());

  const isOn = fastPath === 'on';

  test('status says so', async () => {
    const { fastPath: status } = await vms.status('a');
    if (isOn) expect(status).toMatchObject({ state: 'on', containers: 2 });
    else expect(status?.state ?? 'off').toBe('off');
    expect(status?.obstacle).toBeUndefined();
  });

  test('every container reaches every other', async () => {
    for (const from of containers)
      for (const to of containers.filter((each) => each !== from)) {
        // The first packet of a tunnel waits for what the kernel asks on the underlay.
        await vms.acquainted(from, to);
        expect([from, to, await vms.pings(from, vms.address(to), 20)]).toEqual([from, to, '20']);
      }
  });

  test.each([
    ['c1', 'd1'],
    ['d1', 'e1'],
    ['c1', 'c2'],
  ])('TCP both ways between %s and %s', async (from, to) => {
    await stream(vms.lab, from, vms.target(to), BYTES);
  });

  test.each([
    { to: 'd1', hops: ['a', 'b'] },
    { to: 'e1', hops: ['a', 'c'] },
    { to: 'c2', hops: ['a'] },
  ])('the hops to $to', async ({ to, hops }) => {
    const found: string[] = [];
    for (let ttl = 1; ttl <= hops.length + 1; ttl++) {
      const { stdout } = await vms.lab.run('c1', ['ping', '-n', '-c', '1', '-W', '5', '-t', `${ttl}`, vms.address(to)]);
      found.push(/rom ([\d.]+)/.exec(stdout)?.[1] ?? stdout);
    }
    expect(found).toEqual([...hops.map((vm) => vms.overlay(vm)), vms.address(to)]);
  });

  /** Datagrams of c1, as many as are counted. */
  function datagramsTo(name: string): Uint8Array[] {
    const { mac: from, hostMac: to, address } = vms.attached('c1');
    const ends = { source: number(address), destination: number(vms.address(name)), destinationPort: PORT };
    const packet = packetOf({ protocol: 17, payload: payloadOf(LENGTH - 28), ...ends });
    return Array.from({ length: COUNT }, () => ethernet({ from, to }, packet));
  }

  const nothing = { packets: 0, bytes: 0 };
  async function counted() {
    const [a, b] = [await vms.status('a'), await vms.status('b')];
    const tunnel = (await vms.tunnels('a')).find(({ vm }) => vm === vms.underlay('b'));
    const [out, back] = [tunnel?.outbound ?? nothing, a.fastPath?.local ?? nothing];
    return {
      sent: { packets: a.outbound.packets, bytes: a.outbound.bytes },
      got: { packets: b.inbound.packets, bytes: b.inbound.bytes },
      tunnel: { packets: out.packets, bytes: out.bytes },
      local: { packets: back.packets, bytes: back.bytes },
      taken: takenOf(a).outbound,
      given: takenOf(b).inbound,
    };
  }

  const arrived = async (at: string) => (await vms.collect()).filter((each) => each.at === `${at} port ${PORT}`).length;

  test('each packet between two VMs is counted once, by whoever took it', async () => {
    const before = await counted();
    expect(await vms.send('c1', datagramsTo('d1'))).toBe(0);
    let come = 0;
    await expect.poll(async () => (come += await arrived('d1')), PATIENCE).toBe(COUNT);
    const more = (now: { packets: number; bytes: number }, then: { packets: number; bytes: number }) => ({
      packets: now.packets - then.packets,
      bytes: now.bytes - then.bytes,
    });
    const each = { packets: COUNT, bytes: COUNT * LENGTH };
    // Counters of the programs and of the data plane are read one after the other.
    await expect
      .poll(async () => {
        const after = await counted();
        return {
          sent: more(after.sent, before.sent),
          got: more(after.got, before.got),
          tunnel: more(after.tunnel, before.tunnel),
        };
      }, PATIENCE)
      .toEqual({ sent: each, got: each, tunnel: each });
    const after = await counted();
    for (const taken of [after.taken - before.taken, after.given - before.given]) {
      expect(taken).toBeLessThanOrEqual(isOn ? COUNT : 0);
      expect(taken).toBeGreaterThanOrEqual(isOn ? COUNT - RENEWED : 0);
    }
  });

  test('each packet between two containers of a VM is counted by who took it', async () => {
    const before = await counted();
    expect(await vms.send('c1', datagramsTo('c2'))).toBe(0);
    let come = 0;
    await expect.poll(async () => (come += await arrived('c2')), PATIENCE).toBe(COUNT);
    const { local, sent } = await counted();
    expect(local.packets - before.local.packets).toBe(isOn ? COUNT : 0);
    expect(local.bytes - before.local.bytes).toBe(isOn ? COUNT * LENGTH : 0);
    expect(sent).toEqual(before.sent);
  });

  test('nothing was dropped, and all sums are right', async () => {
    for (const vm of all) {
      const status = await vms.status(vm);
      expectExact(status);
      expect({ out: status.outbound.drops, in: status.inbound.drops }).toEqual({ out: {}, in: {} });
    }
  });

  test('tunnels tells how much of each the fast path took', async () => {
    const tunnels = await vms.tunnels('a');
    expect(tunnels.map(({ vm }) => vm).sort()).toEqual([vms.underlay('b'), vms.underlay('c')]);
    for (const { vm, fastPath: taken, outbound, inbound } of tunnels) {
      const some = (packets: number) => (isOn ? expect.toSatisfy((n) => n > 0 && n <= packets) : 0);
      expect({ vm, out: taken?.outbound.packets ?? 0, in: taken?.inbound.packets ?? 0 }).toEqual({
        ...{ vm, out: some(outbound.packets), in: some(inbound.packets) },
      });
    }
  });
});
