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

/** One connection that carries `bytes` both ways at once, unchanged; `during` is done while it does. `timeout` is in seconds. */
export async function stream(
  lab: Lab,
  from: string,
  to: Target,
  bytes: number,
  during: () => Promise<void> = async () => {},
  timeout = TIMEOUT,
): Promise<void> {
  const { sent } = await transfer(lab, from, to, [String(bytes)], during, timeout);
  expect(sent).toBe(bytes);
}

/** One connection that carries something both ways all the time while `work` is done, unchanged. */
export async function streamDuring(lab: Lab, from: string, to: Target, work: () => Promise<void>): Promise<void> {
  expect((await transfer(lab, from, to, [], work, 2 * TIMEOUT)).sent).toBeGreaterThan(0);
}

async function transfer(
  lab: Lab,
  from: string,
  to: Target,
  bytes: string[],
  during: () => Promise<void>,
  timeout: number,
): Promise<{ sent?: number }> {
  const stdio = ['pipe', 'pipe', 'pipe'] as ['pipe', 'pipe', 'pipe'];
  const run = (where: string, role: string) => {
    const address = role === 'listen' ? (to.listens ?? to.address) : to.address;
    const words = ['timeout', String(timeout), process.execPath, TCP, role, address, ...bytes];
    const child = lab.start(where, words, { stdio });
    let text = '';
    child.stdout?.setEncoding('utf8').on('data', (chunk: string) => {
      text += chunk;
    });
    return { child, done: once(child, 'close').then(() => (text === '' ? null : JSON.parse(text))) };
  };
  const server = run(to.name, 'listen');
  if (server.child.stderr) await once(server.child.stderr, 'data');
  const client = run(from, 'connect');
  try {
    await during();
  } finally {
    for (const { child } of [client, server]) child.stdin?.on('error', () => {}).end(); // It may have ended.
  }
  const [sent, got] = await Promise.all([client.done, server.done]);
  expect(got?.received).toEqual(sent?.sent);
  expect(sent?.received).toEqual(got?.sent);
  return { sent: sent?.sent.bytes };
}
