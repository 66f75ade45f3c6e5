/** Real traffic between containers: ping(8), and TCP streams between agents. */
import type { ChildProcess } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { InlayError } from '../errors.ts';
import type { AgentAnswer, AgentRequest } from './agent.ts';
import type { Lab } from './lab.ts';
import type { Container } from './mesh.ts';

/** Packets per pair. */
const PINGS = 4;
/** Seconds between the packets of a pair. */
const INTERVAL = 0.2;
/**
 * Seconds in which all answers of a pair are to come. Without a deadline, ping waits for the last no longer than twice
 * what others took, too little on a busy machine. With it, ping sends more until so many have come: those do not count.
 */
const DEADLINE = 3;
/** How many pings one container runs at a time. */
const LANES = 8;
const AGENT = fileURLToPath(new URL('../../dist/demo/agent.js', import.meta.url));

export interface PingResult {
  to: string;
  sent: number;
  received: number;
  /** Round-trip time of the first packet in ms; undefined if it was lost. */
  first: number | undefined;
  /** Median of the others, in ms. */
  steady: number | undefined;
}

/** Pings each address from one container. */
export async function pingAll(lab: Lab, from: Container, to: readonly string[]): Promise<PingResult[]> {
  const lanes = Array.from({ length: LANES }, (_, lane) => to.filter((_, i) => i % LANES === lane));
  return (await Promise.all(lanes.map((part) => pingInTurn(lab, from, part)))).flat();
}

async function pingInTurn(lab: Lab, from: Container, to: readonly string[]): Promise<PingResult[]> {
  if (to.length === 0) return [];
  // One shell for all: a pair then costs one process and not three.
  const script = `for to do echo "to $to"; ping -n -c ${PINGS} -i ${INTERVAL} -w ${DEADLINE} $to; done; true`;
  const output = await lab.must(from.name, ['sh', '-c', script, 'sh', ...to]);
  return output
    .split(/^to /m)
    .slice(1)
    .map((text) => {
      const times = new Map<number, number>();
      for (const [, sequence, time] of text.matchAll(/icmp_seq=(\d+) .*time=([\d.]+) ms/g))
        if (Number(sequence) <= PINGS) times.set(Number(sequence), Number(time));
      const first = times.get(1);
      times.delete(1);
      return {
        to: text.slice(0, text.indexOf('\n')),
        sent: PINGS,
        received: times.size + (first === undefined ? 0 : 1),
        first,
        steady: median([...times.values()]),
      };
    });
}

/** One agent in each container. */
export class Agents {
  readonly #agents = new Map<Container, ChildProcess>();

  static async start(lab: Lab, containers: readonly Container[]): Promise<Agents> {
    const agents = new Agents();
    await Promise.all(
      containers.map(async (container) => {
        const child = lab.start(container.name, [process.execPath, AGENT], {
          stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
        });
        agents.#agents.set(container, child);
        await answerOf(child, container);
      }),
    );
    return agents;
  }

  /** Sends a TCP stream; resolves to its Mbit/s, or undefined if it failed or bytes were lost. */
  async stream(from: Container, request: AgentRequest): Promise<number | undefined> {
    const child = this.#agents.get(from) as ChildProcess;
    const answer = answerOf(child, from);
    child.send(request);
    const { received, sent, milliseconds } = (await answer) as AgentAnswer;
    if (sent === undefined || milliseconds === undefined || received !== sent) return undefined;
    return (sent * 8) / milliseconds / 1000;
  }

  stop(): void {
    for (const child of this.#agents.values()) child.disconnect();
  }
}

function answerOf(child: ChildProcess, container: Container): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const exited = () => reject(new InlayError('ERR_FAILED', `the traffic agent of ${container.name} ended`));
    child.once('exit', exited);
    child.once('message', (message) => {
      child.off('exit', exited);
      resolve(message);
    });
  });
}

/** The middle of the sorted values; undefined if there are none. */
export function median(values: readonly number[]): number | undefined {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.floor((sorted.length - 1) / 2)];
}
