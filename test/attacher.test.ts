/** Calls of CNI that wait for the daemon's thread: their order, what is done together, and a thread that ends or hangs. */
import { EventEmitter } from 'node:events';
import { describe, expect, test } from 'vitest';
import { type CniContainers, type CniLibrary, Elsewhere } from '../src/containers/cni/plugin.ts';
import { ContainerError } from '../src/containers/reasons.ts';
import { Attacher, type AttachThread } from '../src/daemon/attacher.ts';
import { answerCalls, type CniCall, type CniOutcome } from '../src/daemon/cni-calls.ts';
import type { Answer } from '../src/daemon/control-server.ts';

const CONFIG = JSON.stringify({ cniVersion: '1.1.0', name: 'mesh', type: 'inlay-cni' });

function call(command: string, id: string, config: object = {}): CniCall {
  const env = { CNI_COMMAND: command, CNI_CONTAINERID: id, CNI_NETNS: '/run/netns/x', CNI_IFNAME: 'eth0' };
  return { env, config: JSON.stringify({ ...JSON.parse(CONFIG), ...config }) };
}

describe('calls that detach', () => {
  const log: string[] = [];
  /** A library in which `bad` is not ours, so that all that are detached with it fail. */
  const library: CniLibrary = {
    open: ({ runDir, coolDown }) => {
      if (runDir === '/run/other') throw new Elsewhere();
      if (runDir === '/run/none') throw new ContainerError('no-mesh', 'no');
      if (runDir === '/run/damaged') throw new ContainerError('system', 'no');
      log.push(`open ${coolDown}`);
      const detachAll = (targets: readonly { id: string }[]) => {
        if (targets.some(({ id }) => id.endsWith('bad'))) throw new ContainerError('system', 'no');
        log.push(`detach ${targets.map(({ id }) => id.replace('cni:mesh:', '')).join(' ')}`);
        return [];
      };
      const detach = (target: { id: string }) => detachAll([target]);
      return { detach, detachAll, close: () => log.push('close') } as Partial<CniContainers> as CniContainers;
    },
  };
  const answers = (...calls: CniCall[]) => {
    log.length = 0;
    return answerCalls(calls, library).map((outcome) => outcome?.code);
  };

  test('are one for the kernel', () => {
    expect(answers(call('DEL', 'a'), call('DEL', 'b'), call('DEL', 'c'))).toEqual([0, 0, 0]);
    expect(log).toEqual(['open undefined', 'detach a b c', 'close']);
  });

  test('are one for each configuration', () => {
    expect(answers(call('DEL', 'a'), call('DEL', 'b', { coolDown: 5 }), call('DEL', 'c'))).toEqual([0, 0, 0]);
    expect(log).toEqual(['open undefined', 'open 5', 'detach a c', 'detach b', 'close', 'close']);
  });

  test('have each an answer of their own', () => {
    const wrong = call('DEL', '-');
    const elsewhere = call('DEL', 'x', { runDir: '/run/other' });
    const [none, damaged] = [call('DEL', 'y', { runDir: '/run/none' }), call('DEL', 'z', { runDir: '/run/damaged' })];
    expect(answers(call('DEL', 'a'), wrong, elsewhere, none, damaged, call('DEL', 'b'))).toEqual([
      ...[0, 1, undefined, 0, 1, 0],
    ]);
    expect(log).toEqual(['open undefined', 'detach a b', 'close']);
  });

  test('are done one by one if one of them stands in the way', () => {
    expect(answers(call('DEL', 'a'), call('DEL', 'bad'), call('DEL', 'b'))).toEqual([0, 1, 0]);
    expect(log.filter((line) => line.startsWith('detach'))).toEqual(['detach a', 'detach b']);
  });
});

