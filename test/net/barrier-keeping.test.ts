/** The table of the barrier: as nft(8) would write it, kept while the daemon runs, left when it stops, taken back by `down`. */
import { fileURLToPath } from 'node:url';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { Lab } from '../../src/demo/lab.ts';
import { readyStatus } from './mesh.ts';
import { missing, skip } from './require.ts';
import { PATIENCE, Vms } from './vms.ts';

const WRITE = fileURLToPath(new URL('barrier.mjs', import.meta.url));
const FLUSH = ['nft', 'flush', 'ruleset'];
const needed = await missing('ping', 'nft');

describe.skipIf(skip('barrier, rules', needed))('rules', () => {
  let lab: Lab;
  beforeAll(async () => {
    lab = await Lab.open();
  });
  afterAll(() => lab?.close());

  const facts = {
    ...{ device: 'inlay0', local: '192.168.16.32', mappings: [['10.0.0.0/8', '192.168.0.0/16']], hasFib: true },
    ...{ uplinks: ['eth0'], access: [] as string[], users: [0], firstDynamicPort: 32768 },
  };
  test.each([
    ['as by default', facts],
    ['VXLAN', { ...facts, vni: 0x123456, users: undefined }],
    ['without nft_fib', { ...facts, hasFib: false }],
    [
      'a daemon without rights, and several uplinks',
      { ...facts, users: [0, 1000], uplinks: ['eth0', 'a.b-c', 'fifteen-letters'] },
    ],
    [
      'lists',
      { ...facts, access: ['vm:53', 'vm', 'all', '192.168.0.2:53', '192.168.64.0/18', '192.168.66.0/24:65535'] },
    ],
    [
      'prefixes that end within bytes, several mappings, one that this VM is no part of',
      {
        ...facts,
        mappings: [
          ['240.0.0.0/4', '192.168.0.0/17'],
          ['10.0.0.0/9', '192.168.0.0/17'],
          ['11.128.0.0/10', '172.16.0.0/20'],
        ],
      },
    ],
  ])('%s: nft makes the same of their text, and shows them as its own', async (_, input) => {
    const { byText, textListed, byUs, usListed } = JSON.parse(
      await lab.must(undefined, [process.execPath, WRITE], JSON.stringify(input)),
    );
    expect(byUs).toEqual(byText);
    expect(usListed).toBe(textListed);
  });
});

