/** What a look-out says: something on this machine hurts the overlay, but is not ours to change. */
import type { Device } from '../../linux/netfilter/packet.ts';
import type { Address } from '../../mesh/address.ts';
import type { Trouble } from '../machine.ts';
import type { NetworkPlan } from '../state.ts';

export interface Remark extends Trouble {
  /** What it is about: while it stays the same, it is the same remark, whatever its words say now. */
  key: string;
}

/** The outer packets of the mesh. */
export interface OuterFormat {
  protocol: number;
  /** The destination port, of UDP. */
  port?: number;
}

/** From where the look-outs look. */
export interface Vantage {
  plan: NetworkPlan;
  outer: OuterFormat;
  /** The overlay's device. */
  overlay: Device;
  /** The device of a container or of several; undefined if there is none, or it is not known. */
  container: Device | undefined;
  /** The way to other VMs; undefined if there is none. */
  underlay: Way | undefined;
}

export interface Way {
  device: Device;
  /** The source that masquerading would give to packets on it; undefined if it is not known. */
  masquerade: Address | undefined;
}
