/** TCP between namespaces of a lab. */
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { expect } from 'vitest';
import type { Lab } from '../../src/demo/lab.ts';

const TCP = fileURLToPath(new URL('../uml/tcp.mjs', import.meta.url));
/** s */
const TIMEOUT = 40;

/** One connection that carries `bytes` both ways at once, unchanged; `during` is done while it does. `timeout` is in seconds. */
export async function stream(
  lab: Lab,
  from: string,
  to: { name: string; address: string },
  bytes: number,
  during: () => Promise<void> = async () => {},
  timeout = TIMEOUT,
): Promise<void> {
  const stdio = ['ignore', 'pipe', 'pipe'] as ['ignore', 'pipe', 'pipe'];
  const run = (where: string, role: string) => {
    const words = ['timeout', String(timeout), process.execPath, TCP, role, to.address, String(bytes)];
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
  await during();
  const [sent, got] = await Promise.all([client.done, server.done]);
  expect(sent?.sent.bytes).toBe(bytes);
  expect(got?.received).toEqual(sent?.sent);
  expect(sent?.received).toEqual(got?.sent);
}
