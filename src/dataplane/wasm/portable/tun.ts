/** TUN devices in the event loop: through the package tuntap2 where it is installed, else by ioctl(2). */
import type { PacketCore } from '../../../core/core.ts';
import { errorCode } from '../../../errors.ts';
import { link, RTM_NEWLINK } from '../../../linux/netlink/link.ts';
import { request } from '../../../linux/netlink/message.ts';
import { Netlink } from '../../../linux/netlink/netlink.ts';
import { findLink } from '../../../linux/netlink/rtnetlink.ts';
import { type DeviceListeners, EventDevice, type Refusal } from './device.ts';

/** Creates the TUN device `name`. */
export async function openPortableTun(name: string, listeners: DeviceListeners): Promise<EventDevice> {
  let tuntap: typeof import('tuntap2');
  try {
    tuntap = await import('tuntap2');
  } catch (error) {
    if (errorCode(error) !== 'ERR_MODULE_NOT_FOUND') throw error;
    return (await import('./file-tun.ts')).openFileTun(name, listeners);
  }
  return Tuntap2Tun.open(tuntap, name, listeners);
}

/** The package's stream: one `data` event a packet. Its device has a name of the package's choice, so it is renamed while down. */
export class Tuntap2Tun extends EventDevice {
  readonly #tun: import('tuntap2').Tun;

  static open(tuntap: typeof import('tuntap2'), name: string, listeners: DeviceListeners): Tuntap2Tun {
    const tun = new tuntap.Tun();
    if (tun.name !== name) rename(tun.name, name);
    return new Tuntap2Tun(tun, listeners);
  }

  private constructor(tun: import('tuntap2').Tun, listeners: DeviceListeners) {
    super(listeners);
    this.#tun = tun;
    tun.on('data', (packet: Buffer) => this.receive(packet));
    tun.on('error', (error: Error) => this.fail(error));
  }

  protected send(core: PacketCore, message: number): Refusal {
    // A stream that asks to wait has taken the packet all the same; refusing the next ones bounds its buffer.
    if (this.#tun.writableNeedDrain) return 'EAGAIN';
    this.#tun.write(Buffer.from(core.messages.bytes(message).buffer));
    return undefined;
  }

  close(): void {
    this.#tun.release();
  }
}

function rename(from: string, to: string): void {
  const netlink = Netlink.open();
  try {
    netlink.do(
      request(RTM_NEWLINK, 0, `link ${from}`, link, { index: findLink(netlink, from)?.index, name: to } as object),
    );
  } finally {
    netlink.close();
  }
}
