/**
 * Hears what others change on this machine, and looks by itself now and then, since the kernel does not tell
 * of everything.
 */

import { RTNLGRP_IPV4_IFADDR } from '../linux/netlink/address.ts';
import { RTNLGRP_LINK } from '../linux/netlink/link.ts';
import type { Message } from '../linux/netlink/message.ts';
import { Monitor } from '../linux/netlink/monitor.ts';
import { RTNLGRP_IPV4_NETCONF } from '../linux/netlink/netconf.ts';
import { RTM_DELROUTE, RTM_NEWROUTE, RTNLGRP_IPV4_ROUTE } from '../linux/netlink/route.ts';
import { RTNLGRP_IPV4_RULE } from '../linux/netlink/rule.ts';
import { RTNLGRP_TC } from '../linux/netlink/traffic-control.ts';
import { NETLINK_ROUTE, openTransport } from '../linux/netlink/transport.ts';
import { machineFilter } from './watch-filter.ts';

const GROUPS = [
  ...[RTNLGRP_LINK, RTNLGRP_TC],
  ...[RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV4_RULE, RTNLGRP_IPV4_NETCONF],
] as const;

/** ms from the first notification of a change to a look, because more changes may follow. */
const SETTLE = 20;
/** ms between two looks when no notification comes. */
const INTERVAL = 500;

export interface WatchOptions {
  /** Port of the socket that makes our own changes. Notifications of them are left out. */
  port: number;
  /** Interface indexes of the devices that matter. */
  links: () => readonly number[];
  /** Whether a change of a route concerns us. */
  concerns: (message: Message) => boolean;
  /**
   * Called when it is time to look. `isComplete` is false if notifications were lost: what was remembered may
   * be wrong then.
   */
  onDue: (isComplete: boolean) => void;
}

export class Watch {
  readonly #options: WatchOptions;
  #monitor: Monitor | undefined;
  /** What the monitor listens for. */
  #links: readonly number[] = [];
  #timer: NodeJS.Timeout | undefined;
  #isComplete = true;
  readonly #tick: NodeJS.Timeout;
  #closed = false;

  constructor(options: WatchOptions) {
    this.#options = options;
    this.#tick = setInterval(() => this.look(), INTERVAL).unref();
    this.follow();
  }

  /** Listens for the devices that matter now. To be called when they have changed. */
  follow(): void {
    const links = this.#options.links();
    if (this.#monitor && links.join() === this.#links.join()) return;
    const before = this.#monitor;
    this.#monitor = undefined;
    try {
      const filter = () => machineFilter({ links, port: this.#options.port });
      this.#monitor = new Monitor(openTransport(NETLINK_ROUTE, GROUPS, filter), {
        onMessages: (messages) => this.#hear(messages),
        onOverrun: () => this.#lose(),
        onFailure: () => {
          this.#monitor = undefined;
          this.#lose();
        },
      });
      this.#links = links;
      // Notifications between the two monitors were lost.
      this.#lose();
    } catch {} // The next look tries again.
    before?.close();
  }

  /** Looks soon. */
  look(): void {
    if (this.#timer || this.#closed) return;
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      const isComplete = this.#isComplete && this.#monitor !== undefined;
      this.#isComplete = true;
      this.#options.onDue(isComplete);
    }, SETTLE);
  }

  close(): void {
    this.#closed = true;
    clearInterval(this.#tick);
    clearTimeout(this.#timer);
    this.#monitor?.close();
  }

  #hear(messages: readonly Message[]): void {
    // `concerns` has to hear each message, because it keeps its memory of the routes up to date from them.
    const concerned = messages.filter((message) => !isRoute(message) || this.#options.concerns(message));
    if (concerned.length > 0) this.look();
  }

  #lose(): void {
    this.#isComplete = false;
    this.look();
  }
}

function isRoute({ type }: Message): boolean {
  return type === RTM_NEWROUTE || type === RTM_DELROUTE;
}
