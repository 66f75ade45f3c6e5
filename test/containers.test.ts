/** What attaching knows without a kernel: aliases and names, the slice, what it is asked for, the mesh that a daemon left, and the reasons why it fails. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { aliasOf, type ContainerAlias, containerOf, isAliasOf, macText, namesOf } from '../src/containers/alias.ts';
import { explain } from '../src/containers/explain.ts';
import { findsLock, type Mesh, readMesh, requireLocal, requireMesh, writeMesh } from '../src/containers/mesh.ts';
import { namespacePath, openNamespace } from '../src/containers/namespace.ts';
import { otherVmRemarks } from '../src/containers/other-vm.ts';
import { ContainerError, REASONS, type ReasonName } from '../src/containers/reasons.ts';
import { checkRequest, parseMac } from '../src/containers/request.ts';
import { Slice } from '../src/containers/slice.ts';
import { lockRunDir } from '../src/daemon/lock.ts';
import { addressBytes } from '../src/linux/netlink/ipv4.ts';
import { NetlinkError } from '../src/linux/netlink/message.ts';
import { Netlink } from '../src/linux/netlink/netlink.ts';
import { makerOf } from '../src/machine/alias.ts';
import { type Address, formatAddress, type Prefix, parseAddress, parsePrefix } from '../src/mesh/address.ts';
import { Mapping } from '../src/mesh/mapping.ts';
import { runs } from './runs.ts';

const prefix = (text: string) => parsePrefix(text) as Prefix;
const address = (text: string) => parseAddress(text) as Address;
const mapping = (overlay: string, underlay: string) => new Mapping(prefix(overlay), prefix(underlay));
const USUAL = mapping('10.0.0.0/8', '192.168.0.0/16');
const LOCAL = address('192.168.16.32');
const sliceOf = (overlay: string, underlay: string, local: string) =>
  new Slice({ mappings: [mapping(overlay, underlay)], local: address(local), mtu: 1476, coolDown: 60 });

/** The reason why it throws. */
function reasonOf(work: () => unknown): ReasonName | undefined {
  try {
    work();
    return undefined;
  } catch (error) {
    if (error instanceof ContainerError) return error.reason;
    throw error;
  }
}

/** Ids that `checkRequest` takes. */
const ids = fc
  .array(
    fc.oneof(
      fc.string({ unit: 'grapheme', minLength: 1, maxLength: 1 }),
      fc.constantFrom('a', ' ', '~', '𝕏', '\uFFFD'),
    ),
    {
      minLength: 1,
      maxLength: 256,
    },
  )
  .map((characters) => characters.join(''))
  .filter((id) => reasonOf(() => checkRequest({ id })) === undefined);

