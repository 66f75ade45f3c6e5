/** The example for Node does what the core does; and the runner that judges all hosts sees what is wrong with one. */
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { readFile, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { typescriptCore } from 'inlay/core/typescript';
import { afterAll, describe, expect, test } from 'vitest';
import { forwarded } from '../examples/javascript/forward.js';
import { PcapWriter, readPcap } from '../examples/javascript/pcap.js';
import { run } from '../examples/javascript/program.js';
import { abi, ipv4, type PacketCore, verdictName } from '../src/core/index.ts';
import { config, cores } from './core.ts';
import { conform } from './hosts/conform.mjs';
import { prepare, weakness } from './hosts/expected.mjs';
import { HOSTS } from './hosts/hosts.mjs';
import { PageServer } from './hosts/page-server.mjs';
import { conformanceTable, replaceMarked } from './hosts/table.mjs';
import { MESH } from './hosts/traffic.mjs';
import { ipv4Packet } from './packet.ts';

const folder = mkdtempSync(path.join(os.tmpdir(), 'inlay-hosts-test-'));
const PACKETS = 600;
const expected = prepare({ seed: 7, packets: PACKETS });
afterAll(() => {
  rmSync(folder, { recursive: true });
  expected.close();
});
const file = (name: string) => path.join(folder, name);

const runner = fileURLToPath(new URL('hosts/main.mjs', import.meta.url));

const [here, there] = [ipv4('10.16.32.91'), ipv4('10.16.33.7')];
const time = { seconds: 1_780_000_000, microseconds: 123_456 };

describe('the example for Node', () => {
  const root = fileURLToPath(new URL('..', import.meta.url));
  const words = (core: string, input: string) => {
    return ['examples/node/main.js', core, 'encapsulate', ...Object.values(MESH), file(input), file('out.pcap')];
  };
  const node = (core: string, input: string) =>
    execFileSync(process.execPath, words(core, input), { cwd: root, encoding: 'utf8' });

  /** What the core makes of the packets in one call. */
  function direct(packets: Uint8Array[]) {
    const core = cores[0]?.make() as PacketCore;
    core.configure(config);
    for (const [i, packet] of packets.entries()) core.put(i, packet);
    expect(core.encapsulate(0, packets.length, time.seconds * 1000 + time.microseconds / 1000)).toBe(packets.length);
    const made = [...core.messages.all(), ...core.messages.replies()];
    return { made: made.map((message) => core.messages.bytes(message)), counters: core.counters('outbound') };
  }

  test.each(['wasm', 'typescript', 'build/core.wasm', 'build/core-scalar.wasm'])('with %s', (core) => {
    const packets = [
      ipv4Packet(here, there, 100),
      ipv4Packet(here, ipv4('8.8.8.8'), 100),
      ipv4Packet(here, there, 3000),
      new Uint8Array(10),
    ];
    const input = new PcapWriter();
    // One batch: what becomes of it has the time of its first packet.
    for (const [i, bytes] of packets.entries()) input.add({ ...time, seconds: time.seconds + i, bytes }, bytes);
    writeFileSync(file('in.pcap'), input.bytes);
    const text = node(core, 'in.pcap');
    const { made, counters } = direct(packets);
    expect([...readPcap(readFileSync(file('out.pcap')))]).toEqual(
      made.map((it) => ({ ...time, bytes: Buffer.from(it) })),
    );
    const { received, forwarded, drops } = counters;
    expect([received, forwarded, drops[2], drops[8]]).toEqual([6, 4, 1, 1]);
    expect(text).toBe('received 6\nforwarded 4\ndrop -2 1\ndrop -8 1\n');
    expect(verdictName(-8)).toBe('no-mapping');
  });

  test('Ethernet, most significant byte first; what is not IPv4 is left out, what is too long is counted', () => {
    const packet = ipv4Packet(here, there, 100);
    const frame = (type: number[], bytes: Uint8Array) => Buffer.concat([Buffer.alloc(12), Buffer.from(type), bytes]);
    const frames = [
      frame([8, 6], packet),
      frame([8, 0], new Uint8Array(abi.SLOT_SIZE - abi.HEADROOM + 1)),
      Buffer.alloc(13),
      frame([8, 0], packet),
    ];
    const header = Buffer.from('a1b2c3d4000200040000000000000000000fffff00000001', 'hex');
    const records = frames.map((it, i) => {
      const record = Buffer.alloc(16);
      for (const [n, word] of [i, 5, it.length, it.length].entries()) record.writeUInt32BE(word, 4 * n);
      return Buffer.concat([record, it]);
    });
    writeFileSync(file('ethernet.pcap'), Buffer.concat([header, ...records]));
    expect(node('wasm', 'ethernet.pcap')).toBe('received 1\nforwarded 1\nskipped 1\n');
    const out = [...readPcap(readFileSync(file('out.pcap')))];
    expect(out).toEqual([{ seconds: 3, microseconds: 5, bytes: Buffer.from(direct([packet]).made[0] as Uint8Array) }]);
  });

  test.each([
    ['a file without a header', '00', 'bad.pcap: the file ends in its header'],
    ['other magic', `4d3cb2a1${'00'.repeat(20)}`, 'bad.pcap: not a pcap file with microseconds'],
    ['a link type', `d4c3b2a1${'00'.repeat(16)}09000000`, 'bad.pcap: link type 9: expected 1, 101 or 228'],
    [
      'half a packet header',
      `d4c3b2a1${'00'.repeat(16)}65000000${'00'.repeat(9)}`,
      'bad.pcap: the file ends in packet 1',
    ],
    [
      'half a packet',
      `d4c3b2a1${'00'.repeat(16)}65000000${'00'.repeat(8)}0500000005000000aa`,
      'bad.pcap: the file ends in packet 1',
    ],
  ])('%s is an error', (_, bytes, message) => {
    writeFileSync(file('bad.pcap'), Buffer.from(bytes, 'hex'));
    const options = { cwd: root, encoding: 'utf8' } as const;
    const { status, stdout, stderr } = spawnSync(process.execPath, words('wasm', 'bad.pcap'), options);
    expect([status, stdout]).toEqual([1, '']);
    expect(stderr).toContain(message);
  });

  test('what cannot be written is an error that leaves nothing behind; a device stays one', () => {
    const input = new PcapWriter();
    input.add({ ...time, bytes: new Uint8Array() }, ipv4Packet(here, there, 100));
    writeFileSync(file('in.pcap'), input.bytes);
    const start = (output: string) =>
      spawnSync(process.execPath, [...words('wasm', 'in.pcap').slice(0, -1), output], { cwd: root, encoding: 'utf8' });
    expect(start(file('nope/x'))).toMatchObject({ status: 1, stdout: '', stderr: expect.stringContaining('nope/x') });
    mkdirSync(file('taken'));
    expect(start(file('taken'))).toMatchObject({ status: 1, stdout: '', stderr: expect.stringContaining('taken') });
    const { ino } = statSync('/dev/null');
    expect(start('/dev/null')).toMatchObject({ status: 0, stdout: 'received 1\nforwarded 1\n' });
    expect(statSync('/dev/null').ino).toBe(ino);
    expect(readdirSync(folder).filter((name) => name.endsWith('.part') || name === 'nope')).toEqual([]);
  });
});

describe('the runner', () => {
  interface Changes {
    /** Of what should be an error. */
    code?: (words: string[]) => object | undefined;
    text?: (text: string, mode: string) => string;
    pcap?: (bytes: Uint8Array) => Uint8Array;
  }

  /** What a host in this process does of what it is told: it is done once. */
  const done = new Map<string, { stdout: string; pcap: Uint8Array }>();

  /** That host; what comes out of it is changed. */
  function host({ text = (it) => it, pcap = (it) => it, code = () => undefined }: Changes = {}) {
    const start = async (words: string[]) => {
      const mode = words[0] as string;
      // Other files are written anew for each case.
      const isKept = mode === 'vectors' ? words[1] === expected.vectors : words[4] === expected.pcaps[mode];
      let right = isKept ? done.get(mode) : undefined;
      try {
        if (right === undefined) {
          let written: Uint8Array = new Uint8Array();
          const write = async (_: string, bytes: Uint8Array) => {
            written = bytes;
          };
          right = { stdout: await run(['typescript', ...words], { read: readFile, write }), pcap: written };
          if (isKept) done.set(mode, right);
        }
        if (mode !== 'vectors') await writeFile(words.at(-1) as string, pcap(right.pcap));
        return { code: 0, stdout: text(right.stdout, mode), stderr: '' };
      } catch (error) {
        return code(words) ?? { code: 1, stdout: '', stderr: String(error) };
      }
    };
    return { name: 'ours', others: [], run: start };
  }

  /** The same with one bit of byte `at` changed. */
  const flipped = (at: number) => (bytes: Uint8Array) => {
    const copy = Uint8Array.from(bytes);
    copy[at] = (copy[at] as number) ^ 1;
    return copy;
  };

  test('has nothing against a host that is right', async () => {
    const { passed, digest, problems } = await conform(host(), expected);
    expect(problems).toEqual([]);
    expect([passed, digest]).toEqual([expected.answers.length, expected.digest]);
    expect(expected.answers.length).toBeGreaterThan(150);
  });

  const FIRST_PACKET = 24 + 16;

  test.each([
    ['a packet', { pcap: flipped(FIRST_PACKET + 50) }, 'encapsulate: packet 1 of the output has other bytes'],
    ['a time stamp', { pcap: flipped(24) }, 'encapsulate: packet 1 of the output has another time'],
    ['the header', { pcap: flipped(16) }, 'encapsulate: the header of the output is another'],
    ['a length', { pcap: flipped(32 + 3) }, 'encapsulate: the output is no pcap: the pcap: packet 1: 1677'],
    ['the last packet', { pcap: (bytes: Uint8Array) => bytes.subarray(0, 24) }, 'encapsulate: the output has only 0'],
    [
      'the counters',
      { text: (text: string) => text.replace(/^forwarded \d/m, 'forwarded 0') },
      'encapsulate: counters: ',
    ],
  ])('sees that %s is not right', async (_, change, problem) => {
    const { digest, problems } = await conform(host(change), expected);
    expect(problems).toContainEqual(expect.stringContaining(problem));
    expect(digest).not.toBe(expected.digest);
  });

  test('sees that a vector is not right, or that one is missing', async () => {
    const wrong = await conform(
      host({ text: (text, mode) => (mode === 'vectors' ? text.replace('4500', '4501') : text) }),
      expected,
    );
    expect(wrong.problems).toEqual([expect.stringContaining('is right')]);
    expect(wrong.passed).toBe(expected.answers.length - 1);
    const short = await conform(
      host({ text: (text, mode) => (mode === 'vectors' ? text.replace(/.*\n$/, '') : text) }),
      expected,
    );
    expect(short.problems).toHaveLength(2);
  });

  test('sees that a host fails', async () => {
    const { problems } = await conform(host({ pcap: () => expect.fail('no room') }), expected);
    expect(problems).toEqual([
      expect.stringMatching(/^encapsulate: ends with 1: .*no room/),
      expect.stringMatching(/^IN is OUT: ends with 1: .*no room/),
    ]);
  });

  test('sees that a host does not say what is wrong, loses a file, or leaves one behind', async () => {
    const lax = { code: 0, stdout: '', stderr: '' };
    const code = (words: string[]) => {
      const output = words[5] as string;
      if (words[0] === 'vectors') return readFileSync(words[1] as string, 'latin1').includes('abc') ? lax : undefined;
      if (readFileSync(words[4] as string).length > 24) return undefined;
      writeFileSync(output, 'new');
      writeFileSync(`${output}.part`, '');
      return lax;
    };
    const { problems } = await conform(host({ code }), expected);
    expect(problems).toContainEqual(expect.stringMatching(/^vectors: outbound abc .*ends with 0/));
    expect(problems).toContainEqual(expect.stringMatching(/^ends with 0: \n.* link type 9/));
    expect(problems).toContain('link type 9: expected 1, 101 or 228: OUT.pcap is not what it was');
    expect(problems).toContainEqual(expect.stringMatching(/^link type 9: .*: leaves ours-edge-out.part behind/));
  });

  test.each([
    [['--only', 'nonesuch'], /^--only "nonesuch": expected node, .*rust-wasmtime\n$/],
    [['--bogus'], /^Unknown option '--bogus'\n$/],
    [['--packets', 'x'], /^--packets "x": expected a whole number, 1 or more\n$/],
    [['--packets'], /^Option '--packets <value>' argument missing\n$/],
  ])('has one sentence for %j', (words, sentence) => {
    const { status, stdout, stderr } = spawnSync(process.execPath, [runner, ...words], { encoding: 'utf8' });
    expect([status, stdout]).toEqual([1, '']);
    expect(stderr).toMatch(sentence);
  });

  test('says at once which file of its page is not there', async () => {
    const server = new PageServer();
    const url = await server.listen();
    try {
      expect((await fetch(`${url}test/hosts/page.html`)).status).toBe(200);
      expect((await fetch(`${url}favicon.ico`)).status).toBe(404);
      expect(await Promise.race([server.missing, 'nothing'])).toBe('nothing');
      expect((await fetch(`${url}dist/core/nonesuch.js`)).status).toBe(404);
      await expect(server.missing).rejects.toThrow('the page asks for dist/core/nonesuch.js, which is not there');
    } finally {
      server.close();
    }
  });

  test('has batches in its corpus for which one call has no room', () => {
    const core = typescriptCore();
    const calls = { encapsulate: 0, decapsulate: 0 };
    for (const direction of ['encapsulate', 'decapsulate'] as const) {
      core[direction] = (...words) => {
        calls[direction]++;
        return Object.getPrototypeOf(core)[direction].apply(core, words);
      };
      forwarded(core, direction, MESH, readFileSync(expected.pcaps[direction]));
    }
    const batches = Math.ceil(PACKETS / 2 / abi.BATCH_SIZE);
    expect(calls.encapsulate).toBeGreaterThan(batches);
    expect(calls.decapsulate).toBeGreaterThan(batches);
  });

  test('wants a corpus that meets what there is', () => {
    expect(weakness(expected, PACKETS)).toBeUndefined();
    expect(weakness({ ...expected, met: new Set([-1]) }, 100_000)).toContain('1 drop reasons are met');
    const counters = 'received 100\nforwarded 10\n';
    const outcomes = { encapsulate: { counters }, decapsulate: { counters } };
    const met = new Set(Array.from({ length: 30 }, (_, i) => -i));
    expect(weakness({ outcomes, met }, 100_000)).toContain('10 % are forwarded');
  });

  test('makes tables, which go where a document has its marks', () => {
    const results = [
      { name: 'a', version: '1', passed: 3, digest: '0123456789abcdef0123', problems: [] },
      { name: 'b', version: '2', passed: 2, digest: 'f', problems: ['something'] },
      { name: 'c', version: '', passed: 0, missing: 'no c', problems: [] },
    ];
    const table = conformanceTable(results, 3);
    const cells = table.split('\n').map((row) => row.split('|').map((cell) => cell.trim()));
    expect([cells[0], ...cells.slice(2, 5)].map((row) => row?.slice(2, -1))).toEqual([
      ['a', 'b', 'c'],
      ['1', '2', 'not here'],
      ['3 of 3', '2 of 3', ''],
      ['01234567', '**fails**', ''],
    ]);
    writeFileSync(file('doc.md'), 'a\n<!-- x -->\nold\n<!-- /x -->\nb\n');
    replaceMarked(file('doc.md'), 'x', 'new $&\n');
    expect(readFileSync(file('doc.md'), 'utf8')).toBe('a\n<!-- x -->\nnew $&\n<!-- /x -->\nb\n');
    expect(() => replaceMarked(file('doc.md'), 'y', '')).toThrow('has no <!-- y -->');
  });

  test('knows each host by one name', () => {
    expect(new Set(HOSTS.map(({ name }) => name)).size).toBe(HOSTS.length);
  });
});
