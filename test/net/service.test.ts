/** Type of service and time to live across real daemons: what is on the underlay, and what congestion there becomes in a container. */
import { mkdtempSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Lab } from '../../src/demo/lab.ts';
import type { Container, Mesh, Vm } from '../../src/demo/mesh.ts';
import { startMesh } from './mesh.ts';
import { missing, rawSocketMissing, skip } from './require.ts';
import { capture, decode } from './tshark.ts';

const FIELDS = ['ip.dsfield.dscp', 'ip.dsfield.ecn', 'ip.ttl', 'icmp.type'];
const [NOT_ECT, ECT_0, CE] = ['0', '2', '3'];
/** Expedited forwarding. */
const EF = 46;
const noRawSocket = skip('service, engine portable', rawSocketMissing());

describe.skipIf(skip('service', await missing('tshark', 'ping', 'nft')))('service', () => {
  const folder = mkdtempSync(path.join(os.tmpdir(), 'inlay-service-'));
  afterAll(() => rmSync(folder, { recursive: true }));

  const uniform = ['--dscp', 'uniform', '--ttl', 'inherit'];
  const udp = ['--encapsulation', 'gre-udp'];
  const portable = ['--engine', 'portable'];
  describe.each([
    { flags: [], dscp: '0', ttl: '64', ecn: ECT_0, skipped: false },
    { flags: udp, dscp: '0', ttl: '64', ecn: ECT_0, skipped: false },
    { flags: ['--dscp', '10', '--ttl', '17'], dscp: '10', ttl: '17', ecn: ECT_0, skipped: false },
    { flags: [...udp, '--dscp', '10', '--ttl', '17'], dscp: '10', ttl: '17', ecn: ECT_0, skipped: false },
    // A container's packet has 64; its VM forwards it.
    { flags: uniform, dscp: String(EF), ttl: '63', ecn: ECT_0, skipped: false },
    { flags: [...udp, ...uniform], dscp: String(EF), ttl: '63', ecn: ECT_0, skipped: false },
    { flags: ['--ecn', 'compatibility'], dscp: '0', ttl: '64', ecn: NOT_ECT, skipped: false },
    { flags: [...udp, '--ecn', 'compatibility'], dscp: '0', ttl: '64', ecn: NOT_ECT, skipped: false },
    { flags: portable, dscp: '0', ttl: '64', ecn: ECT_0, skipped: noRawSocket },
    { flags: [...portable, ...udp, '--ttl', '17'], dscp: '0', ttl: '17', ecn: NOT_ECT, skipped: noRawSocket },
  ])('up $flags', ({ flags, dscp, ttl, ecn, skipped }) => {
    let lab: Lab;
    let mesh: Mesh;
    beforeAll(async () => {
      if (skipped) return;
      lab = await Lab.open();
      mesh = await startMesh(lab, flags);
    });
    afterAll(() => lab?.close());

    const container = (i: number) => mesh.containers[i] as Container;
    const ping = (tos: number, count = 1) => {
      const words = [
        'ping',
        '-n',
        '-c',
        String(count),
        '-i',
        '0.1',
        '-W',
        '1',
        '-Q',
        String(tos),
        container(1).address,
      ];
      return lab.run(container(0).name, words);
    };
    /** The first packet of this kind that is seen on the underlay, or by a container, while pings are sent. */
    async function see(where: string | undefined, filter: string, tos: number) {
      const file = path.join(folder, `${flags.join('')}-${where}.pcap`);
      const device = where === undefined ? 'underlay' : 'eth0';
      await capture(lab, { where, device, filter, count: 1 }, file, () => ping(tos));
      const [packet] = decode(file, FIELDS);
      return packet as Record<string, string[]>;
    }

    test.skipIf(skipped)('E1, E3, O1 the outer header', async () => {
      const format = flags.includes('gre-udp') ? 'udp port 4754' : 'ip proto 47';
      const from = (mesh.vms[0] as Vm).underlay;
      const packet = await see(undefined, `${format} and src host ${from}`, (EF << 2) | 2);
      expect(packet['ip.dsfield.dscp']).toEqual([dscp, String(EF)]);
      expect(packet['ip.dsfield.ecn']).toEqual([ecn, ECT_0]);
      expect(packet['ip.ttl']).toEqual([ttl, '63']);
    });

    // Node's UDP sockets do not tell what the outer header says.
    if (flags.includes('portable') && flags.includes('gre-udp')) return;

    test.skipIf(skipped)(
      'E2 congestion on the underlay is told to a container that understands, and loses the packet of one that does not',
      async () => {
        const vm = mesh.vms[1] as Vm;
        const rules = `table ip congestion { chain prerouting { type filter hook prerouting priority mangle; iif eth0 ip ecn set ce; }; }`;
        await lab.must(vm.name, ['nft', rules]);
        // The answer has the type of service that the request arrived with.
        const answer = await see(container(0).name, `icmp[0] = 0 and src host ${container(1).address}`, 2);
        expect(answer['ip.dsfield.ecn']).toEqual([CE]);
        expect((await ping(2, 5)).stdout).toContain('5 received');

        const before = (await mesh.status(vm)).inbound.drops['ecn'] ?? 0;
        expect((await ping(0, 5)).stdout).toContain('0 received');
        expect((await mesh.status(vm)).inbound.drops['ecn']).toBe(before + 5);
      },
    );
  });
});
