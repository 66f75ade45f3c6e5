/** A mesh whose packets the kernel forwards: containers reach each other, no first packet is lost, and idle VMs are forgotten and found again. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Lab } from '../../src/demo/lab.ts';
import type { Container, Mesh, Vm } from '../../src/demo/mesh.ts';
import { startMesh } from './mesh.ts';
import { PLANES } from './planes.mjs';
import { missing, skip } from './require.ts';
import { PATIENCE, pingWords } from './vms.ts';

const CONNECT = `
  const net = require('node:net');
  const [, address, length] = process.argv;
  const socket = net.connect(7, address);
  let got = 0;
  socket.on('data', (chunk) => { got += chunk.length; if (got === Number(length)) { process.stdout.write(String(got)); socket.destroy(); } });
  socket.on('connect', () => socket.write(Buffer.alloc(Number(length), 'x')));
  socket.on('error', (error) => { process.stderr.write(error.message); process.exit(1); });`;
const ECHO = `require('node:net').createServer((socket) => socket.pipe(socket)).listen(7, () => process.stdout.write('ready'))`;

const plans = [
  { overlay: '10.0.0.0/8', slice: '10.16.33.0/24', own: '10.16.33.1', vm: '192.168.16.33' },
  { overlay: '240.0.0.0/4', slice: '241.2.16.0/20', own: '241.2.16.1', vm: '192.168.16.33' },
];

describe.skipIf(skip('kernel mesh', await missing('ping', 'tc', 'bridge')))('kernel mesh', () => {
  describe.each(plans)('$overlay', ({ overlay, slice, own, vm: remote }) => {
    let lab: Lab;
    let mesh: Mesh;
    let a: Vm;
    let b: Vm;
    let from: Container;
    let to: Container;

    beforeAll(async () => {
      lab = await Lab.open();
      mesh = await startMesh(lab, [...PLANES.kernel, '--idle-timeout', '500ms'], { overlay });
      [a, b] = mesh.vms as [Vm, Vm];
      [from, to] = mesh.containers as [Container, Container];
    });
    afterAll(() => lab?.close());

    const ping = async (address: string, count: number, ...words: string[]) =>
      (await lab.run(from.name, pingWords(address, count, ...words))).stdout;
    /** Routes, neighbours and MAC addresses of remote VMs. */
    const entries = async (vm: Vm) =>
      (
        await lab.must(vm.name, [
          'sh',
          '-c',
          'ip route show proto 73 | grep via; ip neighbour show nud all dev inlay0; bridge fdb show dev inlay0',
        ])
      )
        .split('\n')
        .filter((line) => line !== '').length;

    test('status says what runs', async () => {
      expect(await mesh.status(a)).toMatchObject({
        state: 'running',
        troubles: [],
        repaired: 0,
        pid: expect.any(Number),
        vm: a.underlay,
        overlayAddress: a.overlay,
        mappings: [{ overlay, underlay: '192.168.0.0/16', slice: a.slice }],
        device: 'inlay0',
        dataPlane: 'kernel',
        encapsulation: 'vxlan',
        mtu: 1450,
        sourceCheck: 'on',
        neighbours: { answered: 0, refused: 0, failed: 0, resyncs: 1, repaired: 0 },
        tunnels: 0,
        outbound: { received: 0, packets: 0, bytes: 0, drops: {} },
        inbound: { received: 0, packets: 0, bytes: 0, drops: {} },
      });
      expect(await mesh.tunnels(a)).toEqual([]);
    });

    test('pings arrive, the first too, and are counted', async () => {
      expect(await ping(to.address, 5)).toMatch(/ 5 received/);
      const traffic = { packets: 5, bytes: 5 * 84 };
      const counted = { received: 5, ...traffic, drops: {} };
      expect(await mesh.status(a)).toMatchObject({ tunnels: 1, outbound: counted, inbound: counted });
      expect(await mesh.status(a)).toMatchObject({ neighbours: { answered: 1, refused: 0, failed: 0, repaired: 0 } });
      expect(await mesh.status(b)).toMatchObject({ tunnels: 1, outbound: counted, inbound: counted });
      expect(await mesh.tunnels(a)).toMatchObject([
        { vm: remote, slice, mtu: 1450, outbound: traffic, inbound: traffic, state: 'heard' },
      ]);
    });

    test('idle VMs go, with all their entries, and come again without a lost packet, six times', async () => {
      for (let i = 0; i < 6; i++) {
        await expect.poll(async () => [await entries(a), await entries(b)], PATIENCE).toEqual([0, 0]);
        await expect.poll(async () => (await mesh.status(a)).tunnels, PATIENCE).toBe(0);
        expect(await ping(i % 2 ? to.address : own, 1)).toMatch(/ 1 received/);
      }
      expect(await mesh.status(a)).toMatchObject({ neighbours: { failed: 0, repaired: 0, refused: 0 } });
    });

    test('packets as large as the device takes arrive; larger ones are refused', async () => {
      expect(await ping(to.address, 3, '-M', 'do', '-s', '1422')).toMatch(/ 3 received/);
      expect(await ping(to.address, 1, '-M', 'do', '-s', '1423')).toMatch(/ 0 received/);
      expect(await ping(to.address, 3, '-M', 'dont', '-s', '20000')).toMatch(/ 3 received/);
    });

    test('TCP between containers', async () => {
      const server = lab.start(to.name, [process.execPath, '-e', ECHO], { stdio: ['ignore', 'pipe', 'inherit'] });
      await new Promise((resolve) => server.stdout?.once('data', resolve));
      const length = 5_000_000;
      const { code, stdout, stderr } = await lab.run(from.name, [
        process.execPath,
        '-e',
        CONNECT,
        to.address,
        String(length),
      ]);
      server.kill();
      expect({ code, stdout, stderr }).toEqual({ code: 0, stdout: String(length), stderr: '' });
      const { outbound, inbound } = await mesh.status(a);
      expect({ out: outbound.drops, in: inbound.drops }).toEqual({ out: {}, in: {} });
      expect(outbound.bytes).toBeGreaterThan(length);
    });
  });
});
