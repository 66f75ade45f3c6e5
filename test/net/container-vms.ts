/** VMs whose containers come by attach: from the command line, or through the library in a process of its own. */
import type { ChildProcess } from 'node:child_process';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import type { Attachment, AttachRequest } from '../../src/containers/attachment.ts';
import type { Target } from '../../src/containers/found.ts';
import type { ContainerStatus } from '../../src/containers/list.ts';
import type { ReasonName } from '../../src/containers/reasons.ts';
import { Lab, type Output } from '../../src/demo/lab.ts';
import { GuardedVms } from '../heavy/guarded-vms.ts';
import { CLI, shellLine } from './mesh.ts';
import type { Plane } from './vms.ts';

const LIBRARY = fileURLToPath(new URL('container-library.mjs', import.meta.url));
const INJECT = fileURLToPath(new URL('inject.mjs', import.meta.url));
const STEPS = fileURLToPath(new URL('steps.mjs', import.meta.url));
/** Where no daemon has left its mesh. */
export const MESH = ['--overlay', '10.0.0.0/8', '--underlay', '192.168.0.0/16'];

/** A VM's mesh, as container-library.mjs takes it. */
export interface MeshWords {
  overlay?: string;
  underlay?: string;
  mtu?: number;
  /** Seconds. */
  coolDown?: number;
}

export interface Refusal {
  reason?: ReasonName;
  message: string;
  hint?: string;
  exitCode?: number;
}

/** What the library threw, in the other process. */
export class Refused extends Error {
  readonly refusal: Refusal;

  constructor(refusal: Refusal) {
    super(`${refusal.reason}: ${refusal.message}`);
    this.refusal = refusal;
  }
}

/** What the kernel of a VM has of containers. */
export interface Traces {
  /** Host's ends, with their aliases. */
  links: string[];
  /** `10.16.32.91 dev inl...`. */
  claims: string[];
  /** Addresses that cool down. */
  tombstones: string[];
  /** `10.16.32.91 dev inl... 02:...`. */
  neighbours: string[];
}

export const NOTHING: Traces = { links: [], claims: [], tombstones: [], neighbours: [] };

/** The library in a process on a VM; calls are done one after the other. */
export class Library {
  readonly #child: ChildProcess;
  readonly #answers: AsyncIterator<string>;

