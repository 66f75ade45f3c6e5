/** An OCI hook, without a runtime: the test is one, with a process in a namespace as container. */

import { fileURLToPath } from 'node:url';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { missing, skip } from './require.ts';
import { Vms } from './vms.ts';

const HOOK = fileURLToPath(new URL('../../dist/oci-hook.js', import.meta.url));

describe.skipIf(skip('OCI hook', await missing('ping')))('OCI hook', () => {
  let vms: Vms;
  let pid: number;
  let before: string;

  beforeAll(async () => {
    vms = await Vms.of('wasm', 'a', 'b');
    await Promise.all([vms.up('a'), vms.up('b')]);
    await vms.lab.ip(undefined, ['netns add box', 'netns add other']);
    await vms.inlay('a', 'attach', 'box');
    await vms.inlay('a', 'detach', 'box');
    before = await links();
    pid = await processIn('box');
  });
  afterEach(async () => {
    expect(await links()).toBe(before);
  });
  afterAll(() => vms?.close());

  const links = () => vms.lab.must('a', ['ip', '-o', '-br', 'link']);
  const run = (action: string, state: unknown, runDir = vms.runDir('a')) => {
    const input = typeof state === 'string' ? state : JSON.stringify(state);
    return vms.lab.run('a', [process.execPath, HOOK, action, '--run-dir', runDir], input);
  };
  /** A process in a namespace: its number. */
  function processIn(namespace: string): Promise<number> {
    const child = vms.lab.start(namespace, ['sh', '-c', 'echo $$; exec sleep infinity'], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    child.unref();
    return new Promise((resolve) => child.stdout?.once('data', (data) => resolve(Number(data))));
  }
  const devices = (namespace: string) => vms.lab.must(namespace, ['ip', '-br', 'link']);
  const done = { code: 0, stdout: '', stderr: '' };
  const stateOf = (id: string, annotations?: object) => ({
    ...{ ociVersion: '1.0.2', id, status: 'created', pid, bundle: '/run/bundle' },
    ...(annotations && { annotations }),
  });
  const stopped = (id: string, annotations?: object) => ({ ...stateOf(id, annotations), status: 'stopped', pid: 0 });

  test('create attaches, remove detaches, and once more does no harm', async () => {
    const annotations = { 'inlay.container': '90', 'inlay.ifname': 'net7', 'com.example': 'x' };
    expect(await run('create', stateOf('web', annotations))).toEqual(done);
    expect(await vms.pings('b', '10.16.32.91', 3)).toBe('3');
    await vms.lab.must('box', ['ip', 'link', 'show', 'net7']);
    for (let i = 0; i < 2; i++) expect(await run('remove', stopped('web', annotations))).toEqual(done);
  });

  test('without annotations, or with auto, the next free number', async () => {
    for (const annotations of [undefined, { 'inlay.container': 'auto' }]) {
      expect(await run('create', stateOf('web', annotations))).toEqual(done);
      await vms.lab.must('box', ['ip', 'link', 'show', 'eth0']);
      expect(await run('remove', stopped('web', annotations))).toEqual(done);
    }
  });

  test("what a container's last run left, whose poststop never ran, goes", async () => {
    const annotations = { 'inlay.container': '80' };
    const last = await processIn('other');
    expect(await run('create', { ...stateOf('web', annotations), pid: last })).toEqual(done);
    // While somebody is in its namespace, it may be another runtime's, which has the same bundle.
    const { code, stderr } = await run('create', stateOf('web', annotations));
    expect([code, stderr]).toEqual([73, expect.stringContaining('container web of /run/bundle is attached already')]);
    expect(await devices('other')).toContain('eth0');
    await vms.lab.must(undefined, ['sh', '-c', `kill -KILL ${last}; while [ -e /proc/${last}/ns/net ]; do :; done`]);
    expect(await run('create', stateOf('web', annotations))).toEqual(done);
    expect(await devices('other')).not.toContain('eth0');
    // Once more in the same namespace, in which nobody else is.
    expect(await run('create', stateOf('web', annotations))).toEqual(done);
    expect(await run('remove', stopped('web'))).toEqual(done);
  });

  test('a container of the same id, of another runtime, is another one', async () => {
    const other = { ...stateOf('web'), bundle: '/run/other', pid: await processIn('other') };
    expect(await run('create', stateOf('web'))).toEqual(done);
    expect(await run('create', other)).toEqual(done);
    expect(await devices('box')).toContain('eth0');
    expect(await devices('other')).toContain('eth0');
    expect(await run('remove', { ...other, status: 'stopped', pid: 0 })).toEqual(done);
    expect(await devices('box')).toContain('eth0');
    expect(await run('remove', stopped('web'))).toEqual(done);
  });

  test('where there is no mesh, there is nothing to detach', async () => {
    expect(await run('remove', stopped('web'), '/run/none')).toEqual(done);
    const { code, stderr } = await run('create', stateOf('web'), '/run/none');
    expect([code, stderr]).toEqual([78, expect.stringContaining('no daemon has left its mesh')]);
  });

  test.each<[string, number, string, (good: ReturnType<typeof stateOf>) => unknown, string]>([
    ['no action', 2, '', (good) => good, 'hook "": expected create or remove'],
    ['another stage', 2, 'poststop', (good) => good, 'hook "poststop": expected create or remove'],
    ['no JSON', 2, 'create', () => '{"id"', 'the state of the container is not a JSON object'],
    ['nothing', 2, 'create', () => '', 'the state of the container is not a JSON object'],
    ['no id', 2, 'create', () => ({ pid: 1 }), 'has no id'],
    ['no bundle', 2, 'remove', () => ({ id: 'web' }), 'has no bundle'],
    ['an odd id', 2, 'remove', (good) => ({ ...good, id: 'a\nb' }), 'expected 1 to 256 printable characters'],
    ['no process', 2, 'create', (good) => ({ ...good, pid: 0 }), 'has no process'],
    ['a process that has gone', 66, 'create', (good) => ({ ...good, pid: 4_000_000 }), 'there is no network namespace'],
    ["the VM's own namespace", 2, 'create', (good) => ({ ...good, pid: 'self' }), 'has no process'],
    [
      'a number that is none',
      2,
      'create',
      (good) => ({ ...good, annotations: { 'inlay.container': '9O' } }),
      'inlay.container="9O": expected a number or auto',
    ],
    [
      'a number that is too high',
      2,
      'create',
      (good) => ({ ...good, annotations: { 'inlay.container': '254' } }),
      'expected 1 to 253',
    ],
    [
      'an interface that is none',
      2,
      'create',
      (good) => ({ ...good, annotations: { 'inlay.ifname': '..' } }),
      'interface ".."',
    ],
  ])('refused: %s', async (_, code, action, state, message) => {
    const found = await run(action, state(stateOf('web')));
    expect(found).toMatchObject({ code, stdout: '', stderr: expect.stringContaining(message) });
  });

  test('a container that shares the namespace of the VM', async () => {
    const { code, stderr } = await run('create', { ...stateOf('web'), pid: await processIn('a') });
    expect([code, stderr]).toEqual([2, expect.stringContaining("is this VM's own network namespace")]);
  });
});
