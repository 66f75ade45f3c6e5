/** The operator's rules of SECURITY.md, as they stand there: they stop tunnels from outside the underlay, and nothing else. */
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Lab } from '../../src/demo/lab.ts';
import type { Mesh, Vm } from '../../src/demo/mesh.ts';
import { startMesh } from './mesh.ts';
import { missing, skip } from './require.ts';

const INJECT = fileURLToPath(new URL('./inject.mjs', import.meta.url));
/** An address on the bridge that is outside the underlay prefix. */
const OUTSIDER = '172.16.0.9';
const PACKETS = 5;
/** Sends them to UDP port 4754 of ADDRESS. */
const DATAGRAMS = `
  const socket = require('dgram').createSocket('udp4');
  let left = ${PACKETS};
  const next = () => (left-- > 0 ? socket.send(Buffer.alloc(40), 4754, process.argv[1], next) : socket.close());
  next();`;

/** `eth0` is the underlay's interface here as well. */
const rules = /```nft\n([\s\S]*?)```/.exec(
  readFileSync(new URL('../../SECURITY.md', import.meta.url), 'utf8'),
)?.[1] as string;

describe.skipIf(skip('filter', await missing('nft', 'ping')))('filter', () => {
  let lab: Lab;
  let mesh: Mesh;
  let segmentation: string | undefined;

  beforeAll(async () => {
    lab = await Lab.open();
    mesh = await startMesh(lab, []);
    for (const vm of mesh.vms) {
      // An attacker's packets come through: the filter is what stops them. To a device with an address the guard leaves its rp_filter.
      const links = vm.containers.map(({ hostInterface }) => hostInterface);
      await lab.ip(
        vm.name,
        links.map((link) => `address add 198.51.100.1/32 dev ${link}`),
      );
      const lax = `for f in all default eth0 ${links.join(' ')}; do echo 0 >/proc/sys/net/ipv4/conf/$f/rp_filter; done; true`;
      await lab.must(vm.name, ['sh', '-c', lax]);
      await lab.ip(vm.name, [`route add ${OUTSIDER} dev eth0`]);
    }
    await lab.ip(undefined, [`address add ${OUTSIDER}/32 dev underlay`, 'route add 192.168.0.0/16 dev underlay']);
    segmentation = (await mesh.status(mesh.vms[0] as Vm)).segmentation;
  });
  afterAll(() => lab?.close());

  /** GRE with an outer header from `from` to `to`. */
  function gre(from: string, to: string): string {
    const packet = Buffer.alloc(20 + 4 + 20);
    packet.writeUInt16BE(0x4500, 0);
    packet.writeUInt16BE(packet.length, 2);
    packet.writeUInt16BE(0x402f, 8); // TTL 64, GRE; the kernel fills in the checksum
    for (const [i, address] of [from, to].entries()) packet.set(address.split('.').map(Number), 12 + 4 * i);
    packet.writeUInt32BE(0x0800, 20);
    return packet.toString('hex');
  }

  /** Sends tunnel packets, of both kinds, from `where` to `vm`; answers how many of them its daemon sees. */
  async function seen(where: string | undefined, from: string, vm: Vm): Promise<number> {
    const before = (await mesh.status(vm)).inbound.received;
    const packets = `${gre(from, vm.underlay)}\n`.repeat(PACKETS);
    expect(await lab.must(where, [process.execPath, INJECT, vm.underlay], packets)).toBe(`${PACKETS}\n`);
    await lab.must(where, [process.execPath, '-e', DATAGRAMS, vm.underlay]);
    // What comes after them, over the same veths, shows that they have come or never will.
    await ping();
    return (await mesh.status(vm)).inbound.received - before - PACKETS;
  }

  /** From container to container, which both VMs count. */
  async function ping(): Promise<void> {
    const [a, b] = mesh.containers;
    // All at once; it waits the interval for the last answer, if that takes longer than others did.
    const words = ['ping', '-n', '-c', String(PACKETS), '-l', String(PACKETS), '-i', '5', b?.address as string];
    expect(await lab.must(a?.name, words)).toMatch(new RegExp(` ${PACKETS} received`));
  }

  test('without the rules, the daemon sees what outsiders send; never what containers do', async () => {
    const [a, b] = mesh.vms as [Vm, Vm];
    const [container] = mesh.containers;
    for (const vm of [a, b]) expect(await seen(undefined, OUTSIDER, vm)).toBe(2 * PACKETS);
    expect(await seen(container?.name, b.underlay, a)).toBe(0);
  });

  test('with them, only what VMs send', async () => {
    const [a, b] = mesh.vms as [Vm, Vm];
    for (const vm of [a, b]) await lab.must(vm.name, ['nft', '-f', '-'], rules);
    for (const vm of [a, b]) expect(await seen(undefined, OUTSIDER, vm)).toBe(0);
    expect((await mesh.status(a)).segmentation).toBe(segmentation);
  });
});