describe('aliases', () => {
  const base: ContainerAlias = {
    address: '10.16.32.91',
    ifname: 'eth0',
    netns: 4_026_532_541,
    since: 1_796_068_138,
    id: 'web',
  };

  test('an alias says which container it is, and begins with the name of the project', () => {
    expect(aliasOf(base)).toBe('inlay container 10.16.32.91 eth0 4026532541 1796068138 web');
    expect(containerOf(aliasOf(base))).toEqual(base);
  });

  test('what it tells of is what it was made of, and it is as long as the kernel takes', () => {
    const ifnames = fc.string({ unit: fc.constantFrom(...'aZ09-_.!~@'), minLength: 1, maxLength: 15 });
    const whole = fc.record({
      address: fc.ipV4(),
      ifname: ifnames,
      netns: fc.integer({ min: 1, max: 2 ** 32 - 1 }),
      since: fc.integer({ min: 0, max: 9_999_999_999 }),
      id: ids,
    });
    fc.assert(
      fc.property(whole, (given) => {
        const alias = aliasOf(given);
        // IFALIASZ of <linux/if.h> is 256, with the final zero.
        expect(Buffer.byteLength(alias)).toBeLessThan(256);
        const { id, ...rest } = containerOf(alias) as ContainerAlias;
        const { id: _, ...wanted } = given;
        expect(rest).toEqual(wanted);
        expect(isAliasOf({ ...rest, id }, given)).toBe(true);
        expect(isAliasOf({ ...rest, id }, { ...given, id: `${given.id}x` })).toBe(false);
        expect(isAliasOf({ ...rest, id }, { ...given, ifname: `${given.ifname}x` })).toBe(false);
      }),
      { numRuns: runs(300) },
    );
  });

  test.each([
    { name: 'one that just fits stays whole', id: 'x'.repeat(160), isWhole: true },
    { name: 'a longer one has a hash', id: 'x'.repeat(161), isWhole: false },
    { name: 'of a character that is cut nothing stays', id: `${'x'.repeat(142)}${'𝕏'.repeat(5)}`, isWhole: false },
  ])('ids: $name', ({ id, isWhole }) => {
    const found = containerOf(aliasOf({ ...base, id })) as ContainerAlias;
    expect(found.id === id).toBe(isWhole);
    expect(found.id).not.toContain('\uFFFD');
    expect(isAliasOf(found, { ...base, id })).toBe(true);
    // What list() tells of it finds it, too.
    expect(isAliasOf(found, found)).toBe(true);
  });

  test('two ids that differ only at their ends are two', () => {
    const [one, two] = ['a', 'b'].map((end) => 'x'.repeat(255) + end) as [string, string];
    expect(isAliasOf(containerOf(aliasOf({ ...base, id: one })) as ContainerAlias, { ...base, id: two })).toBe(false);
    expect(namesOf({ id: one, ifname: 'eth0' })).not.toEqual(namesOf({ id: two, ifname: 'eth0' }));
  });

  test.each([
    undefined,
    '',
    'inlay',
    'inlay container ',
    'inlay container 10.16.32.91 eth0 4026532541 1796068138',
    'inlay container 10.16.32.91 eth0 4026532541 1796068138 ',
    'inlay container x eth0 4026532541 1796068138 web',
    'inlay container -10.16.32.91 eth0 4026532541 1796068138 web',
    'inlay container 10.16.32.91 sixteencharacter 4026532541 1796068138 web',
    'inlay container 90 eth0 4026532541 1796068138 web',
    ' inlay container 10.16.32.91 eth0 4026532541 1796068138 web',
    'inlay 192.168.16.32 inlay0 /run/inlay',
    `inlay container 10.16.32.91 eth0 4026532541 1796068138 ${'x'.repeat(220)}`,
  ])('%j is not the alias of a container', (alias) => {
    expect(containerOf(alias)).toBeUndefined();
  });

  test('a container that takes the words of a daemon for its id is none', () => {
    // The daemon looks for its own devices by their aliases, among other kinds of devices.
    expect(makerOf(aliasOf(base))).not.toMatchObject({ device: expect.stringMatching(/^inlay/) });
    const id = '192.168.16.32 inlay0 /run/inlay';
    expect(makerOf(aliasOf({ ...base, id }))).not.toMatchObject({ vm: '192.168.16.32' });
  });

  test('names and link-layer addresses follow from id and interface, and from nothing else', () => {
    const names = namesOf({ id: 'web', ifname: 'eth0' });
    expect({ ...names, hostMac: macText(names.hostMac), mac: macText(names.mac) }).toMatchInlineSnapshot(`
      {
        "hostInterface": "inlb46237qzefm2",
        "hostMac": "5a:ee:9d:be:b5:6d",
        "mac": "da:77:ec:78:25:60",
      }
    `);
    fc.assert(
      fc.property(ids, ids, (id, ifname) => {
        const { hostInterface, hostMac, mac } = namesOf({ id, ifname });
        expect(hostInterface).toMatch(/^inl[a-z2-7]{12}$/);
        // Of one device (bit 0), assigned by nobody (bit 1).
        for (const each of [hostMac, mac]) expect([each.length, (each[0] as number) & 3]).toEqual([6, 2]);
        expect(macText(hostMac)).not.toBe(macText(mac));
        expect(namesOf({ id, ifname: `${ifname}x` }).hostInterface).not.toBe(hostInterface);
      }),
      { numRuns: runs(100) },
    );
  });
});

