/** The data path: packets go from one device through the core to the other. */
import type { Direction, PacketCore } from './core/core.ts';
import type { PacketDevice } from './io/device.ts';

/** Told which tunnels, by their VM's underlay address, have come and gone. */
export type TunnelListener = (change: 'opened' | 'closed', vms: number[]) => void;

export class Forwarder {
  readonly #core: PacketCore;
  readonly #overlay: PacketDevice;
  readonly #underlay: PacketDevice;
  readonly #onTunnels: TunnelListener;

  constructor(core: PacketCore, overlay: PacketDevice, underlay: PacketDevice, onTunnels: TunnelListener) {
    this.#core = core;
    this.#overlay = overlay;
    this.#underlay = underlay;
    this.#onTunnels = onTunnels;
  }

  /** Moves one batch from container to underlay; returns how many packets it read. `now` is in ms. */
  outbound(now: number): number {
    const count = this.#overlay.read(this.#core);
    if (count > 0) this.#write('outbound', this.#underlay, count, this.#core.encapsulate(count, now));
    return count;
  }

  /** Moves one batch from underlay to container; returns how many packets it read. `now` is in ms. */
  inbound(now: number): number {
    const count = this.#underlay.read(this.#core);
    if (count > 0) this.#write('inbound', this.#overlay, count, this.#core.decapsulate(count, now));
    return count;
  }

  /** Closes the tunnels last used before `before`, in ms. */
  expire(before: number): void {
    let more = true;
    while (more) {
      more = this.#core.expire(before) > 0;
      this.#reportTunnels();
    }
  }

  #write(direction: Direction, to: PacketDevice, count: number, forwarded: number): void {
    this.#reportTunnels();
    if (forwarded > 0 && to.write(this.#core, count) < forwarded) this.#core.countRefused(direction, count);
  }

  #reportTunnels(): void {
    for (const change of ['opened', 'closed'] as const) {
      const vms = this.#core[change]();
      if (vms.length > 0) this.#onTunnels(change, vms);
    }
  }
}
