/** The journal: what is noted survives whatever becomes of its file, and of those who write it. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import fc from 'fast-check';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { Lab } from '../../src/demo/lab.ts';
import { DAEMON, type Entry, Journal } from '../../src/machine/journal.ts';
import type { LinkThing, Thing } from '../../src/machine/state.ts';
import { missing, skip } from '../net/require.ts';

const noDisk = skip('a full disk', await missing('mount'));
const FILE = 'journal.jsonl';
const APPEND = fileURLToPath(new URL('./append.mjs', import.meta.url));
const FULL_DISK = fileURLToPath(new URL('./full-disk.mjs', import.meta.url));

const linkOf = (device: string): LinkThing => ({ kind: 'link', device, info: { kind: 'gre' } });
const sysctl: Thing = {
  kind: 'sysctl',
  name: 'net/ipv4/conf/gre0/rp_filter',
  value: '1',
  device: 'gre0',
  others: true,
};
const route: Thing = { kind: 'route', to: '10.0.0.0/8', metric: 1, protocol: 75 };

let runDir: string;
beforeEach(() => {
  runDir = mkdtempSync(path.join(os.tmpdir(), 'inlay-journal-'));
});
afterEach(() => rmSync(runDir, { recursive: true, force: true }));

const file = () => path.join(runDir, FILE);
const text = () => readFileSync(file(), 'utf8');
const lines = () => text().split('\n').slice(0, -1);
const lineOf = (device: string, op = 'add') => JSON.stringify({ v: 1, op, owner: DAEMON, thing: linkOf(device) });
const devicesOf = (journal: Journal, owner = DAEMON) =>
  journal.entries(owner).map(({ thing }) => ('device' in thing ? thing.device : ''));

describe('notes', () => {
  test('come back in their order, with their owner', () => {
    const journal = new Journal(runDir);
    journal.add(DAEMON, linkOf('inlay0'));
    journal.add('container 90', route);
    journal.add(DAEMON, sysctl, '2');
    for (const each of [journal, new Journal(runDir)]) {
      expect(each.entries(DAEMON)).toEqual([
        { owner: DAEMON, thing: linkOf('inlay0') },
        { owner: DAEMON, thing: sysctl, before: '2' },
      ]);
      expect(each.entries('container 90')).toEqual([{ owner: 'container 90', thing: route }]);
      expect(each.size).toBe(3);
      expect(each.isWritten).toBe(true);
    }
  });

  test('the first of a thing counts', () => {
    const journal = new Journal(runDir);
    journal.add(DAEMON, sysctl, '2');
    journal.add(DAEMON, sysctl, '1');
    expect(journal.entries(DAEMON)).toEqual([{ owner: DAEMON, thing: sysctl, before: '2' }]);
    const next = new Journal(runDir);
    next.add(DAEMON, sysctl, '0');
    expect(new Journal(runDir).entries(DAEMON)).toEqual([{ owner: DAEMON, thing: sysctl, before: '2' }]);
  });

  test('are each owner’s own', () => {
    const journal = new Journal(runDir);
    journal.add(DAEMON, route);
    journal.add('other', route);
    journal.drop('other', route);
    expect(journal.has(DAEMON, route)).toBe(true);
    expect(journal.has('other', route)).toBe(false);
    expect(new Journal(runDir).has(DAEMON, route)).toBe(true);
  });

  test('are new in the process that made them', () => {
    const journal = new Journal(runDir);
    const entry = { owner: DAEMON, thing: route };
    expect(journal.isNew(entry)).toBe(false);
    journal.add(DAEMON, route);
    expect(journal.isNew(entry)).toBe(true);
    const next = new Journal(runDir);
    next.add(DAEMON, route);
    expect(next.isNew(entry)).toBe(false);
  });

  test('the file goes with the last', () => {
    expect(new Journal(runDir).isMissing).toBe(true);
    const journal = new Journal(runDir);
    journal.add(DAEMON, route);
    expect(new Journal(runDir).isMissing).toBe(false);
    journal.drop(DAEMON, route);
    expect(existsSync(file())).toBe(false);
    expect(journal.isWritten).toBe(true);
  });

  test('equal a model, whatever is noted and dropped, and whenever it is opened again', () => {
    const owner = fc.constantFrom(DAEMON, 'container 90', 'ä"\\');
    const thing = fc.oneof(
      fc.constantFrom('inlay0', 'inlay1', 'a.b').map(linkOf),
      fc.constantFrom<Thing>(sysctl, route, { ...route, metric: 0 }, { kind: 'fou', port: 4754 }),
      fc.constantFrom<Thing>({ kind: 'directory', path: '/run/inlay' }, { kind: 'clsact', device: 'eth0' }),
      fc.constantFrom<Thing>({ kind: 'filter', device: 'eth0', place: 'ingress', others: true }),
    );
    const add = fc.tuple(
      fc.constant('add' as const),
      owner,
      thing,
      fc.option(fc.constantFrom('0', '1', '-2'), { nil: undefined }),
    );
    const drop = fc.tuple(fc.constant('drop' as const), owner, thing);
    const other = fc.constantFrom(['reopen'] as const, ['rewrite'] as const);
    fc.assert(
      fc.property(fc.array(fc.oneof(add, drop, other), { maxLength: 60 }), (steps) => {
        rmSync(file(), { force: true });
        const model = new Map<string, Entry>();
        let journal = new Journal(runDir);
        for (const [verb, whose = '', what = route, before] of steps) {
          const key = `${whose} ${JSON.stringify(what)}`;
          if (verb === 'add') {
            journal.add(whose, what, before);
            if (!model.has(key)) model.set(key, { owner: whose, thing: what, ...(before !== undefined && { before }) });
          } else if (verb === 'drop') {
            journal.drop(whose, what);
            model.delete(key);
          } else if (verb === 'rewrite') journal.rewrite();
          else journal = new Journal(runDir);
          const all = [...model.values()];
          for (const name of new Set(all.map((entry) => entry.owner)))
            expect(journal.entries(name)).toEqual(all.filter((entry) => entry.owner === name));
          expect(journal.size).toBe(all.length);
          expect([journal.isDamaged, journal.isWritten, journal.foreign]).toEqual([false, true, 0]);
        }
      }),
      { numRuns: 200 },
    );
  });
});

describe('a damaged file', () => {
  const [good, more] = [lineOf('inlay0'), lineOf('inlay1')];
  const cases: { name: string; content: string | Uint8Array; kept: string[] }[] = [
    { name: 'a cut-off last line', content: `${good}\n${more.slice(0, 40)}`, kept: ['inlay0'] },
    { name: 'a last line without its end', content: `${good}\n${more}`, kept: ['inlay0', 'inlay1'] },
    { name: 'nothing but a cut-off line', content: good.slice(0, 40), kept: [] },
    { name: 'NUL bytes alone', content: new Uint8Array(100), kept: [] },
    { name: 'NUL bytes at the end', content: `${good}\n${'\0'.repeat(4096)}`, kept: ['inlay0'] },
    { name: 'NUL bytes in the middle', content: `${good}\n\0\0\0\n${more}\n`, kept: ['inlay0', 'inlay1'] },
    { name: 'garbage in the middle', content: `${good}\n}}%$\n${more}\n`, kept: ['inlay0', 'inlay1'] },
    {
      name: 'bytes that are not UTF-8',
      content: Buffer.concat([Buffer.from(`${good}\n`), Buffer.of(0xff, 10)]),
      kept: ['inlay0'],
    },
    { name: 'a value that is no line', content: `[null,{"kind":"x"}]\n${good}\n`, kept: ['inlay0'] },
    { name: 'null', content: `null\n${good}\n`, kept: ['inlay0'] },
    { name: 'a line without a thing', content: `{"v":1,"op":"add","owner":"daemon"}\n${good}\n`, kept: ['inlay0'] },
    {
      name: 'a thing without what its kind needs',
      content: `{"v":1,"op":"add","owner":"daemon","thing":{"kind":"route"}}\n${good}\n`,
      kept: ['inlay0'],
    },
  ];

  test.each(cases)('$name: the good lines are kept, the file is put aside', ({ content, kept }) => {
    writeFileSync(file(), content);
    const journal = new Journal(runDir);
    expect(devicesOf(journal)).toEqual(kept);
    expect({ isDamaged: journal.isDamaged, isMissing: journal.isMissing }).toEqual({
      isDamaged: true,
      isMissing: false,
    });
    expect(readFileSync(path.join(runDir, 'journal.damaged'))).toEqual(Buffer.from(content as string));
    journal.add(DAEMON, linkOf('inlay2'));
    expect(journal.isWritten).toBe(true);
    expect(devicesOf(new Journal(runDir))).toEqual([...kept, 'inlay2']);
  });

  test('what a process left that was killed as it wrote goes, where nothing is noted', () => {
    for (const name of [file(), `${file()}.new`]) writeFileSync(name, '');
    new Journal(runDir).discard();
    expect(readdirSync(runDir)).toEqual([]);
  });

  test('is known to have been damaged until nothing is noted any more', () => {
    writeFileSync(file(), `${good}\n}}\n`);
    new Journal(runDir); // Such as a daemon's that is killed then.
    const next = new Journal(runDir);
    expect(next.isDamaged).toBe(true);
    next.drop(DAEMON, linkOf('inlay0'));
    expect(new Journal(runDir).isDamaged).toBe(false);
  });

  test('an empty one is as good as none', () => {
    writeFileSync(file(), '');
    const journal = new Journal(runDir);
    expect({ size: journal.size, isToldByMachine: !journal.isWhole }).toEqual({
      size: 0,
      isToldByMachine: true,
    });
    journal.add(DAEMON, linkOf('inlay0'));
    expect(devicesOf(new Journal(runDir))).toEqual(['inlay0']);
  });
});

describe('what this version does not understand', () => {
  const foreign = [
    '{"v":2,  "op":"add","owner":"daemon","thing":{"kind":"link","device":"inlay0"}}',
    '{"v":1,"op":"add","owner":"daemon","thing":{"kind":"wormhole","to":[1, 2]}}',
    '{"v":1,"op":"move","owner":"daemon","thing":{"kind":"link","device":"inlay0"}}',
    '{"op":"add", "v":3}',
  ];

  test('stays byte for byte through add, drop and rewrite', () => {
    writeFileSync(file(), `${foreign[0]}\n${lineOf('inlay0')}\n${foreign.slice(1).join('\n')}\n`);
    const journal = new Journal(runDir);
    expect([journal.foreign, journal.size, journal.isDamaged]).toEqual([foreign.length, foreign.length + 1, false]);
    const kept = () => lines().filter((line) => foreign.includes(line));
    journal.add(DAEMON, linkOf('inlay1'));
    expect(kept()).toEqual(foreign);
    journal.drop(DAEMON, linkOf('inlay0'));
    journal.drop(DAEMON, linkOf('inlay1'));
    expect(kept()).toEqual(foreign);
    journal.rewrite();
    expect(lines()).toEqual(foreign);
    expect(new Journal(runDir).foreign).toBe(foreign.length);
  });

  test('stays where the rest is damaged', () => {
    writeFileSync(file(), `${foreign.join('\n')}\n}}\n`);
    expect(new Journal(runDir).isDamaged).toBe(true);
    expect(lines()).toEqual(foreign);
  });
});

describe('several processes', () => {
  test('eight at once lose no line and tear none', { timeout: 60_000 }, async () => {
    const [PROCESSES, COUNT] = [8, 200];
    const children = Array.from({ length: PROCESSES }, (_, i) =>
      spawn(process.execPath, [APPEND, runDir, `owner${i}`, String(COUNT)], { stdio: ['ignore', 'pipe', 'inherit'] }),
    );
    await Promise.all(children.map(({ stdout }) => once(stdout as NonNullable<ChildProcess['stdout']>, 'data')));
    const ended = children.map((child) => once(child, 'exit'));
    writeFileSync(path.join(runDir, 'go'), '');
    for (const [code] of await Promise.all(ended)) expect(code).toBe(0);
    const journal = new Journal(runDir);
    expect([journal.isDamaged, journal.size, lines().length]).toEqual([false, PROCESSES * COUNT, PROCESSES * COUNT]);
    for (let i = 0; i < PROCESSES; i++)
      expect(devicesOf(journal, `owner${i}`)).toEqual(Array.from({ length: COUNT }, (_, n) => `owner${i}-${n}`));
  });

  /** Two that have opened the same journal, as a daemon and a command. */
  const open = () => [new Journal(runDir), new Journal(runDir)] as const;

  test('a rewrite keeps what another process has noted since', () => {
    const [one, two] = open();
    one.add('one', linkOf('inlay0'));
    two.add('two', linkOf('inlay1'));
    one.rewrite();
    two.add('two', linkOf('inlay2'));
    expect(devicesOf(new Journal(runDir), 'one')).toEqual(['inlay0']);
    expect(devicesOf(new Journal(runDir), 'two')).toEqual(['inlay1', 'inlay2']);
  });

  test('a rewrite keeps away what another process has dropped since', () => {
    new Journal(runDir).add('two', linkOf('inlay1'));
    const [one, two] = open();
    one.add('one', linkOf('inlay0'));
    two.drop('two', linkOf('inlay1'));
    one.rewrite();
    expect(new Journal(runDir).entries('two')).toEqual([]);
  });

  test('the last drop of one leaves what another process has noted since', () => {
    const [one, two] = open();
    one.add('one', linkOf('inlay0'));
    two.add('two', linkOf('inlay1'));
    one.drop('one', linkOf('inlay0'));
    expect(devicesOf(new Journal(runDir), 'two')).toEqual(['inlay1']);
    expect(two.isWritten).toBe(true);
  });
});

