/** Processes of a local user in a lab, and the words that make a command theirs. */
import { once } from 'node:events';
import type { Lab } from '../../src/demo/lab.ts';

export const USER = 65534;
export const AS_USER = ['setpriv', `--reuid=${USER}`, `--regid=${USER}`, '--clear-groups'];
/** A daemon's user, as the recipe of SECURITY.md has it. */
export const LEAST = [
  ...AS_USER,
  ...['--inh-caps', '--ambient-caps', '--bounding-set'].map((set) => `${set}=-all,+net_admin,+net_raw`),
];

export class Strangers {
  readonly #lab: Lab;
  readonly #where: string;
  /** When each ends, by its number in the lab. */
  readonly #ends = new Map<string, Promise<unknown>>();

  constructor(lab: Lab, where: string) {
    this.#lab = lab;
    this.#where = where;
  }

  /** Starts a process that goes on, once it has said its number, by which it is ended. */
  async start(words: readonly string[]): Promise<string> {
    const child = this.#lab.start(this.#where, words, { stdio: ['ignore', 'pipe', 'inherit'] });
    const end = once(child, 'exit');
    const [said] = await once(child.stdout as NodeJS.ReadableStream, 'data');
    const pid = String(said).trim();
    this.#ends.set(pid, end);
    return pid;
  }

  async end(pid: string): Promise<void> {
    await this.#lab.run(undefined, ['kill', '-KILL', pid]);
    await this.#ends.get(pid);
    this.#ends.delete(pid);
  }

  async endAll(): Promise<void> {
    for (const pid of this.#ends.keys()) await this.end(pid);
  }
}
