/** Words from outside: what an id and the name of an interface may be. */
import { ContainerError } from './reasons.ts';

const MAX_ID = 256;
const MAC_SIZE = 6;

/**
 * Linux: IFNAMSIZ is 16 bytes with the final zero; no slash, no colon, no white space (dev_valid_name in
 * net/core/dev.c); % asks the kernel for a number. Beside the devices' settings are those of all and of
 * default (sysctl_dev_name_is_allowed in net/ipv4/devinet.c).
 */
const IFNAME = /^(?!(?:\.{1,2}|all|default)$)[!-$&-.0-9;-~]{1,15}$/;

/** Throws ContainerError. */
export function checkRequest({ id, ifname, mac }: { id?: string; ifname?: string; mac?: Uint8Array }): void {
  if (id !== undefined && (!/^\P{C}+$/u.test(id) || [...id].length > MAX_ID))
    throw new ContainerError('invalid', `id ${shown(id)}: expected 1 to ${MAX_ID} printable characters`);
  if (ifname !== undefined && !IFNAME.test(ifname))
    throw new ContainerError(
      'invalid',
      `interface ${shown(ifname)}: expected 1 to 15 ASCII characters without / : % and white space, not all or default`,
    );
  if (mac !== undefined && !isOfOne(mac))
    throw new ContainerError(
      'invalid',
      'link-layer address: expected six bytes of one device, such as 02:00:00:00:00:01',
    );
}

/**
 * Whether a link-layer address can be that of one device. IEEE 802: the lowest bit of the first byte is that of
 * groups. The kernel refuses both (is_valid_ether_addr()).
 */
export function isOfOne(mac: Uint8Array): boolean {
  return mac.length === MAC_SIZE && ((mac[0] as number) & 1) === 0 && mac.some((byte) => byte !== 0);
}

/** Six bytes in hexadecimal; undefined if the text is something else. */
export function macIn(text: string): Uint8Array | undefined {
  if (!/^[\da-f]{2}([:-])(?:[\da-f]{2}\1){4}[\da-f]{2}$/i.test(text)) return undefined;
  return Uint8Array.from(text.split(/[:-]/), (byte) => Number.parseInt(byte, 16));
}

/** The link-layer address of a device. Throws ContainerError. */
export function parseMac(text: string): Uint8Array {
  const mac = macIn(text) ?? new Uint8Array();
  checkRequest({ mac });
  return mac;
}

/** A word that a terminal does not obey. */
function shown(word: string): string {
  const escaped = JSON.stringify(word.slice(0, 40)).replace(/[^ -~]/g, '?');
  return word.length > 40 ? `${escaped} and more` : escaped;
}
