/** A local user without rights, who would have root's `up` and `down` write elsewhere, or not work at all. */
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import type { Output } from '../../src/demo/lab.ts';
import { plainErrors } from '../../src/log.ts';
import { CATCH_ALL_REMOVED } from '../net/catch-all.ts';
import { CLI } from '../net/mesh.ts';
import { missing, notRoot, skip } from '../net/require.ts';
import { AS_USER, LEAST, Strangers, USER } from '../net/strangers.ts';
import { Vms } from '../net/vms.ts';

const PLANTED = fileURLToPath(new URL('../machine/planted.mjs', import.meta.url));
const SECRET = '/run/secret/shadow';

const needed = (await missing('ping', 'setpriv')) ?? notRoot;

describe.skipIf(skip('local user', needed))('a local user', () => {
  let vms: Vms;
  let strangers: Strangers;

  beforeAll(async () => {
    vms = await Vms.of('wasm', 'a', 'b');
    strangers = new Strangers(vms.lab, 'a');
    const script = `mkdir -m 700 /run/secret && printf 1 >${SECRET} && mount -t tmpfs tmpfs /dev/net && mknod -m 666 /dev/net/tun c 10 200`;
    await vms.lab.must(undefined, ['sh', '-c', script]);
  });
  afterEach(async () => {
    await strangers.endAll();
    await vms.reset('a');
  });
  afterAll(() => vms?.close());

  const sh = (script: string) => vms.lab.must('a', ['sh', '-c', script]);
  const asUser = (script: string) => vms.lab.must('a', [...AS_USER, 'sh', '-c', script]);
  const inlay = (command: string, runDir: string, ...flags: string[]): Promise<Output> =>
    vms.lab.run('a', [process.execPath, CLI, command, ...flags, '--run-dir', runDir]);
  const UP = ['--overlay', '10.0.0.0/8', '--underlay', '192.168.0.0/16'];

  describe('whose the run directory is, or the way to it', () => {
    const dir = '/run/theirs/inlay';
    const cases: { name: string; script: string; says: string; up?: false }[] = [
      {
        name: 'it belongs to the user',
        script: `install -d -o ${USER} ${dir}`,
        says: `it belongs to user ${USER}`,
        up: false,
      },
      {
        name: 'all may write there',
        script: `mkdir -p ${dir} && chmod 777 ${dir}`,
        says: 'others may write there (mode 0777)',
      },
      {
        name: 'its group may write there',
        script: `mkdir -p ${dir} && chmod 775 ${dir}`,
        says: 'others may write there (mode 0775)',
      },
      {
        name: 'all may write there, but not remove',
        script: `mkdir -p ${dir} && chmod 1777 ${dir}`,
        says: 'others may write there (mode 1777)',
      },
      {
        name: 'its parent is the user’s',
        script: `mkdir -p ${dir} && chown ${USER} /run/theirs`,
        says: `its parent /run/theirs belongs to user ${USER}`,
      },
      {
        name: 'its parent is the user’s, and it is not there',
        script: `install -d -o ${USER} /run/theirs`,
        says: `its parent /run/theirs belongs to user ${USER}`,
      },
      {
        name: 'all may write in its parent',
        script: `mkdir -p ${dir} && chmod 777 /run/theirs`,
        says: 'others may write in its parent /run/theirs (mode 0777)',
      },
      {
        name: 'a link of the user’s leads to it',
        script: `mkdir -m 1777 /run/theirs && setpriv --reuid=${USER} --clear-groups ln -s /run/secret ${dir}`,
        says: `the link ${dir} on the way there belongs to user ${USER}`,
      },
      {
        name: 'a link of the user’s leads to nothing',
        script: `mkdir -m 1777 /run/theirs && setpriv --reuid=${USER} --clear-groups ln -s /run/secret/new ${dir}`,
        says: `the link ${dir} on the way there belongs to user ${USER}`,
      },
      {
        name: 'a link of root’s leads to a folder of the user’s',
        script: `install -d -o ${USER} /run/theirs && mkdir ${dir} && ln -s /run/theirs/inlay /run/by-link && chown ${USER} /run/theirs`,
        says: `its parent /run/theirs belongs to user ${USER}`,
      },
    ];
    afterEach(() => sh('rm -rf /run/theirs /run/by-link'));

    test.each(cases)('$name: refused', async ({ script, says, up }) => {
      await sh(script);
      const runDir = script.includes('/run/by-link') ? '/run/by-link' : dir;
      const before = await sh('ls -lAR /run/theirs /run/secret; ip link; ip route; ip rule');
      // `down` goes on as the user whose directory it is.
      for (const command of up === false ? ['up'] : ['up', 'down']) {
        const { code, stderr, stdout } = await inlay(command, runDir, ...(command === 'up' ? UP : []));
        const error = `inlay: run directory ${runDir} is not safe: ${says}\nhint: `;
        expect([code, stdout, plainErrors(stderr)]).toEqual([77, '', expect.stringContaining(error)]);
      }
      expect(await sh('ls -lAR /run/theirs /run/secret; ip link; ip route; ip rule')).toBe(before);
    });

    test('links and folders of root’s are no hindrance', async () => {
      await sh(
        'mkdir -p /run/theirs/real && ln -s real /run/theirs/link && ln -s /run/theirs/link/../link /run/by-link',
      );
      expect(await inlay('down', '/run/by-link/inlay/./..')).toMatchObject({ code: 0, stderr: '' });
      expect(await inlay('down', '/run/by-link/inlay')).toMatchObject({ code: 0, stderr: '' });
    });
  });

  test('files that were planted before the directory was root’s are neither followed nor waited for', async () => {
    const found = JSON.parse(await vms.lab.must('a', [process.execPath, PLANTED, '/run/planted']));
    expect(found.wrong).toEqual([]);
    expect(Object.keys(found.outcomes).sort()).toEqual(['ERR_FAILED', 'done']);
  });

  describe('down by root in a directory of the user’s', () => {
    const theirs = async () => {
      await vms.lab.must('a', ['install', '-d', '-o', String(USER), '-g', String(USER), vms.runDir('a')]);
    };

    test.each(['TERM', 'KILL'])('removes what their daemon left, by SIG%s', async (signal) => {
      await theirs();
      const calm = await vms.network('a');
      const daemon = await vms.upAs(LEAST, 'a');
      await vms.end(signal, daemon);
      const { code, stdout, stderr } = await vms.inlay('a', 'down');
      expect([code, stderr]).toEqual([0, '']);
      expect(stdout).toContain(CATCH_ALL_REMOVED);
      expect(await vms.lab.must('a', ['ls', '-A', vms.runDir('a')])).toBe('');
      expect(await vms.network('a')).toEqual(calm);
    });

    const line = (thing: object, before?: string) =>
      JSON.stringify({ v: 1, op: 'add', owner: 'daemon', thing, before });
    const sysctl = (name: string) => line({ kind: 'sysctl', name, value: '1', device: 'eth0', others: true }, '0');
    const attacks: [name: string, script: string][] = [
      ['a file as a sysctl', `printf '%s\\n' '${sysctl(`../../..${SECRET}`)}' >journal.jsonl`],
      [
        'a file as a sysctl of the old form',
        `echo '[{"kind":"sysctl","file":"${SECRET}","before":"0"}]' >changes.json`,
      ],
      ['a directory', `printf '%s\\n' '${line({ kind: 'directory', path: '/run/secret/empty' })}' >journal.jsonl`],
      ['a journal that is a link', `ln -s ${SECRET} journal.jsonl`],
      ['a journal that is another file', `ln /run/linkable journal.jsonl`],
      ['a lock that is a link', `ln -s ${SECRET} lock`],
      [
        'a new journal that is a link',
        `echo broken >journal.jsonl; ln -s ${SECRET} journal.jsonl.new; ln -s ${SECRET} journal.damaged`,
      ],
      [
        'a device that is root’s',
        `printf '%s\\n' '${line({ kind: 'link', device: 'gre9', info: { kind: 'gre' } })}' >journal.jsonl`,
      ],
      ['a device that is to go down', `printf '%s\\n' '${line({ kind: 'link-up', device: 'eth0' })}' >journal.jsonl`],
      ['a pipe', 'mkfifo journal.jsonl'],
    ];
    test.each(attacks)('is no help to them: %s', async (_, script) => {
      await theirs();
      // The file is one that the user may link to, as where fs.protected_hardlinks is off.
      await sh(
        `mkdir -p /run/secret/empty; printf 1 >/run/linkable; chown ${USER} /run/linkable; chmod 600 /run/linkable`,
      );
      await asUser(`cd ${vms.runDir('a')} && { ${script}; }`);
      const look = () =>
        sh(
          `ls -lR --time-style=full-iso /run/secret; cat ${SECRET} /run/linkable; ip route; ip rule; ip -o link show eth0`,
        );
      const before = await look();
      const { code } = await vms.lab.run('a', ['timeout', '20', ...vms.inlayWords('a', 'down')]);
      expect([0, 1, 77]).toContain(code);
      expect(await look()).toBe(before);
    });

    test('is refused while a daemon runs; the hint’s command does it', async () => {
      await theirs();
      const running = await vms.lab.run('b', ['true']);
      expect(running.code).toBe(0);
      const words = vms.words('a', '--device', 'other0', '--overlay', '11.0.0.0/8');
      const other = words.map((word) => (word === vms.runDir('a') ? '/run/other' : word));
      const daemon = vms.lab.start('a', other, { stdio: 'ignore' });
      const ended = once(daemon, 'exit');
      const { pid } = JSON.parse((await inlay('status', '/run/other', '--wait', '15', '--json')).stdout);
      const { code, stderr } = await vms.inlay('a', 'down');
      const [, hint = ''] = /\nhint: (.*)\n/.exec(stderr) ?? [];
      expect([code, stderr]).toEqual([
        77,
        expect.stringContaining(
          `belongs to user ${USER}, and another daemon runs here (VM 192.168.16.32, device other0`,
        ),
      ]);
      expect(await vms.lab.run('a', ['sh', '-c', hint.replace(/^sudo /, '')])).toMatchObject({ code: 0, stderr: '' });
      await vms.lab.must('a', ['kill', String(pid)]);
      await ended;
      expect(await inlay('down', '/run/other')).toMatchObject({ code: 0 });
    });
  });

  test('a socket of the user’s says nothing that a terminal obeys, and is not looked for behind a link', async () => {
    const body = JSON.stringify({ state: 'running', troubles: [{ what: '\u001b[2Jgone\u009b31m' }] });
    const answer = `HTTP/1.1 500 no\r\ncontent-length: ${Buffer.byteLength(body)}\r\nconnection: close\r\n\r\n${body}`;
    const script = `require('net').createServer((s) => s.once('data', () => s.end(${JSON.stringify(answer)}))).listen('/run/l/control.sock', () => console.log(process.pid))`;
    await vms.lab.must('a', ['install', '-d', '-o', String(USER), '/run/l']);
    await strangers.start([...AS_USER, process.execPath, '-e', script]);
    const { code, stderr } = await inlay('status', '/run/l');
    // biome-ignore lint/suspicious/noControlCharactersInRegex: there may be none.
    expect([code, /[\x00-\x09\x0b-\x1f\x7f-\x9f]/.test(stderr)]).toEqual([1, false]);
    expect(stderr).toContain('gone');
    await vms.lab.must('a', ['sh', '-c', 'mkdir /run/linked && ln -s /run/l/control.sock /run/linked/control.sock']);
    expect(await inlay('status', '/run/linked')).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('is no socket'),
    });
  });
});
