/** Real traffic between containers: ping(8), and TCP streams between agents. */
import type { ChildProcess } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { InlayError } from '../errors.ts';
import type { AgentAnswer, AgentRequest } from './agent.ts';
import type { Lab } from './lab.ts';
import type { Container, Vm } from './mesh.ts';
import type { Pair } from './pairs.ts';

/** Packets per pair. */
const PINGS = 4;
/** Seconds between the packets of a pair. */
const INTERVAL = 0.2;
/**
 * Seconds in which all answers of a pair are to come. Without a deadline, ping waits for the last no longer than twice
 * what others took, too little on a busy machine. With it, ping sends more until so many have come: those do not count.
 */
const DEADLINE = 3;
/** How many pings one container runs at a time, and how many containers ping at a time. */
const LANES = 8;
const PINGING = 64;
const AGENT = fileURLToPath(new URL('../../dist/demo/agent.js', import.meta.url));

export interface PingResult {
  from: Container;
  to: Container;
  sent: number;
  received: number;
  /** Round-trip time of the first packet in ms; undefined if it was lost. */
  first: number | undefined;
  /** Median of the others, in ms. */
  steady: number | undefined;
}

/** Pings between all pairs. The results come in another order. */
export async function pingAll(lab: Lab, pairs: readonly Pair[]): Promise<PingResult[]> {
  const targets = new Map<Container, Container[]>();
  for (const [from, to] of pairs) targets.set(from, [...(targets.get(from) ?? []), to]);
  const waiting = [...targets];
  const found: PingResult[] = [];
  const work = async () => {
    for (let next = waiting.pop(); next; next = waiting.pop()) found.push(...(await pingFrom(lab, ...next)));
  };
  await Promise.all(Array.from({ length: PINGING }, work));
  return found;
}

async function pingFrom(lab: Lab, from: Container, to: readonly Container[]): Promise<PingResult[]> {
  const lanes = Array.from({ length: LANES }, (_, lane) => to.filter((_, i) => i % LANES === lane));
  return (await Promise.all(lanes.map((part) => pingInTurn(lab, from, part)))).flat();
}

async function pingInTurn(lab: Lab, from: Container, to: readonly Container[]): Promise<PingResult[]> {
  if (to.length === 0) return [];
  // One shell for all: a pair then costs one process and not three.
  const script = `for to do echo "to $to"; ping -n -c ${PINGS} -i ${INTERVAL} -w ${DEADLINE} $to; done; true`;
  const output = await lab.must(from.name, ['sh', '-c', script, 'sh', ...to.map(({ address }) => address)]);
  const texts = output.split(/^to /m).slice(1);
  return to.map((each, i) => {
    const times = new Map<number, number>();
    for (const [, sequence, time] of texts[i]?.matchAll(/icmp_seq=(\d+) .*time=([\d.]+) ms/g) ?? [])
      if (Number(sequence) <= PINGS) times.set(Number(sequence), Number(time));
    const first = times.get(1);
    times.delete(1);
    const received = times.size + (first === undefined ? 0 : 1);
    return { from, to: each, sent: PINGS, received, first, steady: median([...times.values()]) };
  });
}

/** One agent on each VM. */
export class Agents {
  readonly #agents = new Map<Vm, ChildProcess>();

  static async start(lab: Lab, vms: readonly Vm[]): Promise<Agents> {
    const agents = new Agents();
    await Promise.all(
      vms.map(async (vm) => {
        const words = [process.execPath, AGENT, ...vm.containers.map(({ name }) => name)];
        const child = lab.start(vm.name, words, { stdio: ['ignore', 'ignore', 'inherit', 'ipc'] });
        agents.#agents.set(vm, child);
        await answerOf(child, vm);
      }),
    );
    return agents;
  }

  /** Sends a TCP stream; resolves to its Mbit/s, or undefined if it failed or bytes were lost. */
  async stream({ name, vm }: Container, request: Omit<AgentRequest, 'from'>): Promise<number | undefined> {
    const child = this.#agents.get(vm) as ChildProcess;
    const answer = answerOf(child, vm);
    child.send({ from: name, ...request });
    const { received, sent, milliseconds } = (await answer) as AgentAnswer;
    if (sent === undefined || milliseconds === undefined || received !== sent) return undefined;
    return (sent * 8) / milliseconds / 1000;
  }

  stop(): void {
    for (const child of this.#agents.values()) child.disconnect();
  }
}

function answerOf(child: ChildProcess, vm: Vm): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const exited = () => reject(new InlayError('ERR_FAILED', `the traffic agent of ${vm.name} ended`));
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