describe('the slice', () => {
  test.each([
    { overlay: '10.0.0.0/8', underlay: '192.168.0.0/16', local: '192.168.16.32', capacity: 253 },
    { overlay: '240.0.0.0/4', underlay: '192.168.0.0/16', local: '192.168.16.32', capacity: 4093 },
    { overlay: '240.0.0.0/4', underlay: '192.168.0.0/17', local: '192.168.16.32', capacity: 8189 },
    { overlay: '10.0.0.0/24', underlay: '192.168.16.32/31', local: '192.168.16.32', capacity: 125 },
    { overlay: '10.0.0.0/29', underlay: '192.168.16.32/31', local: '192.168.16.33', capacity: 1 },
    { overlay: '10.0.0.0/28', underlay: '192.168.16.32/31', local: '192.168.16.33', capacity: 5 },
  ])('$overlay over $underlay: $capacity containers, each with an address of its own', (given) => {
    const slice = sliceOf(given.overlay, given.underlay, given.local);
    expect(slice.capacity).toBe(given.capacity);
    const seen = new Set<string>();
    for (let container = 1; container <= slice.capacity; container++) {
      const of = slice.addressOf(container);
      seen.add(formatAddress(of));
      expect(slice.containerAt(of)).toBe(container);
      expect(slice.containerIn(addressBytes(of))).toBe(container);
    }
    expect(seen.size).toBe(slice.capacity);
    // The slice itself, the VM, and what comes after the last container.
    const vm = slice.gateway.bits;
    for (const bits of [vm - 1n, vm, vm + BigInt(slice.capacity) + 1n, vm + BigInt(slice.capacity) + 2n, vm - 2n])
      expect(slice.containerAt({ width: 32, bits })).toBeUndefined();
    expect(formatAddress(slice.addressOf(1))).toBe(formatAddress({ width: 32, bits: vm + 1n }));
  });

  test('numbers and addresses that are none of its containers are refused', () => {
    const slice = sliceOf('10.0.0.0/8', '192.168.0.0/16', '192.168.16.32');
    for (const number of [1, 253]) slice.requireNumber(number);
    for (const number of [0, -1, 254, 1.5, Number.NaN, Number.POSITIVE_INFINITY, 2 ** 32 + 1])
      expect(reasonOf(() => slice.requireNumber(number))).toBe('out-of-range');
    expect(slice.requireContainerAt('10.16.32.91')).toBe(90);
    for (const text of ['10.16.32.0', '10.16.32.1', '10.16.32.255', '10.16.33.91', '192.168.16.32', '0.0.0.0'])
      expect(reasonOf(() => slice.requireContainerAt(text))).toBe('out-of-range');
    for (const text of ['', 'web', '10.16.32', '10.16.32.91/32', '010.16.32.91', '::1'])
      expect(['invalid', 'out-of-range']).toContain(reasonOf(() => slice.requireContainerAt(text)));
    expect(slice.text).toBe('10.16.32.2 to 10.16.32.254');
  });

  test('of several mappings, the first that has this VM gives the addresses; a VM of none has no mesh', () => {
    const mappings = [
      mapping('10.0.0.0/8', '172.16.0.0/16'),
      mapping('11.0.0.0/8', '192.168.0.0/16'),
      mapping('12.0.0.0/8', '192.168.0.0/16'),
    ];
    const rest = { mtu: 1476, coolDown: 60 };
    const slice = new Slice({ mappings, local: LOCAL, ...rest });
    expect(formatAddress(slice.gateway)).toBe('11.16.32.1');
    // The order of the mappings may have been another one.
    const texts = ['11.16.32.91', '12.16.32.91', '10.16.32.91', '13.16.32.91'];
    expect(texts.map((text) => [slice.numberOf(text), slice.has(text)])).toEqual([
      [90, true],
      [90, false],
      [90, false],
      [undefined, false],
    ]);
    expect(reasonOf(() => new Slice({ mappings, local: address('10.1.1.1'), ...rest }))).toBe('no-mesh');
    expect(reasonOf(() => new Slice({ mappings: [], local: LOCAL, ...rest }))).toBe('no-mesh');
  });
});

