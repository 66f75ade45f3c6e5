/** The data path: packets go from one device through the core to the other. */
import { REPLY_PORT } from '../../core/abi.ts';
import type { PacketCore } from '../../core/core.ts';
import type { TunnelState } from '../../core/tunnels.ts';
import type { OverlayDevice, PacketDevice, PacketSource } from './device.ts';

export interface TunnelListeners {
  /** Told which tunnels, by their VM's underlay address, have come and gone. */
  onTunnels: (change: 'opened' | 'closed', vms: number[]) => void;
  /** Told what the underlay has said about tunnels. */
  onLearnt: (tunnels: TunnelState[]) => void;
}

export class Forwarder {
  readonly #core: PacketCore;
  readonly #overlay: OverlayDevice;
  readonly #underlay: PacketDevice;
  readonly #listeners: TunnelListeners;

  /** `underlay` is the device of the configured encapsulation: what is read from others is answered there. */
  constructor(core: PacketCore, overlay: OverlayDevice, underlay: PacketDevice, listeners: TunnelListeners) {
    this.#core = core;
    this.#overlay = overlay;
    this.#underlay = underlay;
    this.#listeners = listeners;
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
      this.#reply();
    }
  }

  /** Outer packets to `vm` have at most `mtu` bytes. `now` is in ms. */
  narrow(vm: number, mtu: number, now: number): void {
    this.#core.narrow(vm, mtu, now);
    this.#reportTunnels();
  }

  #reply(): void {
    if (this.#core.messageCount(REPLY_PORT) > 0) this.#overlay.reply(this.#core);
  }

  /** Reads one batch of ICMP messages from the underlay. `now` is in ms. */
  learn(from: PacketSource, now: number): void {
    this.#core.learn(0, from.read(this.#core), now);
    this.#reportTunnels();
    this.#reply();
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
      if (vms.length > 0) this.#listeners.onTunnels(change, vms);
    }
    const learnt = this.#core.learnt();
    if (learnt.length > 0) this.#listeners.onLearnt(learnt);
  }
}