describe.skipIf(skip('barrier, keeping', needed))('keeping', () => {
  let vms: Vms;
  beforeAll(async () => {
    vms = await Vms.of('wasm', 'a', 'b');
  });
  afterEach(() => vms.reset('a'));
  afterAll(() => vms?.close());

  const nft = (...words: string[]) => vms.lab.must('a', ['nft', ...words]);
  const rules = async (device = 'inlay0') =>
    (await vms.lab.run('a', ['nft', '-s', 'list', 'table', 'ip', `inlay-${device}`])).stdout;

  test.each([
    ['its removal', FLUSH.slice(1)],
    ['a rule of others in it', ['insert', 'rule', 'ip', 'inlay-inlay0', 'prerouting', 'accept']],
    ['a chain that is emptied', ['flush', 'chain', 'ip', 'inlay-inlay0', 'underlay']],
    ['a table that sleeps', ['add', 'table', 'ip', 'inlay-inlay0', '{ flags dormant; }']],
  ])('%s is put right', async (_, words) => {
    await vms.up('a');
    const before = await rules();
    expect(before).toContain('comment "forged-outer"');
    const { repaired } = await vms.status('a');
    await nft(...words);
    await expect.poll(async () => (await vms.status('a')).repaired, PATIENCE).toBe(repaired + 1);
    expect(await rules()).toBe(before);
    expect((await vms.status('a')).barrier).toMatchObject({ state: 'on' });
  });

  test('rules of others stay as they are, and nothing is repaired for them', async () => {
    const daemon = await vms.up('a');
    const before = await rules();
    await nft('add', 'table', 'inet', 'theirs');
    await nft('add', 'chain', 'inet', 'theirs', 'prerouting', '{ type filter hook prerouting priority -500; }');
    await vms.inlay('a', 'status');
    expect(await rules()).toBe(before);
    expect((await vms.status('a')).repaired).toBe(0);
    await vms.end('TERM', daemon);
    await vms.inlay('a', 'down');
    expect(await nft('list', 'tables')).toBe('table inet theirs\n');
    await nft('delete', 'table', 'inet', 'theirs');
  });

  test('it follows the devices by which other VMs are reached, and keeps what it has counted', async () => {
    await vms.up('a');
    const uplinks = async () => [...(await rules()).matchAll(/iif "(\S+)" goto underlay/g)].map(([, name]) => name);
    expect(await uplinks()).toEqual(['eth0']);
    await vms.ip(
      'a',
      'link add eth1 type veth peer name far',
      'link set far up',
      'link set eth1 up',
      'address add 192.168.16.132/16 dev eth1',
    );
    await expect.poll(uplinks, PATIENCE).toEqual(['eth0', 'eth1']);
    await vms.ip('a', 'address del 192.168.16.132/16 dev eth1');
    await expect.poll(uplinks, PATIENCE).toEqual(['eth0']);
    await vms.ip('a', 'route add 192.168.16.0/24 nexthop dev eth0 nexthop dev eth1');
    await expect.poll(uplinks, PATIENCE).toEqual(['eth0', 'eth1']);
    await vms.ip('a', 'link del eth1');
    await expect.poll(uplinks, PATIENCE).toEqual(['eth0']);
    await vms.lab.run('a', ['ip', 'route', 'del', '192.168.16.0/24']);
    // Nobody else has changed it.
    expect((await vms.status('a')).repaired).toBe(0);
  });

  test('it stays when the daemon stops; the next daemon takes it as it is; down removes it, by its name, too', async () => {
    const first = await vms.up('a');
    const before = await rules();
    await vms.end('TERM', first);
    // The device is gone: only its number is known.
    expect((await rules()).replace(/iif \d+ /g, 'iif "inlay0" ')).toBe(before);
    const second = await vms.up('a', '--container-access', 'vm:53');
    expect(await rules()).toContain('udp dport 53 accept');
    expect((await vms.status('a')).repaired).toBe(0);
    await vms.end('KILL', second);
    await vms.lab.must('a', ['rm', `${vms.runDir('a')}/journal.jsonl`]);
    expect((await vms.inlay('a', 'down')).stdout).toContain('removed  table ip inlay-inlay0 of nftables\n');
    expect(await nft('list', 'tables')).toBe('');
  });

  test('a start that fails leaves nothing', async () => {
    await vms.ip('a', 'route add 10.0.0.0/8 dev eth0');
    expect((await vms.lab.run('a', vms.words('a'))).code).toBe(1);
    expect(await nft('list', 'tables')).toBe('');
    await vms.ip('a', 'route del 10.0.0.0/8 dev eth0');
  });

  test('each daemon of a machine has one, and down takes only its own', async () => {
    const own = await vms.up('a');
    const other = ['--device', 'other0', '--overlay', '11.0.0.0/8', '--run-dir', '/run/other', '--key', '7'];
    const words = vms.words('a', ...other);
    const second = vms.lab.start('a', words, { stdio: 'ignore' });
    const ended = new Promise((resolve) => second.once('exit', resolve));
    const { pid } = await readyStatus(vms.lab, '/run/other');
    expect(await rules('other0')).toContain('iif "other0" goto overlay');
    await vms.end('TERM', own);
    await vms.inlay('a', 'down');
    expect(await nft('list', 'tables')).toBe('table ip inlay-other0\n');
    await vms.lab.must(undefined, ['kill', String(pid)]);
    await ended;
    await vms.lab.must('a', [process.execPath, words[1] as string, 'down', '--run-dir', '/run/other']);
    expect(await nft('list', 'tables')).toBe('');
  });
});