describe('requests', () => {
  test.each([
    ...['a', ' ', 'a b', '/', '~', "';--", 'ä', '网', '𝕏', 'x'.repeat(256), '𝕏'.repeat(256), '%s', '..'],
    'k8s.gcr.io/pause@sha256:0123',
  ])('id %j is taken', (id) => {
    expect(reasonOf(() => checkRequest({ id }))).toBeUndefined();
  });

  test.each([
    ...['', 'x'.repeat(257), '𝕏'.repeat(257), 'x'.repeat(300), 'a\0b', 'a\nb', '\t', '\x1b[31m', '\x7f', '\x85'],
    // What turns the direction of text round, what has no width, half a pair, and what nobody has given a meaning.
    ...['a\u202Eb', 'a\u200Bb', '\uD835', '\u{E0001}', '\uE000'],
  ])('id %j is refused', (id) => {
    expect(reasonOf(() => checkRequest({ id }))).toBe('invalid');
  });

  test('a message shows no id that a terminal would obey', () => {
    const id = `\x1b]0;owned\x07\u202E${'x'.repeat(300)}\n`;
    const error = (() => {
      try {
        checkRequest({ id });
      } catch (thrown) {
        return thrown as Error;
      }
      return new Error('it was taken');
    })();
    expect(error.message).toMatch(/^id "[ -~]+" and more: expected 1 to 256 printable characters$/);
  });

  test.each(['e', 'eth0', 'mesh-0.1', 'fifteen-letters', '!$&', '~', '...', 'all0', 'Default'])(
    'interface %j is taken',
    (ifname) => {
      expect(reasonOf(() => checkRequest({ ifname }))).toBeUndefined();
    },
  );

  test.each([
    ...['', '.', '..', 'sixteen-letters!', 'a b', 'a/b', 'a:b', 'eth%d', 'a\nb', 'ä', '\0', 'all', 'default'],
  ])('interface %j is refused', (ifname) => {
    expect(reasonOf(() => checkRequest({ ifname }))).toBe('invalid');
  });

  test('link-layer addresses', () => {
    expect(macText(parseMac('02:AB:00:00:00:01'))).toBe('02:ab:00:00:00:01');
    expect(macText(parseMac('02-ab-00-00-00-01'))).toBe('02:ab:00:00:00:01');
    const bad = [
      '',
      '02:ab:00:00:00',
      '02:ab:00:00:00:01:02',
      '02:ab:00:00:00:0g',
      '2:ab:0:0:0:1',
      '02ab00000001',
      '02:ab-00:00:00:01',
    ];
    const ofMany = ['00:00:00:00:00:00', '01:00:5e:00:00:01', 'ff:ff:ff:ff:ff:ff', '33:33:00:00:00:01'];
    for (const text of [...bad, ...ofMany]) expect([text, reasonOf(() => parseMac(text))]).toEqual([text, 'invalid']);
    for (const size of [0, 5, 7, 8])
      expect(reasonOf(() => checkRequest({ mac: new Uint8Array(size).fill(2) }))).toBe('invalid');
  });
});

describe('namespaces', () => {
  test.each([
    ['web', '/run/netns/web'],
    ['/proc/1/ns/net', '/proc/1/ns/net'],
    ['./web', './web'],
    [String(process.pid), `/proc/${process.pid}/ns/net`],
    ['0', '/run/netns/0'],
    ['007', '/run/netns/007'],
    ['12345678901', '/run/netns/12345678901'],
    ['1e3', '/run/netns/1e3'],
  ])('%s is looked for at %s', (text, file) => {
    expect(namespacePath(text)).toBe(file);
  });

  test.each(['', '.', '..', 'a\0b', '/proc/self/ns/net\0'])('%j is no name', (text) => {
    expect(reasonOf(() => openNamespace(text))).toBe('invalid');
  });

  test.each([
    ...['/nowhere', '/etc/passwd/x', '/', '/dev/null', '/proc/self/ns/mnt', '/proc/self/ns/user', import.meta.filename],
    ...['4194305', 'x'.repeat(300), `/${'x'.repeat(5000)}`],
  ])('%.40s is no network namespace', (text) => {
    expect(reasonOf(() => openNamespace(text))).toBe('no-namespace');
  });
});

