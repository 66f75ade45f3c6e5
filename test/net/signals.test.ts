/** What signals do to a daemon: SIGTERM ends it in time, whatever is stuck, and others do not end it. */
import { once } from 'node:events';
import type { Readable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { notRoot, skip } from './require.ts';
import { PATIENCE, type Plane, Vms } from './vms.ts';

const HOLD = fileURLToPath(new URL('hold.mjs', import.meta.url));
/** The port of Node's debugger, as /proc/net/tcp has it. */
const DEBUGGER = ':240D';

describe.skipIf(skip('signals', notRoot)).each<Plane>(['wasm', 'wasm-udp', 'kernel'])('%s', (plane) => {
  let vms: Vms;
  beforeAll(async () => {
    vms = await Vms.of(plane, 'a', 'b');
  });
  afterAll(() => vms?.close());
  afterEach(async () => {
    for (const name of vms.names) await vms.reset(name);
  });

  const said = async (name: string) =>
    (await vms.log(name))
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line) as { level: string; msg: string });

  test('SIGHUP, SIGUSR1, SIGUSR2 and SIGPIPE change nothing, and open no debugger', async () => {
    const a = await vms.up('a');
    await vms.up('b');
    for (const signal of ['HUP', 'USR1', 'USR2', 'PIPE', 'HUP']) await vms.kill(signal, a);
    await expect
      .poll(async () => (await said('a')).filter(({ msg }) => msg.startsWith('SIGHUP')), PATIENCE)
      .toHaveLength(2);
    expect(await vms.status('a')).toMatchObject({ state: 'running', pid: a.pid });
    expect(await vms.pings('b', vms.overlay('a'), 1)).toBe('1');
    expect(await vms.lab.must('a', ['cat', '/proc/net/tcp', '/proc/net/tcp6'])).not.toContain(DEBUGGER);
    expect(await vms.end('TERM', a)).toBe(0);
  });

  test('SIGTERM ends it although its threads do not answer; the next one starts as ever', async () => {
    const a = await vms.up('a');
    await vms.up('b');
    const holder = vms.lab.start(undefined, [process.execPath, HOLD, String(a.pid)], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const [words] = await once((holder.stdout as Readable).setEncoding('utf8'), 'data');
    expect(words).toMatch(/^[1-9]\d* held/);
    // The kernel's data plane has no thread that is needed for the clean-up: it is over before a second signal.
    const isClean = plane === 'kernel';
    // What a second signal does must not be worse.
    if (!isClean) await vms.kill('TERM', a);
    expect(await vms.end('TERM', a)).toBe(isClean ? 0 : 1);
    expect((await said('a')).at(-1)?.msg).toMatch(isClean ? /^stopped/ : /^ended without/);
    await vms.up('a');
    expect(await vms.pings('b', vms.overlay('a'), 1)).toBe('1');
  });

  test('a mistake in the program is in the log, and all is cleaned up', async () => {
    const before = await vms.network('a');
    const mistake = "process.on('SIGWINCH',()=>setImmediate(()=>null.mistake))";
    const a = await vms.upAs(['env', `NODE_OPTIONS=--import=data:text/javascript,${mistake}`], 'a');
    expect(await vms.end('WINCH', a)).toBe(1);
    expect((await said('a')).slice(-2)).toMatchObject([
      {
        level: 'fatal',
        stack: expect.stringMatching(/^TypeError: .*\n +at /),
        msg: expect.stringContaining('mistake'),
      },
      { level: 'info', msg: expect.stringMatching(/^stopped/) },
    ]);
    await vms.inlay('a', 'down');
    expect(await vms.network('a')).toEqual(before);
  });
});
