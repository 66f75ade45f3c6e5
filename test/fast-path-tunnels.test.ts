/** What the fast path knows of tunnels and of addresses, without a kernel. */
import { describe, expect, test } from 'vitest';
import { Places } from '../src/dataplane/fast-path/places.ts';
import { FastTunnels, type TunnelState } from '../src/dataplane/fast-path/tunnels.ts';
import { type Address, ipv4, type Prefix, parseAddress, parsePrefix } from '../src/mesh/address.ts';
import { Mapping } from '../src/mesh/mapping.ts';

const VM = 0xc0a81021;
const NONE = { packets: 0, bytes: 0 };

function packets(count: number) {
  return { packets: count, bytes: 100 * count };
}

/** A VM's record, as the programs and the daemon have it. */
class Record implements TunnelState {
  sent = 0;
  received = 0;
  isHeard = false;
  bytes = 0;
  traffic() {
    return { outbound: packets(this.sent), inbound: packets(this.received) };
  }
  heard() {
    return this.received;
  }
  hear() {
    this.isHeard = true;
  }
  limit(_: number, bytes: number) {
    this.bytes = bytes;
  }
  renew() {}
  forget() {
    this.sent = this.received = this.bytes = 0;
    this.isHeard = false;
  }
}

describe('tunnels', () => {
  const tunnel = { vm: VM, lastUse: 1, opened: 1, outbound: NONE, inbound: packets(5) };

  test('of a VM are counted anew when one was closed and another opened', () => {
    const record = new Record();
    const tunnels = new FastTunnels(record, 28);
    Object.assign(record, { sent: 1000, received: 1000 });
    expect(tunnels.together([tunnel], 1000)).toMatchObject([{ lastUse: 1000, inbound: { packets: 1005 } }]);
    expect(record.isHeard).toBe(true);
    expect(tunnels.together([tunnel], 2000)).toMatchObject([{ lastUse: 1000 }]);
    tunnels.forget(VM);
    expect(record.isHeard).toBe(false);
    // Far fewer than before, but new.
    Object.assign(record, { sent: 1, received: 1 });
    const other = { ...tunnel, inbound: packets(1) };
    expect(tunnels.together([other], 3000)).toMatchObject([{ lastUse: 3000, inbound: { packets: 2 } }]);
    expect(record.isHeard).toBe(true);
  });
});

describe('places', () => {
  const local = parseAddress('192.168.16.32') as Address;
  const mappings = [
    ['10.0.0.0/8', '192.168.0.0/16'],
    ['240.0.0.0/4', '192.168.0.0/17'],
    ['172.16.0.0/12', '192.168.0.0/16'],
    ['100.64.0.0/10', '198.18.0.0/15'],
  ].map(
    ([overlay = '', underlay = '']) => new Mapping(parsePrefix(overlay) as Prefix, parsePrefix(underlay) as Prefix),
  );
  const places = new Places(mappings, local);

  test('of containers are each their own, and only for addresses that containers of this VM have', () => {
    const found = new Set<number>();
    let containers = 0;
    for (const mapping of mappings.filter(({ underlay }) => underlay.bits >> 24n === 192n)) {
      const slice = mapping.sliceOf(local);
      const first = Number(slice.bits);
      for (let address = first - 2; address < first + 2 ** mapping.containerBits + 2; address++) {
        const { kind, vm } = mapping.explain(ipv4(address));
        const isOne = kind === 'container' && vm.bits === local.bits && address >= first;
        const place = places.ofContainer(address);
        expect(place !== undefined, String(address)).toBe(isOne && address < first + 2 ** mapping.containerBits);
        if (place === undefined) continue;
        containers++;
        found.add(place);
        expect(place).toBeLessThan(places.slots);
      }
    }
    expect(found.size).toBe(containers);
  });

  test('of VMs follow their numbers, and mappings with one underlay share them', () => {
    expect(places.ofVm(Number(local.bits))).toBe(0x1020);
    expect(places.ofVm(0xc0a8ffff)).toBe(0xffff);
    expect(places.ofVm(0xc6120000)).toBe(0x10000 + 0x8000);
    expect(places.ofVm(0xc613ffff)).toBe(0x10000 + 0x8000 + 0x1ffff);
    expect(places.ofVm(0xc0a90000)).toBe(undefined);
    expect(places.vms).toBe(0x10000 + 0x8000 + 0x20000);
  });
});