describe('cost', () => {
  test('a change is one line, however many there are', () => {
    const journal = new Journal(runDir);
    for (let i = 0; i < 300; i++) {
      journal.add(DAEMON, linkOf(`inlay${i}`));
      expect(lines().length).toBe(i + 1);
    }
    const { ino } = statSync(file());
    const before = text();
    journal.drop(DAEMON, linkOf('inlay7'));
    expect(text()).toBe(`${before}${lineOf('inlay7', 'drop')}\n`);
    expect(statSync(file()).ino).toBe(ino);
  });

  test('the file is written anew only after many stale lines, and stays bounded', () => {
    const journal = new Journal(runDir);
    journal.add(DAEMON, linkOf('stays'));
    const CHANGES = 6000;
    let rewrites = 0;
    let longest = 0;
    let before = 1;
    for (let i = 0; i < CHANGES / 2; i++) {
      journal.add(DAEMON, linkOf('comes'));
      journal.drop(DAEMON, linkOf('comes'));
      if (i % 100 !== 0) continue;
      const now = lines().length;
      if (now < before) rewrites++;
      before = now;
      longest = Math.max(longest, now);
    }
    expect(rewrites).toBeGreaterThan(0);
    expect(rewrites).toBeLessThanOrEqual(CHANGES / 500);
    expect(longest).toBeLessThan(3000);
    expect(devicesOf(new Journal(runDir))).toEqual(['stays']);
  });

  test('stale lines of earlier processes count', () => {
    const [LINES, pair] = [2000, `${lineOf('comes')}\n${lineOf('comes', 'drop')}\n`];
    writeFileSync(file(), `${lineOf('stays')}\n${pair.repeat(LINES)}`);
    const journal = new Journal(runDir);
    journal.add(DAEMON, linkOf('inlay0'));
    journal.drop(DAEMON, linkOf('inlay0'));
    expect(lines().length).toBeLessThan(10);
    expect(devicesOf(new Journal(runDir))).toEqual(['stays']);
  });
});

