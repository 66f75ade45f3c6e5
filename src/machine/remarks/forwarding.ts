/**
 * Containers' devices from which the kernel does not forward: it drops what the containers send to other VMs.
 */
import type { Device } from '../../linux/netfilter/packet.ts';
import { NetlinkError, request } from '../../linux/netlink/message.ts';
import { NETCONFA_IFINDEX_ALL, netconf, RTM_GETNETCONF } from '../../linux/netlink/netconf.ts';
import type { Netlink } from '../../linux/netlink/netlink.ts';
import { AF_INET, findLink } from '../../linux/netlink/rtnetlink.ts';
import type { MainTable } from '../table.ts';
import type { Remark } from './remark.ts';

/** Devices that one look asks for, at most: there may be thousands. Those that are new come first. */
const MAX_ASKED = 500;
/** Devices that a remark names, at most. */
const MAX_NAMED = 3;

export class ForwardingLookOut {
  readonly #netlink: Netlink;
  readonly #table: MainTable;
  /** Interface indexes of the containers' devices; those that were asked for longest ago come first. */
  readonly #devices = new Set<number>();
  /** Those of them that do not forward. */
  readonly #off = new Set<number>();
  #container: Device | undefined;

  constructor(netlink: Netlink, table: MainTable) {
    this.#netlink = netlink;
    this.#table = table;
  }

  /** The device of some container, the same as long as it is there; undefined if none is known. */
  get container(): Device | undefined {
    const known = this.#container?.index;
    const indexes = known !== undefined && this.#devices.has(known) ? [known, ...this.#devices] : this.#devices;
    this.#container = firstOf(indexes, (index) => this.#deviceOf(index), 1)[0];
    return this.#container;
  }

  /** `overlay` is the interface index of the overlay's own device. */
  look(overlay: number): Remark[] {
    const { newContainerLinks } = this.#table;
    newContainerLinks.delete(overlay);
    const asked = firstOf(newContainerLinks, (index) => index, MAX_ASKED);
    asked.push(...firstOf(this.#devices, (index) => index, MAX_ASKED - asked.length));
    for (const index of asked) {
      newContainerLinks.delete(index);
      this.#ask(index);
    }
    const named = firstOf(this.#off, (index) => this.#stillOff(index), MAX_NAMED);
    return named.length === 0 ? [] : [this.#remark(named)];
  }

  #ask(index: number): void {
    this.#devices.delete(index);
    this.#off.delete(index);
    const forwards = this.#forwards(index);
    if (forwards === undefined) return;
    this.#devices.add(index);
    if (!forwards) this.#off.add(index);
  }

  /** What net.ipv4.conf.DEVICE.forwarding says; undefined if the device has gone. */
  #forwards(index: number): boolean | undefined {
    try {
      const body = { family: AF_INET, ifindex: index };
      const { forwarding } = this.#netlink.get(
        request(RTM_GETNETCONF, 0, `settings of link ${index}`, netconf, body),
        netconf,
      );
      return forwarding === undefined ? undefined : forwarding !== 0;
    } catch (error) {
      if (error instanceof NetlinkError) return undefined;
      throw error;
    }
  }

  #deviceOf(index: number): Device | undefined {
    const name = findLink(this.#netlink, index)?.name;
    return name === undefined ? undefined : { name, index };
  }

  /** The name of a device that is as it was. Its route may have gone while it stayed. */
  #stillOff(index: number): string | undefined {
    const forwards = this.#forwards(index);
    if (forwards === false && this.#table.isContainerLink(index)) return this.#deviceOf(index)?.name;
    this.#off.delete(index);
    if (!forwards) this.#devices.delete(index);
    return undefined;
  }

  #remark(named: readonly string[]): Remark {
    const count = this.#off.size;
    const list = named.join(', ');
    const where = count > named.length ? `${count} containers' devices, such as ${list}` : list;
    // sysctl(8): a dot in a device's name is written as a slash.
    const commands = named.map((name) => `sysctl -w net.ipv4.conf.${name.replaceAll('.', '/')}.forwarding=1`);
    // Setting what is set already changes no device.
    const all = this.#forwards(NETCONFA_IFINDEX_ALL) ? '' : '; or for all devices: sysctl -w net.ipv4.ip_forward=1';
    return {
      key: 'forwarding',
      what: `forwarding is off on ${where}: the kernel drops what comes from there for other VMs`,
      hint: commands.join('; ') + all,
    };
  }
}

/** What the first of these give that give anything, up to `count`. */
function firstOf<T>(indexes: Iterable<number>, of: (index: number) => T | undefined, count: number): T[] {
  const found: T[] = [];
  if (count <= 0) return found;
  for (const index of indexes) {
    const value = of(index);
    if (value !== undefined) found.push(value);
    if (found.length >= count) break;
  }
  return found;
}
