/** TCP between namespaces of a lab. */
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { expect } from 'vitest';
import type { Lab } from '../../src/demo/lab.ts';

const TCP = fileURLToPath(new URL('../uml/tcp.mjs', import.meta.url));
/** s */
const TIMEOUT = 40;

interface Target {
  name: string;
  address: string;
  /** Where it listens, if that is another address. */
  listens?: string;
}

/** One connection that carries `bytes` both ways at once, unchanged; `during` begins when it is there. `timeout` is in seconds. */
export async function stream(
  lab: Lab,
  from: string,
  to: Target,
  bytes: number,
  during: () => Promise<void> = async () => {},
  timeout = TIMEOUT,
): Promise<void> {
  expect(await transfer(lab, from, to, [String(bytes)], during, timeout)).toBe(bytes);
}

/** One connection that carries something both ways, unchanged, from before `work` until it is done. */
export async function streamDuring(lab: Lab, from: string, to: Target, work: () => Promise<void>): Promise<void> {
  expect(await transfer(lab, from, to, [], work, 2 * TIMEOUT)).toBeGreaterThan(0);
}

/** Resolves to how many bytes `from` sent. */
async function transfer(
  lab: Lab,
  from: string,
  to: Target,
  bytes: string[],
  during: () => Promise<void>,
  timeout: number,
): Promise<number> {
  const stdio = ['pipe', 'pipe', 'pipe'] as ['pipe', 'pipe', 'pipe'];
  const run = async (where: string, role: string) => {
    const address = role === 'listen' ? (to.listens ?? to.address) : to.address;
    const words = ['timeout', String(timeout), process.execPath, TCP, role, address, ...bytes];
    const child = lab.start(where, words, { stdio });
    const said = { stdout: '', stderr: '' };
    for (const stream of ['stdout', 'stderr'] as const) {
      child[stream]?.setEncoding('utf8').on('data', (chunk: string) => {
        said[stream] += chunk;
      });
    }
    child.stdin?.on('error', () => {}); // It may have ended.
    const done = once(child, 'close').then(([code]) => {
      if (code !== 0) throw new Error(`${role} ended with ${code}: ${said.stderr}`);
      return JSON.parse(said.stdout);
    });
    done.catch(() => {}); // Looked at below.
    if (child.stderr) await Promise.race([once(child.stderr, 'data'), done]);
    return { child, done };
  };
  const server = await run(to.name, 'listen');
  const client = await run(from, 'connect');
  try {
    await during();
  } finally {
    for (const { child } of [client, server]) child.stdin?.end();
  }
  const [sent, got] = await Promise.all([client.done, server.done]);
  expect(got.received).toEqual(sent.sent);
  expect(sent.received).toEqual(got.sent);
  return sent.sent.bytes;
}