describe('where nothing can be written', () => {
  test('a directory that was swept away: no error, and all is there when it is back', () => {
    const journal = new Journal(runDir);
    journal.add(DAEMON, linkOf('inlay0'));
    rmSync(runDir, { recursive: true });
    expect(journal.isWritten).toBe(false);
    journal.add(DAEMON, linkOf('inlay1'));
    journal.drop(DAEMON, linkOf('inlay0'));
    expect(journal.isWritten).toBe(false);
    expect(() => journal.rewrite()).toThrow();
    mkdirSync(runDir);
    expect(journal.isWritten).toBe(false);
    journal.rewrite();
    expect(journal.isWritten).toBe(true);
    expect(devicesOf(new Journal(runDir))).toEqual(['inlay1']);
  });

  test('a file that was swept away: a new line is not taken for all', () => {
    const journal = new Journal(runDir);
    journal.add(DAEMON, linkOf('inlay0'));
    rmSync(file());
    journal.add(DAEMON, linkOf('inlay1'));
    if (!journal.isWritten) journal.rewrite();
    expect(devicesOf(new Journal(runDir))).toEqual(['inlay0', 'inlay1']);
  });

  describe.skipIf(noDisk)('a full disk', () => {
    let lab: Lab;
    beforeAll(async () => {
      lab = await Lab.open();
      await lab.must(undefined, ['sh', '-c', 'mkdir /run/full && mount -t tmpfs -o size=96k tmpfs /run/full']);
    });
    afterAll(() => lab.close());

    test('is no error, is known, leaks nothing and tears nothing; when there is room again, all is written', async () => {
      const { full, narrow, freed } = JSON.parse(await lab.must(undefined, [process.execPath, FULL_DISK, '/run/full']));
      expect(full).toEqual({
        isWritten: false,
        noted: full.noted,
        torn: 0,
        failures: 20,
        leaked: 0,
        isStillUnwritten: true,
      });
      expect(full.noted).toBeLessThan(500);
      expect(narrow).toEqual({ failed: true, isWritten: false, lost: 0 });
      expect(freed).toEqual({ isWrittenBefore: false, isWritten: true, entries: full.noted + 1, isDamaged: false });
    });
  });
});
