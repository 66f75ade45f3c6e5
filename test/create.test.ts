/** inlay/core as an embedder meets it: from any source of the module, with addresses as text, and a memory that is all there is. */
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import binaryen from 'assemblyscript/binaryen';
import { describe, expect, test, vi } from 'vitest';
import {
  abi,
  createCore,
  hasSimd,
  ipv4,
  ipv4Text,
  type Mapping,
  mapping,
  type PacketCore,
  verdictName,
} from '../src/core/index.ts';
import { cores, hex, messages } from './core.ts';
import * as wire from './packet.ts';

const file = (name: string) => new URL(`../build/${name}`, import.meta.url);
const bytes = new Uint8Array(readFileSync(file('core.wasm')));
const PACKET = Buffer.from('4500001400000000400125680a10205b0a102107', 'hex');
const HERE = { local: ipv4('192.168.16.32'), mappings: [mapping('10.0.0.0/8', '192.168.0.0/16')] };
/** How its one message begins. */
const OUTER = /^4500002c00004000402f/;

function encapsulated(core: PacketCore): string {
  core.configure(HERE);
  core.put(0, PACKET);
  core.encapsulate(0, 1, 1);
  expect(verdictName(core.verdict(0))).toBe('forward');
  return core.messages
    .all()
    .map((message) => hex(core.messages.bytes(message)))
    .join();
}

