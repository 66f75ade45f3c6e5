/** Pressure: when a device brings more than is handled, and how much of it goes on then. */
import { describe, expect, test } from 'vitest';
import { abi } from '../src/core/index.ts';
import { typescriptCore } from '../src/core/typescript.ts';
import { Pressure } from '../src/dataplane/wasm/pressure.ts';

/** A device from which so many packets come, of `senders` senders; and what the core was told. */
function rig(senders: number) {
  const core = typescriptCore();
  const divisors: number[] = [];
  core.share = (_direction, _count, divisor) => {
    divisors.push(divisor);
    return device.senders;
  };
  const deeps: boolean[] = [];
  const device = {
    senders,
    waiting: Number.POSITIVE_INFINITY,
    /** Packets of a batch that is not deep: they are long. */
    limit: abi.BATCH_SIZE as number,
    more: false,
    read(_: unknown, deep = false) {
      deeps.push(deep);
      const count = Math.min(this.waiting, deep ? abi.BATCH_SIZE : this.limit);
      this.waiting -= count;
      this.more = count === (deep ? abi.BATCH_SIZE : this.limit);
      return count;
    },
  };
  const pressure = new Pressure('outbound');
  const read = (times: number, now = 0) => {
    divisors.length = 0;
    deeps.length = 0;
    for (let i = 0; i < times; i++) pressure.read(device, core, now);
    return divisors;
  };
  return { device, read, deeps };
}

describe('pressure', () => {
  test('rises batch by batch when half of what a TUN device holds has come without a pause, up to one part in 16', () => {
    const { read } = rig(2);
    expect(read(4)).toEqual([]);
    expect(read(7)).toEqual([1, 2, 4, 8, 16, 16, 16]);
  });

  test('falls with each batch that leaves nothing, and comes back at once until it is over', () => {
    const { read, device } = rig(2);
    read(11);
    const empty = () => {
      device.waiting = 5;
      const [divisor] = read(1);
      device.waiting = Number.POSITIVE_INFINITY;
      return divisor;
    };
    expect([empty(), empty()]).toEqual([8, 4]);
    expect(read(2)).toEqual([8, 16]);
    expect([empty(), empty(), empty(), empty()]).toEqual([8, 4, 2, 1]);
    expect(empty()).toBe(undefined);
    // Within a second less has to come together.
    expect(read(3)).toEqual([2, 4]);
    for (let i = 0; i < 3; i++) empty();
    expect(read(4, 1000)).toEqual([]);
  });

  test('a pause sets the beginning back', () => {
    const { read, device } = rig(2);
    for (let i = 0; i < 9; i++) {
      expect(read(3)).toEqual([]);
      device.waiting = 100;
      expect(read(1)).toEqual([]);
      device.waiting = Number.POSITIVE_INFINITY;
    }
  });

  test('who is alone loses nothing, and that it is not is known for a second', () => {
    const { read, device } = rig(1);
    read(4);
    expect(read(20)).toEqual(Array(20).fill(1));
    device.senders = 2;
    expect(read(3)).toEqual([1, 2, 4]);
    device.senders = 1;
    expect(read(2, 999)).toEqual([8, 16]);
    expect(read(2, 1000)).toEqual([1, 1]);
  });

  test('few long packets that wait all the time are no pressure; many are', () => {
    const { read, device, deeps } = rig(2);
    device.limit = 4;
    read(128);
    expect(deeps).not.toContain(true);
    device.waiting = 100;
    expect(read(1)).toEqual([1]);
    device.waiting = Number.POSITIVE_INFINITY;
    expect(read(128)).toEqual([]);
    expect(read(3)).toEqual([2, 4, 8]);
  });
});
