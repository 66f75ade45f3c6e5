/** A third machine on the underlay sends what it should not: each packet is dropped with its own counter, and no container sees it. */
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Lab } from '../../src/demo/lab.ts';
import type { Container, Mesh, Vm } from '../../src/demo/mesh.ts';
import type { Status } from '../../src/observe/status.ts';
import { startMesh } from './mesh.ts';
import { missing, rawSocketMissing, skip } from './require.ts';
import { pingWords } from './vms.ts';

const INJECT = fileURLToPath(new URL('./inject.mjs', import.meta.url));
/** Random packets, in bursts that a socket buffer of the default size holds. */
const BURSTS = 20;
const BURST = 100;

interface Vector {
  name: string;
  input: string;
  verdict: string;
}

/** The dropped vectors, of VM 192.168.16.32. Linux itself drops broken outer headers, and hands over nothing but protocol 47 to us, reassembled. */
const { vectors } = JSON.parse(readFileSync(new URL('../vectors/inbound.json', import.meta.url), 'utf8')) as {
  vectors: Vector[];
};
const NOT_FROM_THE_KERNEL = [
  'empty',
  'outer checksum',
  'another protocol',
  'outer fragment, first',
  'outer fragment, later',
  "another VM's packet",
];
/** Strict filters of the kernel's own stop these outer sources (the network address: before Linux 5.14). */
const MARTIAN = [
  'outer source is ourselves',
  'outer source 0.0.0.0',
  "outer source is the underlay's network address",
  "outer source is the underlay's broadcast address",
];
const hostile = vectors.filter(
  (v) => v.verdict !== 'forward' && ![...NOT_FROM_THE_KERNEL, ...MARTIAN].includes(v.name),
);

describe.skipIf(skip('hostile', await missing()))('hostile', () => {
  const noRawSocket = rawSocketMissing();
  const portableSkipped = skip('hostile, engine portable', noRawSocket);

  describe.each([
    ['linux', 'wasm'],
    ['linux', 'typescript'],
    ['portable', 'wasm'],
  ])('engine %s, core %s', (engine, core) => {
    let lab: Lab;
    let mesh: Mesh;
    let victim: Vm;
    let container: Container;

    beforeAll(async () => {
      if (engine === 'portable' && portableSkipped) return;
      lab = await Lab.open();
      mesh = await startMesh(lab, ['--engine', engine, '--core', core]);
      victim = mesh.vms[0] as Vm;
      container = victim.containers[0] as Container;
      // The attacker: the bridge's own port on the underlay, which is no VM. Its packets may claim any outer source.
      await lab.ip(undefined, ['address add 192.168.66.6/16 dev underlay']);
      await lab.must(victim.name, [
        'sh',
        '-c',
        'for f in all eth0; do echo 0 >/proc/sys/net/ipv4/conf/$f/rp_filter; done',
      ]);
    });
    afterAll(() => lab?.close());

    const inject = async (packets: string[]) =>
      Number(await lab.must(undefined, [process.execPath, INJECT, victim.underlay], packets.join('\n')));

    /** IPv4 packets that a namespace has received and sent. */
    async function counts(namespace: string): Promise<{ received: number; sent: number }> {
      const [head, values] = (await lab.must(namespace, ['cat', '/proc/net/snmp']))
        .split('\n')
        .map((line) => line.split(' '));
      const value = (name: string) => Number(values?.[head?.indexOf(name) ?? -1]);
      return { received: value('InReceives'), sent: value('OutRequests') };
    }

    /** Sends packets; answers how many of them each drop reason counted. */
    async function attack(packets: string[]): Promise<{ drops: Record<string, number>; status: Status }> {
      const [before, containerBefore, vmBefore] = await Promise.all([
        mesh.status(victim),
        counts(container.name),
        counts(victim.name),
      ]);
      expect(await inject(packets)).toBe(packets.length);
      await expect
        .poll(async () => (await mesh.status(victim)).inbound.received, { timeout: 10_000 })
        .toBe(before.inbound.received + packets.length);
      const status = await mesh.status(victim);
      // No container saw a packet, no packet was answered or sent on, no tunnel arose.
      expect(await counts(container.name)).toEqual(containerBefore);
      expect((await counts(victim.name)).sent).toBe(vmBefore.sent);
      expect(status).toMatchObject({ tunnels: before.tunnels, outbound: before.outbound });
      expect(status.inbound.packets).toBe(before.inbound.packets);
      const drops = Object.entries(status.inbound.drops).map(
        ([name, n]) => [name, n - (before.inbound.drops[name] ?? 0)] as const,
      );
      return { status, drops: Object.fromEntries(drops.filter(([, n]) => n > 0)) };
    }

    test.skipIf(engine === 'portable' && portableSkipped)(
      'G2, G3, G4, G5, G7, S1, S2, S3, S4, S7, R1 each bad packet has its own counter',
      async () => {
        for (const { name, input, verdict } of hostile) {
          expect({ name, ...(await attack([input])).drops }).toEqual({ name, [verdict]: 1 });
        }
      },
    );

    test.skipIf(engine === 'portable' && portableSkipped)(
      'R1 random packets: none gets through, each is counted once',
      async () => {
        const packets = noise(BURSTS * BURST);
        for (let i = 0; i < packets.length; i += BURST) {
          const { drops, status } = await attack(packets.slice(i, i + BURST));
          expect(sum(drops)).toBe(BURST);
          expect(status.inbound.received).toBe(status.inbound.packets + sum(status.inbound.drops));
        }
      },
    );

    test.skipIf(engine === 'portable' && portableSkipped)('the mesh still works afterwards', async () => {
      const other = mesh.vms[1]?.containers[0] as Container;
      expect(await lab.must(container.name, pingWords(other.address, 3))).toMatch(/3 received/);
    });
  });
});

const sum = (drops: Record<string, number>) => Object.values(drops).reduce((a, b) => a + b, 0);

/** GRE packets from VM 192.168.16.33 with random bytes behind the outer header, from a fixed seed. */
function noise(count: number): string[] {
  let x = 0x2545f491;
  const random = (below: number) => {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    return (x >>> 0) % below;
  };
  return Array.from({ length: count }, () => {
    const packet = Buffer.alloc(20 + random(200));
    for (let i = 20; i < packet.length; i++) packet[i] = random(256);
    packet.writeUInt16BE(0x4500, 0);
    packet.writeUInt16BE(packet.length, 2);
    packet.writeUInt16BE(0x402f, 8); // TTL 64, GRE; the kernel fills in the checksum
    packet.writeUInt32BE(0xc0a81021, 12);
    packet.writeUInt32BE(0xc0a81020, 16);
    // Most would fail at the GRE header: let many have a good one.
    if (packet.length >= 24 && random(3) > 0) packet.writeUInt32BE(0x0800, 20);
    return packet.toString('hex');
  });
}
