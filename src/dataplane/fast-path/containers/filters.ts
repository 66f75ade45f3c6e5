/** Puts the outbound program at containers' devices, and takes it from those that are no container's any more. */
import { programId } from '../../../linux/bpf/program.ts';
import { makeClsact, putFilter } from '../../../linux/netlink/filters.ts';
import type { NetlinkError, Request } from '../../../linux/netlink/message.ts';
import type { Netlink } from '../../../linux/netlink/netlink.ts';
import type { Log } from '../../../log.ts';
import { type LimitedLog, limitedLog } from '../../../log-limit.ts';
import { removeContainerFilters } from '../../../machine/things/container-filters.ts';
import type { ContainerDevice } from './device.ts';

/** What one call does at most: a discipline takes the kernel some tenths of a ms, to replace a program a tenth of that. */
const MAX_NEW = 16;
const MAX_REPLACED = 128;
/** ms until a device is tried again that the kernel has refused. */
const RETRY = 10_000;
const WHAT = "program at a container's device";

/** Interface indexes of devices. */
export interface Done {
  /** Those that have a discipline of ours now. */
  made: number[];
  /** Those that have none any more. */
  removed: number[];
  /** Those that are not as they were found last. */
  refused: number[];
  /** Whether more is due. */
  isMore: boolean;
  /** Whether one had a discipline that was not known of. */
  isSurprise: boolean;
}

export class ContainerFilters {
  /** The program's number. */
  readonly id: number;
  readonly #netlink: Netlink;
  readonly #program: number;
  readonly #limited: LimitedLog;
  /** When which devices are to get the program, in ms. */
  readonly #due = new Map<number, number>();
  /** When it is to be taken from which. */
  readonly #left = new Map<number, number>();
  #isSurprise = false;

  constructor(netlink: Netlink, program: number, log: Log) {
    this.id = programId(program);
    this.#netlink = netlink;
    this.#program = program;
    this.#limited = limitedLog(log);
  }

  /** A device is to have the program from so many ms on. */
  want(index: number, delay: number): void {
    this.#left.delete(index);
    const at = performance.now() + delay;
    this.#due.set(index, Math.min(this.#due.get(index) ?? at, at));
  }

  /** A device is to have no program any more. Mostly the device itself goes within so many ms. */
  leave(index: number, delay: number): void {
    this.#due.delete(index);
    if (!this.#left.has(index)) this.#left.set(index, performance.now() + delay);
  }

  /** The device has gone, or is as it should be. */
  forget(index: number): void {
    this.#due.delete(index);
    this.#left.delete(index);
  }

  /** Does what is due, some of it at a time; `deviceOf` is how a device was found last, and is told what it has now. */
  work(deviceOf: (index: number) => ContainerDevice | undefined): Done {
    const now = performance.now();
    const left = dueOf(this.#left, now);
    const removed = this.#takeAway(left.slice(0, MAX_NEW));
    const ready: ContainerDevice[] = [];
    const fresh: ContainerDevice[] = [];
    let isMore = left.length > MAX_NEW;
    for (const index of dueOf(this.#due, now)) {
      const device = deviceOf(index);
      if (!device) this.#due.delete(index);
      else if (device.hasOurs && ready.length < MAX_REPLACED) ready.push(device);
      else if (!device.hasOurs && fresh.length < MAX_NEW) fresh.push(device);
      else isMore = true;
    }
    const refused: number[] = [];
    const made = this.#try(fresh, ({ index }) => makeClsact(index, WHAT), refused);
    for (const device of made) device.hasOurs = true;
    for (const device of this.#try(
      [...made, ...ready],
      ({ index }) => putFilter(index, 'ingress', this.#program, WHAT),
      refused,
    )) {
      device.program = this.id;
      this.#due.delete(device.index);
    }
    const isSurprise = this.#isSurprise;
    this.#isSurprise = false;
    return { made: made.map(({ index }) => index), removed, refused, isMore, isSurprise };
  }

  #takeAway(indexes: readonly number[]): number[] {
    for (const index of indexes) this.#left.delete(index);
    if (indexes.length === 0) return [];
    try {
      return removeContainerFilters(this.#netlink, indexes);
    } catch (error) {
      this.#limited(
        'warn',
        'removal',
        { error: String(error) },
        "the fast path's program stays at a device that is no container's",
      );
      return [];
    }
  }

  /** Those at which it worked; the others are added to `refused`, and wait. */
  #try(
    devices: readonly ContainerDevice[],
    requestOf: (device: ContainerDevice) => Request,
    refused: number[],
  ): ContainerDevice[] {
    const errors = this.#netlink.tryAll(devices.map(requestOf));
    return devices.filter((device, i) => {
      const error = errors[i];
      if (!error) return true;
      refused.push(device.index);
      this.#refuse(device.index, error);
      return false;
    });
  }

  #refuse(index: number, error: NetlinkError): void {
    this.#due.set(index, performance.now() + RETRY);
    if (error.code === 'EEXIST') this.#isSurprise = true;
    if (error.code === 'EEXIST' || error.code === 'ENODEV') return;
    this.#limited(
      'warn',
      error.code,
      { error: error.message },
      "a container's device does not take the fast path's program",
    );
  }
}

function dueOf(times: ReadonlyMap<number, number>, now: number): number[] {
  return [...times].flatMap(([index, time]) => (time <= now ? [index] : []));
}
