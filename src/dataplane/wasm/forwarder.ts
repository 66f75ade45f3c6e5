/** The data path: packets go from one device through the core to the other. */
import { BATCH_SIZE, MAX_PORTS, MESSAGES_PER_PORT, REPLY_PORT } from '../../core/abi.ts';
import type { PacketCore } from '../../core/core.ts';
import type { TunnelListeners } from '../dataplane.ts';
import type { DropSample } from '../drop-log.ts';
import type { PacketDevice, PacketSource } from './device.ts';
import { Pressure } from './pressure.ts';
import { Samples } from './samples.ts';

export interface ForwarderListeners extends TunnelListeners {
  /** Told of a few packets that were dropped. */
  onDropped: (sample: DropSample) => void;
}

const DIRECTION = { encapsulate: 'outbound', decapsulate: 'inbound', learn: 'icmp' } as const;
type Step = keyof typeof DIRECTION;

export class Forwarder {
  readonly #core: PacketCore;
  readonly #overlay: PacketDevice;
  readonly #underlay: PacketDevice;
  readonly #listeners: ForwarderListeners;
  readonly #samples: Samples;
  readonly #pressures = new Map<PacketSource, Pressure>();

  /** `underlay` is the device of the configured encapsulation: what is read from others is answered there. */
  constructor(core: PacketCore, overlay: PacketDevice, underlay: PacketDevice, listeners: ForwarderListeners) {
    this.#core = core;
    this.#overlay = overlay;
    this.#underlay = underlay;
    this.#listeners = listeners;
    this.#samples = new Samples(core, listeners.onDropped);
  }

  /** Moves one batch from container to underlay. `now` is in ms. */
  outbound(now: number): void {
    this.#move(this.#overlay, 'encapsulate', this.#underlay, now);
  }

  /** Moves one batch from an underlay device to container. `now` is in ms. */
  inbound(from: PacketDevice, now: number): void {
    this.#move(from, 'decapsulate', this.#overlay, now);
  }

  #move(from: PacketDevice, step: 'encapsulate' | 'decapsulate', to: PacketDevice, now: number): void {
    const core = this.#core;
    const count = this.#pressureAt(from, DIRECTION[step]).read(from, core, now);
    for (let next = 0; next < count; ) {
      next = this.#step(step, next, count, now);
      for (let port = 0; port < MAX_PORTS; port++) this.#write(port, to);
      this.finish();
    }
  }

  #pressureAt(from: PacketSource, direction: 'outbound' | 'inbound'): Pressure {
    const pressure = this.#pressures.get(from) ?? new Pressure(direction);
    this.#pressures.set(from, pressure);
    return pressure;
  }

  /** One call of the core; what it dropped is looked at. */
  #step(step: Step, first: number, count: number, now: number): number {
    const core = this.#core;
    const direction = DIRECTION[step];
    const dropped = core.dropCount(direction);
    const end = core[step](first, count, now);
    if (core.dropCount(direction) !== dropped) this.#samples.look(direction, first, end, now);
    return end;
  }

  /**
   * Writes the messages of a port to `to`. The overlay device takes the super-packets (GSO) that the kernel is to cut: the kernel forwards them from there to the
   * underlay. One run of messages after the other, so that the packets of a flow stay in order.
   */
  #write(port: number, to: PacketDevice): void {
    const core = this.#core;
    const first = port * MESSAGES_PER_PORT;
    const end = first + core.messages.count(port);
    for (let start = first, next = first; start < end; start = next) {
      const isWhole = core.messages.isWhole(start);
      do next++;
      while (next < end && core.messages.isWhole(next) === isWhole);
      (isWhole ? this.#overlay : to).write(core, start, next);
    }
  }

  /** Outer packets to `vm` have at most `mtu` bytes. `now` is in ms. */
  narrow(vm: number, mtu: number, now: number): void {
    this.#core.narrow(vm, mtu, now);
    this.#reportTunnels();
  }

  /** After all other messages: writes the replies to containers, and reports what is new about tunnels, both once. Replies carry nothing that is counted, so one may get lost. */
  finish(): void {
    this.#write(REPLY_PORT, this.#overlay);
    this.#core.messages.forgetReplies();
    this.#reportTunnels();
  }

  /** Reads one batch of ICMP messages from the underlay. `now` is in ms. */
  learn(from: PacketSource, now: number): void {
    this.#step('learn', 0, from.read(this.#core), now);
    this.finish();
  }

  /** Closes the tunnels last used before `before`, in ms. */
  expire(before: number): void {
    let more = true;
    while (more) {
      more = this.#core.expire(before) === BATCH_SIZE;
      this.#reportTunnels();
    }
  }

  #reportTunnels(): void {
    if (!this.#core.tunnels.haveChanged) return;
    for (const change of ['opened', 'closed'] as const) {
      const vms = this.#core.tunnels[change]();
      if (vms.length > 0) this.#listeners.onTunnels(change, vms);
    }
    const learnt = this.#core.tunnels.learnt();
    if (learnt.length > 0) this.#listeners.onLearnt(learnt);
    this.#core.tunnels.forgetChanges();
  }
}
