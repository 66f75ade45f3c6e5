/** The portable engine's TUN through tuntap2, with a stand-in that has the package's interface; the package is not in every registry. */
import { Duplex } from 'node:stream';
import { expect, test } from 'vitest';
import { abi } from '../src/core/index.ts';
import { Tuntap2Tun } from '../src/dataplane/wasm/portable/tun.ts';
import { config, cores } from './core.ts';
import { ipv4Packet } from './packet.ts';

const NAME = 'inlay-test0';

/** `new Tun()`, `.name`, one `data` event and one `write` a packet, `.release()`. */
class FakeTun extends Duplex {
  readonly name = NAME;
  readonly written: Buffer[] = [];
  /** While true, writes do not complete, as when the device is full. */
  full = false;
  released = false;

  constructor() {
    super({ writableHighWaterMark: 100 });
  }
  release(): void {
    this.released = true;
  }
  override _read(): void {}
  override _write(packet: Buffer, _encoding: string, done: () => void): void {
    this.written.push(packet);
    if (!this.full) done();
  }
}

async function open() {
  let fake: FakeTun | undefined;
  const Tun = class extends FakeTun {
    constructor() {
      super();
      fake = this;
    }
  };
  const core = cores.at(-1)?.make();
  if (!core) throw new Error('no core');
  core.configure(config);
  const events: string[] = [];
  const received: Uint8Array[] = [];
  const tun = await Tuntap2Tun.open({ Tun } as unknown as typeof import('tuntap2'), NAME, {
    onReadable: () => {
      while (tun.read(core) > 0) received.push(core.bytes.slice(core.slot(0), core.slot(0) + packet.length));
    },
    onRefused: (errno, message) => {
      events.push(errno);
      core.refuse(message);
    },
    onError: (error) => events.push(error.message),
  });
  return { core, tun, fake: fake as unknown as FakeTun, received, events };
}

const packet = ipv4Packet(0x0a10205b, 0x0a102107, 40);

test('each data event is one packet', async () => {
  const { fake, received } = await open();
  fake.emit('data', Buffer.from(packet));
  fake.emit('data', Buffer.from(packet));
  expect(received).toEqual([packet, packet]);
});

test('each forwarded packet is one write, of bytes that stay', async () => {
  const { core, tun, fake } = await open();
  core.put(0, packet);
  core.encapsulate(0, 1, 0);
  tun.write(core, 0, core.messages.count());
  const sent = Buffer.from(core.messages.bytes(0));
  core.bytes.fill(0, core.slot(0) - 64, core.slot(0) + 100);
  expect(fake.written).toEqual([sent]);
});

test('a full device refuses packets instead of keeping them', async () => {
  const { core, tun, fake, events } = await open();
  fake.full = true;
  for (let i = 0; i < 10; i++) {
    core.put(0, packet);
    core.encapsulate(0, 1, 0);
    tun.write(core, 0, core.messages.count());
  }
  const { received, forwarded, bytes, drops } = core.counters('outbound');
  expect(forwarded).toBeLessThan(5);
  expect([received, bytes]).toEqual([10, forwarded * packet.length]);
  expect(drops[-abi.DROP_NOT_WRITTEN]).toBe(10 - forwarded);
  expect(events).toEqual(Array(10 - forwarded).fill('EAGAIN'));
});

test('errors are reported, close releases the device', async () => {
  const { tun, fake, events } = await open();
  fake.emit('error', new Error('gone'));
  expect(events).toEqual(['gone']);
  tun.close();
  expect(fake.released).toBe(true);
});
