/** The seam between the guard and what knows of attached containers. */
import type { DeviceSettings } from '../linux/netlink/device-settings.ts';

/** What attaching made, and is to be there as long as a container is attached. */
export interface Attachments {
  /** Interface indexes of the devices of containers, be it that no route leads to them any more. */
  find(): number[];
  /**
   * Puts right what others took away from a device of an attached container; returns that, in words. Throws
   * what cannot be put right.
   */
  keep(found: DeviceSettings): string | undefined;
  /**
   * Puts back the routes of many containers at once; returns what was wrong, in words, by interface index. The
   * others are to be looked at one by one.
   */
  keepRoutes(found: readonly DeviceSettings[]): Map<number, string>;
  /** The same for what the routes of all containers need. */
  keepSource(): string | undefined;
}
