/** plan and explain: the arithmetic of the mapping, with the numbers that the documentation promises. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  type Address,
  formatAddress,
  ipv4,
  network,
  type Prefix,
  parseAddress,
  parsePrefix,
} from '../src/mesh/address.ts';
import { explain } from '../src/mesh/explain.ts';
import { checkMappings, Mapping } from '../src/mesh/mapping.ts';
import { plan } from '../src/mesh/plan.ts';

const prefix = (text: string) => parsePrefix(text) as Prefix;
const mapping = (overlay: string, underlay: string) => new Mapping(prefix(overlay), prefix(underlay));
const mappings = (...pairs: string[]) => pairs.map((pair) => mapping(...(pair.split(' ') as [string, string])));

function explainText(pairs: readonly string[], text: string, container?: number) {
  const address = parseAddress(text);
  if (!address) throw new Error(`${text} is no address`);
  return explain(mappings(...pairs), address, container);
}

const TEN = '10.0.0.0/8 192.168.0.0/16';
const CLASS_E = '240.0.0.0/4 192.168.0.0/16';
const CLASS_E_17 = '240.0.0.0/4 192.168.0.0/17';
const TEN_21 = '10.0.0.0/8 192.168.16.0/21';

describe('plan', () => {
  test.each([
    [TEN, { vmBits: 16, containerBits: 8, vms: 65534, addressesPerVm: 256, containersPerVm: 253, sliceLength: 24 }],
    [
      CLASS_E,
      { vmBits: 16, containerBits: 12, vms: 65534, addressesPerVm: 4096, containersPerVm: 4093, sliceLength: 20 },
    ],
    [
      CLASS_E_17,
      { vmBits: 15, containerBits: 13, vms: 32766, addressesPerVm: 8192, containersPerVm: 8189, sliceLength: 19 },
    ],
    [
      TEN_21,
      { vmBits: 11, containerBits: 13, vms: 2046, addressesPerVm: 8192, containersPerVm: 8189, sliceLength: 19 },
    ],
    [
      '10.0.0.0/8 192.168.0.0/10',
      { vmBits: 22, containerBits: 2, vms: 2 ** 22 - 2, addressesPerVm: 4, containersPerVm: 1, sliceLength: 30 },
    ],
    [
      '128.0.0.0/3 1.2.3.4/32',
      { vmBits: 0, containerBits: 29, vms: 1, addressesPerVm: 2 ** 29, containersPerVm: 2 ** 29 - 3, sliceLength: 3 },
    ],
  ])('%s', (pair, expected) => {
    const [only] = mappings(pair) as [Mapping];
    const [overlay, underlay] = pair.split(' ');
    expect(plan(only)).toEqual({ overlay, underlay, ...expected, warnings: expect.any(Array) });
  });

  const STAYS_INSIDE = 'Linux forwards it, but Windows, some routers and some clouds do not; keep it inside the mesh';
  test.each<[pair: string, warnings: string[]]>([
    [TEN, ['256 addresses per VM; 8192 take 13 container bits: an underlay prefix of /21']],
    [TEN_21, []],
    [
      CLASS_E,
      [
        `240.0.0.0/4 is class E: ${STAYS_INSIDE}`,
        '4096 addresses per VM; 8192 take 13 container bits: an underlay prefix of /17',
      ],
    ],
    [CLASS_E_17, [`240.0.0.0/4 is class E: ${STAYS_INSIDE}`]],
    [
      '240.0.0.0/4 192.168.0.0/31',
      [`240.0.0.0/4 is class E: ${STAYS_INSIDE}`, "248.0.0.0/5 can be no VM's slice: it contains 255.255.255.255"],
    ],
    ['244.0.0.0/8 192.168.0.0/21', [`244.0.0.0/8 is class E: ${STAYS_INSIDE}`]],
    ['10.0.0.0/24 192.168.0.0/30', ['64 addresses per VM; 8192 take 13 container bits: a shorter overlay prefix']],
  ])('warnings of %s', (pair, warnings) => expect(plan(...(mappings(pair) as [Mapping])).warnings).toEqual(warnings));

  test('the JSON of the contract, its keys in their order', () => {
    expect(JSON.stringify({ ...plan(...(mappings(CLASS_E) as [Mapping])), warnings: [] })).toBe(
      '{"overlay":"240.0.0.0/4","underlay":"192.168.0.0/16","vmBits":16,"containerBits":12,"vms":65534,"addressesPerVm":4096,"containersPerVm":4093,"sliceLength":20,"warnings":[]}',
    );
  });
});

describe('explain', () => {
  test('the JSON of the contract, its keys in their order', () => {
    expect(JSON.stringify(explainText([TEN], '10.16.32.91'))).toBe(
      '{"address":"10.16.32.91","kind":"container","vm":"192.168.16.32","slice":"10.16.32.0/24","index":91,"container":90}',
    );
  });

  const VM = '192.168.16.32';
  test.each<[pair: string, address: string, rest: object]>([
    [TEN, '10.16.32.0', { kind: 'slice', vm: VM, slice: '10.16.32.0/24', index: 0 }],
    [TEN, '10.16.32.1', { kind: 'vm', vm: VM, slice: '10.16.32.0/24', index: 1 }],
    [TEN, '10.16.32.2', { kind: 'container', vm: VM, slice: '10.16.32.0/24', index: 2, container: 1 }],
    [TEN, '10.16.32.254', { kind: 'container', vm: VM, slice: '10.16.32.0/24', index: 254, container: 253 }],
    [TEN, '10.16.32.255', { kind: 'reserved', vm: VM, slice: '10.16.32.0/24', index: 255 }],
    [CLASS_E, '241.2.0.91', { kind: 'container', vm: VM, slice: '241.2.0.0/20', index: 91, container: 90 }],
    [CLASS_E, '241.2.15.255', { kind: 'reserved', vm: VM, slice: '241.2.0.0/20', index: 4095 }],
    [CLASS_E_17, '242.4.0.91', { kind: 'container', vm: VM, slice: '242.4.0.0/19', index: 91, container: 90 }],
    [TEN_21, '10.4.0.91', { kind: 'container', vm: VM, slice: '10.4.0.0/19', index: 91, container: 90 }],
    [
      '128.0.0.0/3 1.2.3.4/32',
      '128.0.1.0',
      { kind: 'container', vm: '1.2.3.4', slice: '128.0.0.0/3', index: 256, container: 255 },
    ],
  ])('%s: %s', (pair, address, rest) => expect(explainText([pair], address)).toEqual({ address, ...rest }));

  test.each<[pair: string, container: number | undefined, slice: string, overlay: string]>([
    [TEN, undefined, '10.16.32.0/24', '10.16.32.1'],
    [TEN, 90, '10.16.32.0/24', '10.16.32.91'],
    [TEN, 253, '10.16.32.0/24', '10.16.32.254'],
    [CLASS_E, 90, '241.2.0.0/20', '241.2.0.91'],
    [CLASS_E, 4093, '241.2.0.0/20', '241.2.15.254'],
    [CLASS_E_17, 90, '242.4.0.0/19', '242.4.0.91'],
    [TEN_21, 90, '10.4.0.0/19', '10.4.0.91'],
  ])('%s: underlay 192.168.16.32, container %s', (pair, container, slice, overlay) => {
    expect(explainText([pair], VM, container)).toEqual({
      ...{ address: VM, kind: 'underlay', slice, overlay },
      ...(container === undefined ? {} : { container }),
    });
  });

  test('several mappings: the address finds its own', () => {
    const pairs = [TEN, '11.0.0.0/8 172.16.0.0/16'];
    expect(explainText(pairs, '11.0.9.5')).toMatchObject({ vm: '172.16.0.9', container: 4 });
    expect(explainText(pairs, '172.16.0.9')).toMatchObject({ slice: '11.0.9.0/24' });
  });

  const BROADCAST = 'that is the broadcast address of 192.168.0.0/16';
  const nobody = (address: string, vm: string, why: string) =>
    `nobody can have ${address}: its VM would be ${vm}, but ${why}`;
  const LAST = `192.168.255.255 cannot be a VM: ${BROADCAST}`;
  const HOLDS = 'its slice 248.0.0.0/5 contains 255.255.255.255';
  const PAIR = '240.0.0.0/4 192.168.0.0/31';
  test.each<
    [name: string, pairs: string[], address: string, container: number | undefined, message: string, exitCode: number]
  >([
    ['in neither prefix', [TEN], '11.0.0.1', undefined, '11.0.0.1 is in none of 10.0.0.0/8, 192.168.0.0/16', 1],
    ['container 0', [TEN], VM, 0, '--container 0: expected 1..253', 2],
    ['a container too many', [TEN], VM, 254, '--container 254: expected 1..253', 2],
    ['a container of an overlay address', [TEN], '10.16.32.91', 90, '--container goes with an underlay address', 2],
    ['the last VM of 240/4', [CLASS_E], '192.168.255.255', undefined, LAST, 78],
    [
      'a container of that VM',
      [CLASS_E],
      '255.255.240.2',
      undefined,
      nobody('255.255.240.2', '192.168.255.255', BROADCAST),
      78,
    ],
    [
      "a container of the underlay's network address",
      [TEN],
      '10.0.0.5',
      undefined,
      nobody('10.0.0.5', '192.168.0.0', 'that is the network address of 192.168.0.0/16'),
      78,
    ],
    [
      'the limited broadcast address, where there are two VMs at most',
      [PAIR],
      '255.255.255.255',
      undefined,
      nobody('255.255.255.255', '192.168.0.1', HOLDS),
      78,
    ],
    ['the VM of that slice', [PAIR], '192.168.0.1', undefined, `192.168.0.1 cannot be a VM: ${HOLDS}`, 78],
  ])('refuses %s', (_, pairs, address, container, message, exitCode) => {
    expect(() => explainText(pairs, address, container)).toThrow(expect.objectContaining({ message, exitCode }));
  });

  test('every address of every mapping comes back from its VM and index', () => {
    const sides = fc.tuple(fc.nat(0xffffffff), fc.nat(0xffffffff), fc.integer({ min: 1, max: 30 }), fc.nat(31));
    fc.assert(
      fc.property(sides, fc.nat(0xffffffff), ([overlay, underlay, length, k], bits) => {
        fc.pre(length + k <= 30);
        // The arithmetic holds for all prefixes; the few that no mesh may have are refused by the constructor.
        let pair: Mapping;
        try {
          pair = new Mapping(network(ipv4(overlay), length), network(ipv4(underlay), 32 - k));
        } catch {
          return;
        }
        const address = ipv4(((overlay >>> (32 - length)) << (32 - length)) | (bits >>> length));
        const found = pair.explain(address);
        expect(formatAddress(pair.addressOf(found.vm, found.index))).toBe(formatAddress(address));
      }),
    );
  });
});

describe('refused', () => {
  const away = 'which hosts do not forward';
  test.each([
    ['10.0.0.0/8 10.1.0.0/16', 'overlay 10.0.0.0/8 and underlay 10.1.0.0/16 overlap: expected two separate prefixes'],
    ['10.1.0.0/16 10.0.0.0/8', 'overlay 10.1.0.0/16 and underlay 10.0.0.0/8 overlap: expected two separate prefixes'],
    [
      '10.0.0.0/8 192.0.0.0/9',
      'overlay 10.0.0.0/8 has no room for underlay 192.0.0.0/9: 1 container bits, expected at least 2',
    ],
    [
      '10.0.0.0/16 192.160.0.0/12',
      'overlay 10.0.0.0/16 has no room for underlay 192.160.0.0/12: -4 container bits, expected at least 2',
    ],
    ['0.0.0.0/8 192.168.0.0/16', `overlay 0.0.0.0/8 touches 0.0.0.0/8, ${away}`],
    ['0.0.0.0/1 192.168.0.0/16', `overlay 0.0.0.0/1 touches 0.0.0.0/8, ${away}`],
    ['127.1.0.0/16 192.168.0.0/24', `overlay 127.1.0.0/16 touches 127.0.0.0/8, ${away}`],
    ['126.0.0.0/7 192.168.0.0/16', `overlay 126.0.0.0/7 touches 127.0.0.0/8, ${away}`],
    ['169.254.0.0/16 192.168.0.0/24', `overlay 169.254.0.0/16 touches 169.254.0.0/16, ${away}`],
    ['169.0.0.0/8 192.168.0.0/16', `overlay 169.0.0.0/8 touches 169.254.0.0/16, ${away}`],
    ['224.0.0.0/4 192.168.0.0/16', `overlay 224.0.0.0/4 touches 224.0.0.0/4, ${away}`],
    ['239.0.0.0/8 192.168.0.0/16', `overlay 239.0.0.0/8 touches 224.0.0.0/4, ${away}`],
    ['10.0.0.0/8 127.0.0.0/16', `underlay 127.0.0.0/16 touches 127.0.0.0/8, ${away}`],
    ['10.0.0.0/8 224.0.0.0/16', `underlay 224.0.0.0/16 touches 224.0.0.0/4, ${away}`],
  ])('%s', (pair, message) => {
    expect(() => mappings(pair)).toThrow(expect.objectContaining({ message, exitCode: 78 }));
  });

  test('a hint how many bits are missing', () => {
    const hint = 'shorten the overlay prefix or lengthen the underlay prefix by 6 or more bits';
    expect(() => mappings('10.0.0.0/16 192.160.0.0/12')).toThrow(expect.objectContaining({ hint }));
  });

  test.each([
    ['overlays', [TEN, '10.128.0.0/9 172.16.0.0/24'], 'mappings overlap: 10.0.0.0/8 and 10.128.0.0/9'],
    ['overlay and underlay', [TEN, '11.0.0.0/8 10.0.0.0/24'], 'mappings overlap: 10.0.0.0/8 and 10.0.0.0/24'],
    [
      'underlay and overlay',
      [TEN, '192.168.128.0/17 172.16.0.0/24'],
      'mappings overlap: 192.168.0.0/16 and 192.168.128.0/17',
    ],
  ])('mappings that overlap: %s', (_, pairs, message) => {
    expect(() => checkMappings(mappings(...pairs))).toThrow(expect.objectContaining({ message, exitCode: 78 }));
  });

  test('a VM outside its underlay, its network address, and its broadcast address', () => {
    const [pair] = mappings(CLASS_E) as [Mapping];
    expect(() => pair.checkVm(ipv4(0xc0a9_0001))).toThrow(
      'VM 192.169.0.1 is outside the underlay prefix 192.168.0.0/16',
    );
    for (const vm of [0xc0a8_0001, 0xc0a8_fffe]) expect(() => pair.checkVm(ipv4(vm))).not.toThrow();
    expect(() => pair.checkVm(ipv4(0xc0a8_0000))).toThrow('cannot be a VM: that is the network address');
    expect(() => pair.checkVm(ipv4(0xc0a8_ffff))).toThrow('cannot be a VM: that is the broadcast address');
  });
});

describe('which underlay addresses a VM can have', () => {
  test.each<[pair: string, not: string[], vms: number]>([
    [TEN, ['192.168.0.0', '192.168.255.255'], 65534],
    ['10.0.0.0/8 192.168.16.32/30', ['192.168.16.32', '192.168.16.35'], 2],
    // RFC 3021: two addresses are two hosts.
    ['10.0.0.0/8 192.168.16.32/31', [], 2],
    ['10.0.0.0/8 192.168.16.32/32', [], 1],
    ['240.0.0.0/4 192.168.16.32/31', ['192.168.16.33'], 1],
    ['240.0.0.0/4 192.168.16.32/32', ['192.168.16.32'], 0],
    ['240.0.0.0/5 192.168.16.32/31', [], 2],
  ])('%s: all but %s', (pair, not, vms) => {
    const [only] = mappings(pair) as [Mapping];
    const first = Number(only.underlay.bits);
    const all = Array.from({ length: 2 ** only.vmBits + 2 }, (_, i) => ipv4(first - 1 + i));
    const usable = all.filter((vm) => only.canBeVm(vm));
    expect([usable.length, only.vms]).toEqual([vms, vms]);
    const inside = all.slice(1, -1);
    expect(inside.filter((vm) => !usable.includes(vm)).map(formatAddress)).toEqual(not);
    expect(only.unusedSlices).toEqual(not.map((text) => only.sliceOf(parseAddress(text) as Address)));
    for (const vm of inside) {
      const check = () => only.checkVm(vm);
      if (usable.includes(vm)) expect(check).not.toThrow();
      else expect(check).toThrow(expect.objectContaining({ exitCode: 78 }));
    }
  });
});