describe('the thread', () => {
  class Thread extends EventEmitter {
    batches: CniCall[][] = [];
    isTerminated = false;
    postMessage(calls: CniCall[]): void {
      this.batches.push(calls);
    }
    async terminate(): Promise<number> {
      this.isTerminated = true;
      return 1;
    }
    answer(outcome: CniOutcome = { code: 0, stdout: 'done' }): void {
      this.emit(
        'message',
        this.batches.at(-1)?.map(() => outcome),
      );
    }
    /** What it was asked last: commands and ids. */
    get asked(): string[] | undefined {
      return this.batches.at(-1)?.map(({ env }) => `${env['CNI_COMMAND']} ${env['CNI_CONTAINERID']}`);
    }
  }

  function world(patience = 1_000_000) {
    const threads: Thread[] = [];
    const warned: string[] = [];
    const attacher = new Attacher({
      start: () => {
        threads.push(new Thread());
        return threads.at(-1) as unknown as AttachThread;
      },
      log: (_, __, facts) => warned.push((facts as { why: string }).why),
      patience,
    });
    const ask = (command: string, id: string, signal = new AbortController().signal) => {
      const { env, config } = call(command, id);
      const form = new URLSearchParams({ ...env, config } as Record<string, string>);
      return attacher.routes['cni']?.(String(form), signal) as Promise<Answer>;
    };
    return { attacher, threads, warned, ask, last: () => threads.at(-1) as Thread };
  }

  test('gets one call at a time, in order, and those that detach together', async () => {
    const { ask, last } = world();
    const answers = ['ADD a', 'DEL b', 'ADD c', 'DEL d', 'DEL c', 'ADD b', 'DEL e', 'DEL b'].map((each) =>
      ask(...(each.split(' ') as [string, string])),
    );
    const seen: unknown[] = [];
    for (let i = 0; i < 5; i++) {
      seen.push(last().asked);
      last().answer();
    }
    expect(seen).toEqual([['ADD a'], ['DEL b', 'DEL d', 'DEL e'], ['ADD c'], ['DEL c'], ['ADD b']]);
    expect(last().asked).toEqual(['DEL b']);
    last().answer();
    expect(await Promise.all(answers)).toEqual(answers.map(() => ({ status: 200, text: 'done' })));
  });

  test('is not asked what nobody waits for', () => {
    const { ask, last } = world();
    const gone = new AbortController();
    void ask('ADD', 'a');
    void ask('ADD', 'b', gone.signal);
    void ask('ADD', 'c');
    gone.abort();
    last().answer();
    expect(last().asked).toEqual(['ADD c']);
  });

  test.each([
    [
      { code: 1, stdout: 'no' },
      { status: 400, text: 'no' },
    ],
    [undefined, { status: 404, text: expect.stringContaining('another daemon') }],
  ])('answers with %o', async (outcome, expected) => {
    const { ask, last } = world();
    const answer = ask('ADD', 'a');
    last().emit('message', [outcome]);
    expect(await answer).toEqual(expected);
  });

  test('is started anew if it ends, and who waited may try again', async () => {
    const { ask, threads, warned, last } = world();
    const [first, second] = [ask('ADD', 'a'), ask('ADD', 'b')];
    last().emit('error', new Error('out of memory\nstack'));
    last().emit('exit', 1);
    const { status, text } = await first;
    expect([status, JSON.parse(text)]).toEqual([
      503,
      { cniVersion: '1.1.0', code: 11, msg: expect.any(String), details: expect.stringContaining('out of memory') },
    ]);
    expect([threads.length, warned, last().asked]).toEqual([2, ['out of memory'], ['ADD b']]);
    last().answer();
    expect(await second).toMatchObject({ status: 200 });
  });

  test('is left behind if it hangs, and no more are started than can hang', async () => {
    const { attacher, ask, threads, last } = world(10);
    for (const id of ['a', 'b', 'c', 'd']) expect(await ask('ADD', id)).toMatchObject({ status: 503 });
    // Each finds, when it comes back, that it is to end; nobody ends it in the middle.
    expect(threads.map(({ batches, isTerminated }) => [batches.at(-1), isTerminated])).toEqual(
      Array(4).fill([[], false]),
    );
    expect(attacher.obstacle?.what).toMatch(/^4 threads/);
    expect(await ask('ADD', 'e')).toMatchObject({ status: 503, text: expect.stringContaining('4 threads') });
    expect(threads).toHaveLength(4);
    // What comes too late is nobody's answer.
    threads[0]?.answer();
    threads[0]?.emit('exit', 1);
    expect(attacher.obstacle).toBeUndefined();
    const answer = ask('ADD', 'f');
    last().answer();
    expect(await answer).toMatchObject({ status: 200 });
  });

  test('ends when it is done; who waits, or comes then, does it without the daemon', async () => {
    const { attacher, ask, last } = world();
    const [first, second] = [ask('ADD', 'a'), ask('ADD', 'b')];
    const closed = attacher.close();
    for (const each of [second, ask('ADD', 'c')]) expect(await each).toMatchObject({ status: 404 });
    expect(last().isTerminated).toBe(false);
    last().answer();
    expect(await first).toMatchObject({ status: 200 });
    await closed;
    expect(last().isTerminated).toBe(true);
  });

  test('may end by itself while the daemon ends: only what was under way is to be tried again', async () => {
    const { attacher, ask, last } = world();
    const [first, second] = [ask('ADD', 'a'), ask('ADD', 'b')];
    const closed = attacher.close();
    last().emit('exit', 1);
    expect(await first).toMatchObject({ status: 503 });
    expect(await second).toMatchObject({ status: 404 });
    await closed;
    expect(await ask('ADD', 'c')).toMatchObject({ status: 404 });
  });

  test('that cannot be started is tried again with the next call', async () => {
    let isRefused = true;
    const thread = new Thread();
    const attacher = new Attacher({
      start: () => {
        if (isRefused) throw new Error('no memory');
        return thread as unknown as AttachThread;
      },
      log: () => {},
    });
    const ask = () => attacher.routes['cni']?.('CNI_COMMAND=ADD', new AbortController().signal) as Promise<Answer>;
    expect(await ask()).toMatchObject({ status: 503, text: expect.stringContaining('no memory') });
    isRefused = false;
    const answer = ask();
    thread.answer();
    expect(await answer).toMatchObject({ status: 200 });
  });
});