describe('the mesh in the run directory', () => {
  let dir: string;
  beforeEach(() => {
    dir = mkdtempSync(path.join(os.tmpdir(), 'inlay-mesh-'));
  });
  afterEach(() => rmSync(dir, { recursive: true }));

  const mesh: Mesh = {
    mappings: [USUAL, mapping('240.0.0.0/4', '172.16.0.0/16')],
    local: LOCAL,
    mtu: 1476,
    coolDown: 0,
  };
  const same = [
    { overlay: '10.0.0.0/8', underlay: '192.168.0.0/16' },
    { overlay: '240.0.0.0/4', underlay: '172.16.0.0/16' },
  ];

  test('what was written is read', () => {
    expect(readMesh(dir)).toBeUndefined();
    writeMesh(dir, mesh);
    expect(readMesh(dir)).toEqual(mesh);
    expect(requireMesh(dir, same)).toEqual(mesh);
    expect(requireMesh(dir, [...same].reverse())).toEqual(mesh);
  });

  test.each([
    '',
    '{',
    'null',
    '[]',
    '{}',
    '{"vm":"192.168.16.32","mtu":"1476","coolDown":60,"mappings":[]}',
    '{"vm":"192.168.16.32","mtu":1476,"coolDown":60,"mappings":[]}',
    '{"vm":"192.168.16.32","mtu":1476,"coolDown":60,"mappings":[{"overlay":"10.0.0.0/8"}]}',
    '{"vm":"192.168.16.32","mtu":1476,"coolDown":60,"mappings":[null]}',
    '{"vm":"172.20.0.1","mtu":1476,"coolDown":60,"mappings":[{"overlay":"10.0.0.0/8","underlay":"192.168.0.0/16"}]}',
    '{"vm":"192.168.16.32","mtu":1476,"coolDown":60,"mappings":[{"overlay":"192.168.0.0/15","underlay":"192.168.0.0/16"}]}',
  ])('%.60s is damaged', (content) => {
    writeFileSync(path.join(dir, 'mesh.json'), content);
    expect(reasonOf(() => readMesh(dir))).toBe('damaged-mesh');
  });

  test('none, and another', () => {
    expect(reasonOf(() => requireMesh(dir))).toBe('no-mesh');
    writeMesh(dir, mesh);
    for (const wanted of [[], same.slice(1), [{ ...(same[0] as object), underlay: '192.168.0.0/17' }]])
      expect(reasonOf(() => requireMesh(dir, wanted as typeof same))).toBe('other-mesh');
  });
});

test('where a daemon runs that has no underlay address yet, that is the reason', async () => {
  // Other file systems may have other numbers in /proc/locks.
  const dir = mkdtempSync('/dev/shm/inlay-containers-');
  try {
    const lock = await lockRunDir(dir, '');
    expect(reasonOf(() => requireMesh(dir))).toBe('no-underlay');
    lock.release();
    expect(reasonOf(() => requireMesh(dir))).toBe('no-mesh');
  } finally {
    rmSync(dir, { recursive: true });
  }
});

test('a lock is found by device and inode', () => {
  const text = '1: POSIX  ADVISORY  WRITE 1 00:1a:7 0 EOF\n2: FLOCK  ADVISORY  WRITE 708 103:1a2:21 0 EOF\n';
  const dev = (0x103 << 8) | 0xa2 | (0x100 << 12);
  expect(findsLock(text, dev, 21)).toBe(true);
  expect([findsLock(text, dev, 2), findsLock(text, dev + 1, 21), findsLock(text, 0x1a, 7)]).toEqual(
    Array(3).fill(false),
  );
});

