/** Attached containers keep what attaching made, whatever others do to it, and daemons leave them alone. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Lab } from '../../src/demo/lab.ts';
import { GuardedVms } from '../heavy/guarded-vms.ts';
import { missing, skip } from './require.ts';
import { type Daemon, PATIENCE, type Plane } from './vms.ts';

interface Listed {
  container: number;
  address: string;
  hostInterface: string;
}

const PLANES: readonly Plane[] = ['wasm', 'kernel'];

describe.skipIf(skip('attached containers', await missing('ping')))('attached containers', () => {
  describe.each(PLANES)('%s', (plane) => {
    let vms: GuardedVms;
    let a: Daemon;
    let c1: Listed;
    let c2: Listed;
    beforeAll(async () => {
      vms = await new GuardedVms(await Lab.open(), plane, ['a', 'b']).joined();
      a = await vms.up('a');
      await vms.up('b');
      for (const name of ['c1', 'c2']) await vms.lab.ip(undefined, [`netns add ${name}`]);
      c1 = await attach('c1');
      c2 = await attach('c2');
    });
    afterAll(() => vms?.close());

    const attach = async (name: string, ...words: string[]): Promise<Listed> =>
      JSON.parse((await must('attach', name, '--json', ...words)).stdout);
    const must = async (command: string, ...words: string[]) => {
      const outcome = await vms.inlay('a', command, ...words);
      expect(outcome).toMatchObject({ code: 0, stderr: '' });
      return outcome;
    };
    const routeOf = async ({ address }: Listed) =>
      (await vms.lab.must('a', ['ip', '-d', 'route', 'show', `${address}/32`])).trim();
    const entryOf = ({ hostInterface }: Listed) =>
      vms.lab.must('a', ['ip', 'neighbour', 'show', 'nud', 'permanent', 'dev', hostInterface]);
    const routesAndEntries = () => Promise.all([c1, c2].flatMap((each) => [routeOf(each), entryOf(each)]));
    const repaired = async () => (await vms.status('a')).repaired;
    const answers = () => vms.pings('c1', vms.overlay('b'), 1);

    test('status counts them', async () => {
      await expect
        .poll(async () => (await vms.status('a')).containers, PATIENCE)
        .toEqual({ attached: 2, attach: 'off' });
      expect((await must('status')).stdout).toMatch(/^containers +2 attached \(inlay containers lists them\)$/m);
      expect(await answers()).toBe('1');
      expect(await repaired()).toBe(0);
    });

    test.each([
      ['one route', () => [`route del ${c1.address}/32`]],
      ['all routes of containers', () => ['route flush proto 74']],
      ['its device', () => [`link set ${c1.hostInterface} down`, `link set ${c1.hostInterface} up`]],
      ['its device, which stays down', () => [`link set ${c1.hostInterface} down`]],
      ['its neighbour entry', () => [`neighbour flush dev ${c1.hostInterface} nud permanent`]],
      ['the address that routes need', () => ['address flush dev lo scope link', 'address flush dev inlay0']],
    ])('what others take away comes back: %s', async (_, lines) => {
      const there = await routesAndEntries();
      const before = await repaired();
      await vms.ip('a', ...lines());
      await expect.poll(routesAndEntries, PATIENCE).toEqual(there);
      await expect.poll(repaired, PATIENCE).toBeGreaterThan(before);
      await expect.poll(answers, PATIENCE).toBe('1');
    });

    test.each([
      ['ipv4/rp_filter', 0],
      ['ipv4/rp_filter', 2],
      ['ipv4/forwarding', 0],
      ['ipv4/accept_redirects', 1],
      ['ipv6/disable_ipv6', 0],
    ])('what another tool sets is put right, and nobody gets it back: %s=%i', async (name, value) => {
      const file = `/proc/sys/net/${name.replace('/', `/conf/${c1.hostInterface}/`)}`;
      const right = await vms.lab.must('a', ['cat', file]);
      const before = await repaired();
      await vms.lab.must('a', ['sh', '-c', `echo ${value} >${file}`]);
      await expect.poll(() => vms.lab.must('a', ['cat', file]), PATIENCE).toBe(right);
      await expect.poll(repaired, PATIENCE).toBeGreaterThan(before);
      const { stdout } = await vms.lab.run('a', ['grep', c1.hostInterface, `${vms.runDir('a')}/journal.jsonl`]);
      expect(stdout).toBe('');
    });

    test.each([0, 1, 2])('with all.rp_filter %i none sends as another', async (value) => {
      await vms.set('a', 'all', { 'ipv4/rp_filter': value });
      const mine = c1.address;
      const others = [c2.address, vms.overlay('a'), vms.overlay('b'), vms.container('b', 91)];
      const strangers = [vms.underlay('b'), '192.168.77.7', '198.51.100.1', '0.0.0.1'];
      const targets = { c2: c2.address, a: vms.overlay('a'), b: vms.overlay('b') };
      for (const [where, target] of Object.entries(targets)) {
        const before = await vms.echoes(where);
        for (const source of [...others, ...strangers].filter((each) => each !== target)) {
          await vms.lab.ip('c1', [`address add ${source}/32 dev eth0`]);
          await vms.lab.run('c1', ['ping', '-n', '-q', '-c', '2', '-i', '0.01', '-W', '0.01', '-I', source, target]);
          await vms.lab.ip('c1', [`address del ${source}/32 dev eth0`]);
        }
        // What it sends as itself arrives, behind all of these.
        expect(await vms.pings('c1', target, 1, '-I', mine)).toBe('1');
        expect([where, await vms.echoes(where)]).toEqual([where, before + 1]);
      }
      await vms.set('a', 'all', { 'ipv4/rp_filter': 0 });
    });

    test('an address that is cooling down stays free, and the count falls', async () => {
      await vms.lab.ip(undefined, ['netns add c3']);
      const c3 = await attach('c3');
      await expect.poll(async () => (await vms.status('a')).containers?.attached, PATIENCE).toBe(3);
      const before = await repaired();
      await must('detach', 'c3');
      await expect.poll(async () => (await vms.status('a')).containers?.attached, PATIENCE).toBe(2);
      expect(await routeOf(c3)).toMatch(/^unreachable .*proto 74/);
      expect(await repaired()).toBe(before);
    });

    test('an address that another container got is not taken from that one, and status says so', async () => {
      await vms.lab.ip(undefined, ['netns add c4', 'netns add c5']);
      await vms.end('TERM', a);
      const c4 = await attach('c4');
      await vms.ip('a', `route del ${c4.address}/32`);
      const c5 = await attach('c5', '--container', String(c4.container));
      a = await vms.up('a');
      const remarks = async () => ((await vms.status('a')).remarks ?? []).map(({ what }) => what);
      await expect
        .poll(remarks, PATIENCE)
        .toContainEqual(expect.stringContaining(`has lost its address ${c4.address} to ${c5.hostInterface}`));
      expect(await routeOf(c5)).toContain(`dev ${c5.hostInterface} `);
      await must('detach', 'c4', 'c5');
      expect(await routeOf(c5)).toMatch(/^unreachable /);
    });

    test('what was lost while no daemon ran comes back when one starts', async () => {
      const there = await routesAndEntries();
      await vms.end('KILL', a);
      expect(await routesAndEntries()).toEqual(there);
      await vms.ip('a', 'route flush proto 74', 'address flush dev lo scope link', `link set ${c1.hostInterface} down`);
      a = await vms.up('a');
      await expect.poll(routesAndEntries, PATIENCE).toEqual(there);
      // That of the overlay's device, which is there too, goes with the daemon, and the routes with it.
      const lo = () => vms.lab.must('a', ['ip', '-4', 'address', 'show', 'dev', 'lo']);
      await expect.poll(lo, PATIENCE).toContain(vms.overlay('a'));
      await expect.poll(answers, PATIENCE).toBe('1');
    });

    test('down leaves them, and the mesh, until they are detached', async () => {
      const there = await routesAndEntries();
      await vms.end('TERM', a);
      const left = `left alone: 2 attached containers (inlay detach --all --run-dir ${vms.runDir('a')})\n`;
      expect((await must('down')).stdout).toMatch(new RegExp(`^removed [^]*${left.replace(/[().]/g, '\\$&')}$`));
      expect((await must('down')).stdout).toBe(`nothing to remove\n${left}`);
      expect(await routesAndEntries()).toEqual(there);
      // What they send to other VMs does not leave in plain.
      const toOthers = await vms.lab.run('c1', ['ping', '-n', '-c', '1', '-W', '5', vms.overlay('b')]);
      expect(toOthers.stdout).toContain('Unreachable');
      expect(await vms.lab.must('a', ['ip', 'route', 'show', 'proto', '75'])).toContain('unreachable 10.0.0.0/8');
      // A start that fails leaves the mesh, too.
      await vms.ip('a', 'link set eth0 down', 'address flush dev eth0');
      expect((await vms.lab.run('a', [...vms.words('a'), '--wait', '0'])).code).not.toBe(0);
      await must('detach', '--all');
      expect(await vms.lab.must('a', ['ip', '-4', 'address', 'show', 'dev', 'lo'])).toContain(vms.overlay('a'));
      const { stdout } = await must('down');
      // No tombstone stays, which would make the addresses unreachable for whoever uses them next.
      expect(stdout).toContain('removed  unreachable routes to addresses of detached containers: 2\n');
      expect(await vms.lab.must('a', ['ip', 'route', 'show', 'proto', '74'])).toBe('');
      expect(stdout).toContain(`removed  address ${vms.overlay('a')} of lo\n`);
      expect(stdout).toContain(`removed  directory ${vms.runDir('a')}\n`);
      expect(await vms.lab.must('a', ['ip', '-4', 'address', 'show', 'dev', 'lo'])).not.toContain(vms.overlay('a'));
      expect((await vms.lab.must('a', ['ip', '-br', 'link'])).match(/inl\w+/g)).toBeNull();
    });
  });
});