describe('createCore', () => {
  test.each([
    ['nothing', undefined],
    ['bytes', bytes],
    ['a buffer', bytes.buffer],
    ['a module', new WebAssembly.Module(bytes)],
    ['an address', file('core.wasm')],
    ['an address as text', file('core-scalar.wasm').href],
    ['a data address', `data:application/wasm;base64,${Buffer.from(bytes).toString('base64')}`],
    ['a response', new Response(bytes)],
  ])('makes a core of %s', async (_, source) => {
    expect(encapsulated(await createCore(source))).toMatch(OUTER);
  });

  test('makes a core of what a server sends, and says what it answers instead', async () => {
    const server = createServer((request, response) => {
      response.statusCode = request.url === '/core.wasm' ? 200 : 404;
      response.end(bytes);
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    try {
      expect(encapsulated(await createCore(`${origin}/core.wasm`))).toMatch(OUTER);
      expect(encapsulated(await createCore(await fetch(`${origin}/core.wasm`)))).toMatch(OUTER);
      await expect(createCore(`${origin}/none`)).rejects.toThrow(`${origin}/none: HTTP status 404`);
    } finally {
      server.close();
    }
  });

  test.each([
    ['no module', new Uint8Array(8), WebAssembly.CompileError],
    ['an address that leads nowhere', file('none.wasm'), 'ENOENT'],
    ['a module of something else', Uint8Array.of(0, 97, 115, 109, 1, 0, 0, 0), 'not a packet core'],
  ])('rejects %s', async (_, source, error) => {
    await expect(createCore(source)).rejects.toThrow(error);
  });

  test('two cores share nothing', async () => {
    const [a, b] = [await createCore(), await createCore()];
    encapsulated(a);
    expect([a.counters('outbound').forwarded, b.counters('outbound').forwarded]).toEqual([1, 0]);
  });

  test.each([
    { has: true, name: 'core.wasm' },
    { has: false, name: 'core-scalar.wasm' },
  ])('an engine whose SIMD is $has gets $name', async ({ has, name }) => {
    vi.spyOn(WebAssembly, 'validate').mockReturnValue(has);
    const compile = vi.spyOn(WebAssembly, 'compile');
    await createCore();
    const [given] = compile.mock.calls[0] as [Uint8Array];
    vi.restoreAllMocks();
    expect(Buffer.compare(given, readFileSync(file(name)))).toBe(0);
  });

  test('this engine has SIMD; core.wasm needs it, and core-scalar.wasm does not', () => {
    const needsSimd = (name: string) => {
      const module = binaryen.readBinary(readFileSync(file(name)));
      module.setFeatures(binaryen.Features.All & ~binaryen.Features.SIMD128 & ~binaryen.Features.RelaxedSIMD);
      return module.validate() === 0;
    };
    expect([hasSimd(), needsSimd('core.wasm'), needsSimd('core-scalar.wasm')]).toEqual([true, true, false]);
  });

  test('an address that is none is named', async () => {
    await expect(createCore('core.wasm')).rejects.toThrow('"core.wasm"');
  });
});

describe('addresses', () => {
  test.each(['0.0.0.0', '10.16.32.91', '255.255.255.255', '192.168.0.1'])('%s there and back', (text) => {
    expect(ipv4Text(ipv4(text))).toBe(text);
  });

  test.each(['', '10.0.0', '10.0.0.256', '010.0.0.1', '1.2.3.4.5', '0x7f.0.0.1', ' 1.2.3.4', '1.2.3.-4', '1e1.0.0.1'])(
    '"%s" is none',
    (text) => {
      expect(() => ipv4(text)).toThrow(RangeError);
      expect(() => mapping(`${text}/8`, '192.168.0.0/16')).toThrow(RangeError);
    },
  );

  test.each(['10.0.0.0', '10.0.0.0/', '10.0.0.0/33', '10.0.0.0/08', '10.0.0.0/8/8', '10.0.0.0/-1'])(
    '"%s" is no prefix',
    (text) => {
      expect(() => mapping('10.0.0.0/8', text)).toThrow(RangeError);
    },
  );

  test('a mapping is two prefixes as numbers', () => {
    expect(mapping('240.0.0.0/4', '192.168.0.0/17')).toEqual({
      ...{ overlay: 0xf0000000, overlayLength: 4 },
      ...{ underlay: 0xc0a80000, underlayLength: 17 },
    });
  });
});

describe.each(cores)('$name', ({ make }) => {
  test('put takes what a slot holds, and no more', () => {
    const core = make();
    expect(() => core.put(abi.BATCH_SIZE - 1, new Uint8Array(abi.SLOT_SIZE - abi.HEADROOM))).not.toThrow();
    expect(() => core.put(0, new Uint8Array(abi.SLOT_SIZE - abi.HEADROOM + 1))).toThrow(RangeError);
    for (const index of [-1, abi.BATCH_SIZE, Number.NaN]) {
      expect(() => core.put(index, new Uint8Array(20))).toThrow(RangeError);
    }
  });

  test.each([
    [{ encapsulation: 'gre' }, 1476],
    [{ encapsulation: 'gre-udp' }, 1468],
    [{ encapsulation: 'gre', key: 1, greChecksum: true }, 1468],
  ] as const)('the longest packet of %j fits Ethernet, %i bytes', (format, mtu) => {
    const core = make();
    core.configure({ ...HERE, ...format });
    expect(core.mtu).toBe(mtu);
  });

  test.each(['192.168.16.32', -1, 2 ** 32, 1.5, Number.NaN, undefined])('%s is no address of a VM', (local) => {
    expect(() => make().configure({ ...HERE, local: local as number })).toThrow(`local ${local}: expected a u32`);
  });

  test('a mapping that cannot be is named, and leaves all as it was', () => {
    const core = make();
    core.configure(HERE);
    const before = core.bytes.slice();
    for (const bad of ['127.0.0.0/8', '0.0.0.0/1', '10.0.0.0/16']) {
      const mappings = [...HERE.mappings, mapping(bad, '172.16.0.0/16')];
      expect(() => core.configure({ local: 1, mappings })).toThrow(`mapping of ${bad} to 172.16.0.0/16: expected`);
      expect(Buffer.compare(core.bytes, before)).toBe(0);
    }
    const many = Array.from({ length: abi.MAX_MAPPINGS + 1 }, () => HERE.mappings[0] as Mapping);
    expect(() => core.configure({ local: 1, mappings: many })).toThrow('expected up to 16');
    expect(Buffer.compare(core.bytes, before)).toBe(0);
  });

  // All configuration and all state lives in memory.
  test.each(['gre', 'gre-udp'] as const)('a core whose memory is copied is the same core, %s', (encapsulation) => {
    const first = make();
    first.configure({
      ...HERE,
      ...{ encapsulation, key: 7, greChecksum: true, greSequence: true, pathMtuDiscovery: false, clampMss: true },
    });
    first.attach({ offloads: abi.OFFLOAD_UDP_SEGMENT, ports: 4 });
    const packets = [64, 1000, 1400, 2000].map((size) => wire.packetOf({ payload: wire.payloadOf(size) }));
    const call = (core: PacketCore, now: number) => {
      for (const [i, packet] of packets.entries()) core.put(i, packet);
      core.encapsulate(0, packets.length, now);
      return messages(core);
    };
    call(first, 1);
    const second = make();
    second.bytes.set(first.bytes);
    const made = call(first, 2);
    expect(made.length).toBeGreaterThan(0);
    expect(call(second, 2)).toEqual(made);
    for (const core of [first, second]) core.refuse(made[0]?.index as number, 1, 3);
    expect(second.counters('outbound')).toEqual(first.counters('outbound'));
    expect(second.messages.replies().map((reply) => hex(second.messages.bytes(reply)))).toEqual(
      first.messages.replies().map((reply) => hex(first.messages.bytes(reply))),
    );
    expect(second.tunnels.copy(3)).toEqual(first.tunnels.copy(3));
  });
});
