/** A second daemon on a VM, started by mistake or for another mesh: it says whose the things in its way are, and the first one loses none. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { plainErrors } from '../../src/log.ts';
import { missing, skip } from './require.ts';
import { Vms } from './vms.ts';

const PLANES = { wasm: [], kernel: ['--dataplane', 'kernel', '--encapsulation', 'vxlan'] } as const;
type Name = keyof typeof PLANES;
const names = Object.keys(PLANES) as Name[];
const pairs = names.flatMap((first) => names.map((second) => [first, second] as const));

const OTHER = ['--device', 'other0'];
const MAKER = 'VM 192.168.16.32, device inlay0, run directory /run/a.d/inlay';

describe.skipIf(skip('two daemons', await missing('ping')))('two daemons on one VM', () => {
  let vms: Vms;

  beforeAll(async () => {
    vms = await Vms.of('wasm', 'a', 'b');
    await vms.up('b');
  });
  afterEach(() => vms.reset('a'));
  afterAll(() => vms?.close());

  const inlay = (...words: string[]) => vms.lab.run('a', [...vms.words('a').slice(0, 2), ...words]);
  /** Starts a second daemon, which has to fail, with another run directory, and perhaps another overlay. */
  const second = (plane: Name, overlay = '10.0.0.0/8', ...flags: string[]) => {
    const others: Record<string, string> = { [vms.runDir('a')]: '/run/other', '10.0.0.0/8': overlay };
    const words = vms.words('a', ...PLANES[plane], ...flags).map((word) => others[word] ?? word);
    return vms.lab.run('a', words);
  };
  /** With the programs' numbers: one that another replaced for a moment has a new one. */
  const filters = () => vms.lab.must('a', ['tc', 'filter', 'show', 'dev', 'eth0', 'ingress']);
  /** Only what is for the operator, without the log. */
  const said = (stderr: string) => plainErrors(stderr).replace(/^\{.*\}\n/gm, '');

  test.each(pairs)('the first is %s, the second %s: named, and the first keeps all it has', async (one, other) => {
    await vms.up('a', ...PLANES[one]);
    const before = [await vms.network('a'), await filters()];
    const { code, stderr } = await second(other, undefined, ...OTHER);
    const hint = 'hint: look at it with inlay status --run-dir /run/a.d/inlay, and leave its devices and routes alone';
    expect([code, said(stderr)]).toEqual([
      1,
      expect.stringContaining(
        `inlay: the route to 10.0.0.0/8 belongs to another Inlay daemon, which runs: ${MAKER}\n${hint}`,
      ),
    ]);
    expect(stderr).not.toContain('ip route del');

    // `down` with the other run directory finds nothing of its own, and leaves what is in use.
    const left = `nothing to remove\nleft alone: what belongs to the daemon that runs (${MAKER})\n`;
    expect(await inlay('down', '--run-dir', '/run/other')).toEqual({ code: 0, stderr: '', stdout: left });
    expect([await vms.network('a'), await filters()]).toEqual(before);
    expect((await vms.status('a')).repaired).toBe(0);

    for (const name of ['status', 'tunnels'])
      expect(await inlay(name, '--run-dir', '/run/other')).toEqual({
        code: 3,
        stdout: '',
        stderr: `inlay: no daemon answers at /run/other/control.sock (ENOENT)\nhint: name the daemon's directory with --run-dir; here runs ${MAKER}\n`,
      });
  });

  test('kernel: the same key, another overlay', async () => {
    await vms.up('a', ...PLANES.kernel);
    const before = await filters();
    const { code, stderr } = await second('kernel', '11.0.0.0/8', ...OTHER);
    expect([code, said(stderr)]).toEqual([
      1,
      expect.stringContaining(
        `a vxlan device with the same key belongs to another Inlay daemon, which runs: ${MAKER}\n`,
      ),
    ]);
    expect(await filters()).toBe(before);
    await vms.inlay('a', 'down', '--run-dir', '/run/other');
  });

  test.each(names)('%s: the same device, another run directory', async (plane) => {
    await vms.up('a', ...PLANES[plane]);
    const { code, stderr } = await second(plane);
    expect([code, said(stderr)]).toEqual([
      1,
      expect.stringContaining(
        `another Inlay daemon has the device inlay0: ${MAKER}\nhint: look at it with inlay status`,
      ),
    ]);
  });

  test('the kernel forwards for a daemon that has stopped: down with its run directory is what helps', async () => {
    const first = await vms.up('a', ...PLANES.kernel);
    await vms.end('KILL', first);
    const { code, stderr } = await second('wasm', undefined, ...OTHER);
    expect([code, said(stderr)]).toEqual([
      1,
      `inlay: the route to 10.0.0.0/8 is left of another Inlay daemon, which has stopped: ${MAKER}\nhint: inlay down --run-dir /run/a.d/inlay removes what it left\n`,
    ]);
  });
});
