/** The log never waits for whoever reads it, and loses nothing silently. */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import type { Readable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { LogQueue } from '../src/log-queue.ts';

const WRITER = fileURLToPath(new URL('log-writer.mjs', import.meta.url));
const isRoot = process.geteuid?.() === 0;
/** More than a pipe or a socket and the queue take, by far. */
const MANY = 5000;

interface Line {
  i?: number;
  by?: number;
  leftOut?: number;
}

/** Lines that came through; all have to be whole. */
const parse = (text: string): Line[] =>
  text
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line));

let directory: string;
beforeAll(() => {
  directory = fs.mkdtempSync(path.join(os.tmpdir(), 'log-'));
  fs.chmodSync(directory, 0o755);
});
afterAll(() => fs.rmSync(directory, { recursive: true }));

/** A pipe that nobody reads until it is told to. */
class Pipe {
  readonly name: string;
  #fd: number;

  constructor(name: string) {
    this.name = path.join(directory, name.replaceAll(' ', '-'));
    execFileSync('mkfifo', ['-m', '600', this.name]);
    this.#fd = this.#open();
  }

  /** Neither end waits for the other. */
  #open(): number {
    return fs.openSync(this.name, fs.constants.O_RDONLY | fs.constants.O_NONBLOCK);
  }

  /** What comes until it is `enough`. */
  async text(isEnough: (text: string) => boolean): Promise<string> {
    let text = '';
    const buffer = Buffer.alloc(1 << 16);
    while (!isEnough(text)) {
      const length = readNow(this.#fd, buffer);
      text += buffer.toString('utf8', 0, length);
      if (length === 0) await sleep(5);
    }
    return text;
  }

  close(): void {
    fs.closeSync(this.#fd);
  }

  /** As a new reader. */
  reopen(): void {
    this.#fd = this.#open();
  }
}

function readNow(fd: number, buffer: Buffer): number {
  try {
    return fs.readSync(fd, buffer);
  } catch (error) {
    expect(error).toMatchObject({ code: 'EAGAIN' });
    return 0;
  }
}

class Writer {
  readonly child: ChildProcess;

  /** `wrapper` are the words before node. */
  constructor(stderr: number | 'pipe', wrapper: readonly string[] = []) {
    const [program = '', ...words] = [...wrapper, process.execPath, WRITER];
    this.child = spawn(program, words, { stdio: ['pipe', 'pipe', stderr] });
  }

  /** Has it log lines; resolves when it is done with that, which it is whatever becomes of them. */
  async log(count: number): Promise<void> {
    this.child.stdin?.write(String(count));
    await once(this.child.stdout as Readable, 'data');
  }

  /** Its exit code, when it has nothing to do any more. */
  async end(): Promise<number | null> {
    const ended = once(this.child, 'exit');
    this.child.stdin?.end();
    return (await ended)[0];
  }
}

const isWhole = (text: string) => text.includes('leftOut') && text.endsWith('\n');

/** The first lines in their order, then how many were left out. */
function expectBeginning(lines: readonly Line[]): void {
  const count = lines.length - 1;
  expect(count).toBeGreaterThan(1000);
  expect(lines.map(({ i }) => i)).toEqual([...Array(count).keys(), undefined]);
  expect(lines[count]).toMatchObject({ leftOut: MANY - count, msg: `${MANY - count} lines were left out` });
}

describe('a reader that stalls, and reads again', () => {
  test.each([
    { name: 'a pipe', wrapper: [] },
    { name: 'a pipe of another user', wrapper: ['setpriv', '--reuid=65534', '--clear-groups'] },
  ])('$name', async ({ name, wrapper }) => {
    if (wrapper.length > 0 && !isRoot) return;
    const pipe = new Pipe(name);
    const fd = fs.openSync(pipe.name, 'w');
    const writer = new Writer(fd, wrapper);
    await writer.log(MANY);
    expectBeginning(parse(await pipe.text(isWhole)));
    await writer.log(1);
    expect(parse(await pipe.text((text) => text.endsWith('\n')))).toMatchObject([{ i: MANY }]);
    expect(await writer.end()).toBe(0);
    fs.closeSync(fd);
    pipe.close();
  });

  test('a socket', async () => {
    // What node calls a pipe is a pair of sockets.
    const writer = new Writer('pipe');
    const stderr = writer.child.stderr as Readable;
    await writer.log(MANY);
    let text = '';
    stderr.setEncoding('utf8').on('data', (chunk) => {
      text += chunk;
    });
    await expect.poll(() => isWhole(text), { timeout: 10_000 }).toBe(true);
    expectBeginning(parse(text));
    expect(await writer.end()).toBe(0);
  });

  test('two processes write whole lines to one pipe', async () => {
    const pipe = new Pipe('shared');
    const fd = fs.openSync(pipe.name, 'w');
    const writers = [new Writer(fd), new Writer(fd)];
    await Promise.all(writers.map((writer) => writer.log(MANY)));
    const lines = parse(await pipe.text((text) => text.split('leftOut').length > 2 && text.endsWith('\n')));
    for (const { child } of writers) {
      const own = lines.filter(({ by }) => by === child.pid).map(({ i }) => i);
      expect(own).toEqual([...own.keys()]);
    }
    expect(lines.reduce((sum, { leftOut = 1 }) => sum + leftOut, 0)).toBe(2 * MANY);
    for (const writer of writers) expect(await writer.end()).toBe(0);
    fs.closeSync(fd);
    pipe.close();
  });
});

describe('a log that takes nothing', () => {
  test.each(['/dev/full', 'closed'])('%s', async (file) => {
    const fd = fs.openSync(file === 'closed' ? '/dev/null' : file, 'w');
    const writer = new Writer(fd, file === 'closed' ? ['sh', '-c', 'exec "$@" 2>&-', 'sh'] : []);
    for (let i = 0; i < 3; i++) await writer.log(MANY);
    expect(await writer.end()).toBe(0);
    fs.closeSync(fd);
  });

  test('a reader that has gone, and another that comes', async () => {
    const pipe = new Pipe('left');
    const fd = fs.openSync(pipe.name, 'w');
    const writer = new Writer(fd);
    await writer.log(1);
    expect(parse(await pipe.text((text) => text.endsWith('\n')))).toMatchObject([{ i: 0 }]);
    pipe.close();
    await writer.log(3);
    pipe.reopen();
    expect(parse(await pipe.text((text) => text.split('\n').length > 3))).toMatchObject([{ i: 1 }, { i: 2 }, { i: 3 }]);
    expect(await writer.end()).toBe(0);
    fs.closeSync(fd);
  });

  test('the end of the process does not wait for it', async () => {
    const pipe = new Pipe('ends');
    const fd = fs.openSync(pipe.name, 'w');
    const writer = new Writer(fd);
    await writer.log(MANY);
    expect(await writer.end()).toBe(0);
    fs.closeSync(fd);
    pipe.close();
  });
});

describe('LogQueue', () => {
  /** A log that takes `room` bytes. */
  function logOf(room: number) {
    const log = { text: '', room };
    const queue = new LogQueue(
      (bytes) => {
        const taken = bytes.subarray(0, log.room);
        log.room -= taken.length;
        log.text += Buffer.from(taken).toString();
        return taken.length;
      },
      (count) => `(${count})\n`,
    );
    return { log, queue };
  }

  test('goes on in the middle of a line', () => {
    const { log, queue } = logOf(3);
    queue.write('first\n');
    queue.write('second\n');
    expect(log.text).toBe('fir');
    log.room = Infinity;
    queue.flush();
    expect(log.text).toBe('first\nsecond\n');
  });

  test('tells what was left out, after all that came before and before all that comes', () => {
    const { log, queue } = logOf(0);
    const line = `${'x'.repeat(1 << 16)}\n`;
    for (let i = 0; i < 10; i++) queue.write(line);
    log.room = Infinity;
    queue.flush();
    queue.write('next\n');
    queue.flush();
    expect(log.text).toEqual(`${line.repeat(3)}(7)\nnext\n`);
  });

  test('leaves out what is too long for a datagram, now and ever', () => {
    const sent: string[] = [];
    const queue = new LogQueue(
      (bytes) => (bytes.length > 10 ? -os.constants.errno.EMSGSIZE : sent.push(`${bytes}`) && bytes.length),
      (count) => `(${count})\n`,
    );
    queue.write(`${'x'.repeat(20)}\n`);
    queue.write('next\n');
    expect(sent).toEqual(['(1)\n', 'next\n']);
  });
});
