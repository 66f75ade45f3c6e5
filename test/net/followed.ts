/** A VM whose containers are followed for the fast path (fast-containers.mjs), in a lab. */
import type { ChildProcess } from 'node:child_process';
import { createInterface, type Interface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { expect } from 'vitest';
import { Lab } from '../../src/demo/lab.ts';

const FOLLOWER = fileURLToPath(new URL('./fast-containers.mjs', import.meta.url));
const MACHINE = fileURLToPath(new URL('../machine/machine.mjs', import.meta.url));
export const XDP = fileURLToPath(new URL('./xdp.mjs', import.meta.url));

/** An address that no test uses otherwise. */
const MARK = '10.16.32.199';

export interface FollowedSlot {
  link: number;
  mac: string;
  hostMac: string;
}

interface FilterText {
  kind: string;
  options?: { bpf_name?: string; prog?: { id: number } };
}

export interface FollowerStatus {
  count: number;
  /** Number of the program. */
  program: number;
  /** Whether the slots of all that was there at the start are set. */
  isFilled: boolean;
}

/** One run of what a daemon does. */
export class Follower {
  readonly child: ChildProcess;
  readonly #lines: AsyncIterator<string>;
  readonly #reader: Interface;

  constructor(lab: Lab, where: string | undefined, args: readonly string[]) {
    this.child = lab.start(where, [process.execPath, FOLLOWER, ...args], { stdio: ['pipe', 'pipe', 'inherit'] });
    this.#reader = createInterface({ input: this.child.stdout as NodeJS.ReadableStream });
    this.#lines = this.#reader[Symbol.asyncIterator]();
  }

  async ask<T>(verb: string, value?: unknown): Promise<T> {
    this.child.stdin?.write(`${JSON.stringify({ verb, value })}\n`);
    const answer = await this.#lines.next();
    return JSON.parse(answer.value);
  }

  status(): Promise<FollowerStatus> {
    return this.ask('status');
  }

  async end(how: 'kill' | 'end'): Promise<void> {
    const ended = new Promise((resolve) => this.child.once('exit', resolve));
    if (how === 'kill') this.child.kill('SIGKILL');
    else await this.ask('end');
    await ended;
  }
}

export class FollowedVm {
  readonly lab: Lab;
  #follower: Follower | undefined;
  #marks = 0;

  constructor(lab: Lab) {
    this.lab = lab;
  }

  /** With containers c1 to c`count`, whose veths v1 and so on have link-layer addresses 02:00:00:00:00:01 (the host's end) and 02:00:00:00:01:01; no routes. */
  static async open(count: number): Promise<FollowedVm> {
    const vm = new FollowedVm(await Lab.open());
    await vm.sh('echo 1 >/proc/sys/net/ipv4/ip_forward');
    for (let i = 1; i <= count; i++) await vm.sh(`ip netns add c${i}; ${container(i)}`);
    return vm;
  }

  sh(script: string): Promise<string> {
    return this.lab.must(undefined, ['sh', '-ec', script]);
  }

  get follower(): Follower {
    if (!this.#follower) throw new Error('nobody follows');
    return this.#follower;
  }

  async follow(...args: string[]): Promise<FollowerStatus> {
    const follower = this.begin(...args);
    let found: FollowerStatus;
    do found = await follower.status();
    while (!found.isFilled);
    return found;
  }

  /** As `follow`, but the slots may not be set yet. */
  begin(...args: string[]): Follower {
    this.#follower = new Follower(this.lab, undefined, args);
    return this.#follower;
  }

  slots(): Promise<Record<string, FollowedSlot>> {
    return this.follower.ask('slots');
  }

  /** The devices of the slots, by address. */
  async devices(): Promise<Record<string, string>> {
    const [slots, names] = [await this.slots(), await this.names()];
    return Object.fromEntries(Object.entries(slots).map(([address, { link }]) => [address, names.get(link) ?? '']));
  }

  /** Waits until the slots are these. */
  async expectDevices(wanted: Record<string, string>, what = ''): Promise<void> {
    await expect.poll(() => this.devices(), { message: what }).toEqual(wanted);
  }

  /**
   * Waits until what happened before has been heard: notifications of routes, and of devices, each come in their order. The device
   * is one that nothing else is done with.
   */
  async heard(device: string): Promise<void> {
    const mac = `02:00:00:00:ff:${(0x10 + (this.#marks++ % 0xe0)).toString(16)}`;
    await this.sh(`ip link set ${device} address ${mac}; ip route add ${MARK} dev ${device}`);
    const marked = async () => (await this.slots())[MARK];
    await expect.poll(marked).toMatchObject({ hostMac: mac });
    await this.sh(`ip route del ${MARK}`);
    await expect.poll(marked).toBe(undefined);
  }

  async names(): Promise<Map<number, string>> {
    const links: { ifindex: number; ifname: string }[] = JSON.parse(await this.sh('ip -j link'));
    return new Map(links.map(({ ifindex, ifname }) => [ifindex, ifname]));
  }

  async indexOf(device: string): Promise<number> {
    return JSON.parse(await this.sh(`ip -j link show dev ${device}`))[0].ifindex;
  }

  /** The numbers of the programs of our filters at a device. */
  async programs(device: string): Promise<number[]> {
    const found: FilterText[] = JSON.parse((await this.sh(`tc -j filter show dev ${device} ingress`)) || '[]');
    return found.flatMap(({ options }) => (options?.bpf_name === 'inlay' ? [options.prog?.id ?? 0] : []));
  }

  /** The disciplines of a device. */
  async disciplines(device: string): Promise<string[]> {
    const found: { kind: string }[] = JSON.parse(await this.sh(`tc -j qdisc show dev ${device}`));
    return found.map(({ kind }) => kind).sort();
  }

  /** What machine.mjs answers to these steps. */
  async machine(steps: readonly unknown[]): Promise<unknown[]> {
    return JSON.parse(await this.lab.must(undefined, [process.execPath, MACHINE], JSON.stringify(steps)));
  }

  async end(how: 'kill' | 'end'): Promise<void> {
    const follower = this.#follower;
    this.#follower = undefined;
    await follower?.end(how);
  }

  async close(): Promise<void> {
    await this.lab.close();
  }
}

/** Makes the veth of a container. */
export function container(i: number): string {
  return `ip link add v${i} address 02:00:00:00:00:0${i} type veth peer name eth0 address 02:00:00:00:01:0${i} netns c${i}
    ip link set v${i} up; ip -n c${i} link set eth0 up`;
}