test('a mesh is one of this machine only while that has the address', () => {
  const netlink = Netlink.open();
  const at = (text: string) => ({ local: parseAddress(text) as Address });
  expect(() => requireLocal(netlink, at('127.0.0.1'))).not.toThrow();
  // RFC 5737: nobody has it.
  expect(reasonOf(() => requireLocal(netlink, at('192.0.2.1')))).toBe('no-underlay');
  netlink.close();
});

describe('containers of the VM that this one was before', () => {
  const plan = { mappings: [USUAL], local: LOCAL };
  const alias = (address: string, id: string) => aliasOf({ address, id, ifname: 'eth0', netns: 1, since: 1 });

  test('are told from its own, and from those of another overlay', () => {
    const own = [alias('10.16.32.91', 'a'), alias('11.0.0.2', 'b'), 'somebody else', undefined];
    expect(otherVmRemarks(own, plan)).toEqual([]);
    const [remark, ...others] = otherVmRemarks([...own, alias('10.16.33.91', "it's")], plan);
    expect(others).toEqual([]);
    expect(remark?.what).toMatch(/^1 container is attached as another VM \(10\.16\.33\.91\), not as 192\.168\.16\.32/);
    expect(remark?.hint).toContain(`inlay detach --id 'it'\\''s' --ifname eth0`);
  });

  test('are counted; a few are named', () => {
    const [remark] = otherVmRemarks(
      [2, 3, 4, 5].map((i) => alias(`10.16.33.${i}`, `c${i}`)),
      plan,
    );
    expect(remark?.what).toContain('4 containers are attached as another VM (10.16.33.2, 10.16.33.3, 10.16.33.4, ...)');
  });
});

describe('reasons', () => {
  test('each has an exit code that no success has, and a code of CNI that is its own or the specification’s', () => {
    const own = Object.values(REASONS)
      .map(({ cni }) => cni)
      .filter((code) => code >= 100);
    expect(new Set(own).size).toBe(own.length);
    for (const [reason, { exit, cni }] of Object.entries(REASONS)) {
      expect([reason, exit > 0 && exit < 126]).toEqual([reason, true]);
      // CNI specification 1.1.0, section 2: 4 to 7 and 11 are of everybody.
      expect([reason, cni >= 100 || [4, 5, 7, 11].includes(cni)]).toEqual([reason, true]);
      expect(new ContainerError(reason as ReasonName, 'x').exitCode).toBe(exit);
    }
  });

  const identity = { id: 'web', ifname: 'eth0' };
  const namespace = { fd: -1, inode: 1, name: 'c90' };
  const { EACCES, EEXIST, EINVAL, ENOBUFS, ENODEV, EOPNOTSUPP, EPERM } = os.constants.errno;
  test.each<[number, 'link' | 'host' | 'inside', ReasonName]>([
    [EPERM, 'link', 'permission'],
    [EACCES, 'host', 'permission'],
    [EOPNOTSUPP, 'link', 'no-veth'],
    [EEXIST, 'link', 'interface-exists'],
    [EEXIST, 'host', 'system'],
    [ENODEV, 'host', 'namespace-gone'],
    [ENODEV, 'inside', 'namespace-gone'],
    [EINVAL, 'host', 'system'],
    [EINVAL, 'inside', 'system'],
    [EINVAL, 'link', 'system'],
    [ENOBUFS, 'link', 'system'],
    [ENOBUFS, 'inside', 'system'],
  ])('errno %i of step %s means %s', (errno, step, reason) => {
    const error = explain(new NetlinkError(errno, 'veth'), step, identity, namespace);
    expect(error).toMatchObject({ reason, cause: { errno } });
  });

  test('what is no error of the kernel stays what it is', () => {
    for (const error of [new Error('x'), new ContainerError('full', 'x')]) expect(explain(error, 'link')).toBe(error);
  });
});
