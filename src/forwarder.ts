/** The data path: packets go from one device through the core to the other. */
import type { PacketCore } from './core/core.ts';
import type { PacketDevice } from './io/device.ts';

/** Told which tunnels, by their VM's underlay address, have come and gone. */
export type TunnelListener = (change: 'opened' | 'closed', vms: number[]) => void;

export class Forwarder {
  readonly #core: PacketCore;
  readonly #overlay: PacketDevice;
  readonly #underlay: PacketDevice;
  readonly #onTunnels: TunnelListener;

  /** `underlay` is the device of the configured encapsulation: what is read from others is answered there. */
  constructor(core: PacketCore, overlay: PacketDevice, underlay: PacketDevice, onTunnels: TunnelListener) {
    this.#core = core;
    this.#overlay = overlay;
    this.#underlay = underlay;
    this.#onTunnels = onTunnels;
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
    const count = from.read(core);
    for (let next = 0; next < count; ) {
      next = core[step](next, count, now);
      this.#reportTunnels();
      to.write(core);
    }
  }

  /** Closes the tunnels last used before `before`, in ms. */
  expire(before: number): void {
    let more = true;
    while (more) {
      more = this.#core.expire(before) > 0;
      this.#reportTunnels();
    }
  }

  #reportTunnels(): void {
    if (!this.#core.tunnelsChanged) return;
    for (const change of ['opened', 'closed'] as const) {
      const vms = this.#core[change]();
      if (vms.length > 0) this.#onTunnels(change, vms);
    }
  }
}
