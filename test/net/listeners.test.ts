/** What a VM listens to: nothing but what the overlay needs, and a port that nobody reads keeps nothing. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Lab } from '../../src/demo/lab.ts';
import type { Mesh, Vm } from '../../src/demo/mesh.ts';
import { startMesh } from './mesh.ts';
import { missing, rawSocketMissing, skip } from './require.ts';

/** Sends COUNT datagrams of 1,000 bytes to ADDRESS PORT. */
const FLOOD = `
  const [address, port, count] = process.argv.slice(1);
  const socket = require('dgram').createSocket('udp4');
  let left = Number(count);
  const next = () => (left-- > 0 ? socket.send(Buffer.alloc(1000), port, address, next) : socket.close());
  next();`;
const DATAGRAMS = 2000;
const MAX_WAITING = 10_000;
const [GRE_UDP, SOURCES] = [4754, 49152];

describe.skipIf(skip('listeners', await missing('ss')))('listeners', () => {
  const portableSkipped = skip('listeners, engine portable', rawSocketMissing());

  describe.each([
    ['linux', 'gre'],
    ['linux', 'gre-udp'],
    ['portable', 'gre'],
    ['portable', 'gre-udp'],
  ])('engine %s, %s', (engine, encapsulation) => {
    const skipped = engine === 'portable' && portableSkipped;
    let lab: Lab;
    let mesh: Mesh;
    let vm: Vm;

    beforeAll(async () => {
      if (skipped) return;
      lab = await Lab.open();
      mesh = await startMesh(lab, ['--engine', engine, '--encapsulation', encapsulation]);
      vm = mesh.vms[0] as Vm;
    });
    afterAll(() => lab?.close());

    /** TCP and UDP sockets that anyone can send to. */
    async function listeners(): Promise<{ protocol: string; waiting: number; address: string; port: number }[]> {
      const lines = (await lab.must(vm.name, ['ss', '-H', '-ltnu'])).trim().split('\n');
      return lines.map((line) => {
        const [protocol = '', , waiting, , local = ''] = line.split(/\s+/);
        const [address = '', port] = local.split(':');
        return { protocol, waiting: Number(waiting), address, port: Number(port) };
      });
    }

    test.skipIf(skipped)('no TCP, and UDP only where it has to be', async () => {
      const found = await listeners();
      for (const { protocol, address } of found) expect([protocol, address]).toEqual(['udp', vm.underlay]);
      const ports = found.map(({ port }) => port).sort((a, b) => a - b);
      expect(ports[0]).toBe(GRE_UDP);
      if (encapsulation === 'gre') expect(ports).toEqual([GRE_UDP]);
      else for (const port of ports.slice(1)) expect(port).toBeGreaterThanOrEqual(SOURCES);
    });

    if (encapsulation === 'gre') return;
    test.skipIf(skipped)('what comes to a port that only sends is not kept', async () => {
      await lab.ip(undefined, ['address replace 192.168.99.99/16 dev underlay']);
      const words = [process.execPath, '-e', FLOOD, vm.underlay, String(SOURCES), String(DATAGRAMS)];
      await lab.must(undefined, words);
      const waiting = async () => (await listeners()).find(({ port }) => port === SOURCES)?.waiting;
      await expect.poll(waiting, { timeout: 20_000 }).toBeLessThan(MAX_WAITING);
    });
  });
});