  constructor(child: ChildProcess) {
    this.#child = child;
    if (!child.stdout) throw new Error('its output is not read');
    this.#answers = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  }

  attach(request: AttachRequest): Promise<Attachment> {
    return this.call('attach', request);
  }
  detach(target: Target): Promise<Attachment | null> {
    return this.call('detach', target);
  }
  detachAll(targets: readonly Target[]): Promise<Attachment[]> {
    return this.call('detachAll', targets);
  }
  find(target: Target): Promise<Attachment | null> {
    return this.call('find', target);
  }
  check(target: Target & { netns?: string }): Promise<Attachment> {
    return this.call('check', target);
  }
  list(): Promise<ContainerStatus[]> {
    return this.call('list');
  }
  usage(): Promise<{ capacity: number; inUse: number; coolingDown: number }> {
    return this.call('usage');
  }

  /** Why a call is refused. Throws if it is not. */
  async refusal(method: 'attach' | 'detach' | 'check', argument: unknown): Promise<Refusal> {
    const value = await this.call(method, argument).catch((error: unknown) => error);
    if (value instanceof Refused) return value.refusal;
    throw new Error(`it was not refused: ${JSON.stringify(value)}`);
  }

  async call<T>(method: string, argument?: unknown): Promise<T> {
    this.#child.stdin?.write(`${JSON.stringify([method, argument])}\n`);
    const { value: line, done } = await this.#answers.next();
    if (done) throw new Error(`the process ended during ${method}`);
    const { value, error } = JSON.parse(line);
    if (error) throw new Refused(error);
    return value;
  }

  /** Descriptors that it has open, and its process id in the lab. */
  async close(): Promise<void> {
    const ended = new Promise((resolve) => this.#child.once('exit', resolve));
    this.#child.stdin?.end();
    await ended;
  }
}

export class ContainerVms extends GuardedVms {
  static override async of(plane: Plane, ...names: string[]): Promise<ContainerVms> {
    return await new ContainerVms(await Lab.open(), plane, names).joined();
  }

  /** Makes network namespaces. */
  async namespaces(...names: string[]): Promise<void> {
    await this.lab.ip(
      undefined,
      names.map((name) => `netns add ${name}`),
    );
  }

  async deleteNamespaces(...names: string[]): Promise<void> {
    await this.lab.ip(
      undefined,
      names.map((name) => `netns del ${name}`),
    );
  }

  #meshWords(vm: string, mesh: MeshWords): string {
    return JSON.stringify({ overlay: '10.0.0.0/8', underlay: '192.168.0.0/16', local: this.underlay(vm), ...mesh });
  }

  library(vm: string, mesh: MeshWords = {}): Library {
    const words = [process.execPath, LIBRARY, this.#meshWords(vm, mesh)];
    return new Library(this.lab.start(vm, words, { stdio: ['pipe', 'pipe', 'inherit'] }));
  }

  /**
   * Calls of the library, of which one is stopped at a step (see steps.mjs). Undefined if the process was killed there; else what it
   * answered.
   */
  async stopped(
    vm: string,
    step: string,
    calls: readonly (readonly [method: string, argument: unknown])[],
    mesh: MeshWords = {},
  ): Promise<{ value?: unknown; error?: Refusal }[] | undefined> {
    // With the lab's mounts, unlike ip netns exec, so that the names of network namespaces can be changed.
    const enter = ['nsenter', `--net=/run/netns/${vm}`, 'env', `INLAY_STEP=${step}`];
    const words = [...enter, process.execPath, '--import', STEPS, LIBRARY];
    const input = calls.map((call) => `${JSON.stringify(call)}\n`).join('');
    const { code, stdout, stderr } = await this.lab.run(undefined, [...words, this.#meshWords(vm, mesh)], input);
    if (stderr !== '') throw new Error(`step ${step}: ${stderr}`);
    if (code !== 0) return undefined;
    return stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line));
  }

  /** A shell command for a step of `stopped`: another process makes this call meanwhile. */
  callWords(vm: string, call: readonly [method: string, argument: unknown], mesh: MeshWords = {}): string {
    const library = shellLine([process.execPath, LIBRARY, this.#meshWords(vm, mesh)]);
    return `${shellLine(['echo', JSON.stringify(call)])} | INLAY_STEP= ${library}`;
  }

  /** A command where the mesh is told by flags; `wrapper` are the words before it. */
  command(vm: string, words: readonly string[], wrapper: readonly string[] = []): Promise<Output> {
    const runDir = words.includes('--run-dir') ? [] : ['--run-dir', this.runDir(vm)];
    return this.lab.run(vm, [...wrapper, process.execPath, CLI, ...words, ...runDir]);
  }

  /** Sends IPv4 packets, each to its own destination, or frames by a device. Answers how many were sent. */
  async inject(where: string, packets: readonly Uint8Array[], device?: string): Promise<number> {
    const [first = new Uint8Array(20)] = packets;
    const to = device ?? [...first.subarray(16, 20)].join('.');
    const input = packets.map((packet) => `${Buffer.from(packet).toString('hex')}\n`).join('');
    return Number(await this.lab.must(where, [process.execPath, INJECT, to], input));
  }

  async traces(vm: string): Promise<Traces> {
    const script = `ip -j link show type veth; echo ,; ip -j route show proto 74; echo ,; ip -j neighbour show nud permanent`;
    const [links, routes, neighbours] = (await this.lab.must(vm, ['sh', '-c', script]))
      .split(/^,$/m)
      .map((part) => JSON.parse(part.trim() || '[]')) as [Shown[], Shown[], Shown[]];
    const live = routes.filter(({ type }) => type !== 'unreachable');
    const isOurs = ({ ifname = '', dev = '' }) => (ifname || dev).startsWith('inl');
    return {
      links: links.filter(isOurs).map(({ ifname, ifalias }) => `${ifname} ${ifalias}`),
      claims: live.map(({ dst, dev }) => `${dst} dev ${dev}`),
      tombstones: routes.filter((each) => !live.includes(each)).map(({ dst = '' }) => dst),
      neighbours: neighbours.filter(isOurs).map(({ dst, dev, lladdr }) => `${dst} dev ${dev} ${lladdr}`),
    };
  }
}

interface Shown {
  ifname?: string;
  ifalias?: string;
  type?: string;
  dst?: string;
  dev?: string;
  lladdr?: string;
}
