/** What containers may reach of VMs' addresses in plain, as the setting container-access lists it. */
import { contains, formatAddress, formatPrefix, network, type Prefix, parseAddress, parsePrefix } from './address.ts';

/** All, this VM by any of its addresses, or a prefix of the underlay; one port of it, of TCP and of UDP, or all. */
export interface Access {
  to: 'all' | 'vm' | Prefix;
  port?: number;
}

const MAX_PORT = 65535;

/** Reads `ADDRESS[/LENGTH][:PORT]`, `vm[:PORT]` or `all`; undefined if it is none of them. */
export function parseAccess(text: string): Access | undefined {
  if (text === 'all') return { to: 'all' };
  const [, where = '', digits] = /^([^:]+)(?::([1-9]\d{0,4}))?$/.exec(text) ?? [];
  const port = digits === undefined ? undefined : Number(digits);
  if (port !== undefined && port > MAX_PORT) return undefined;
  const to = where === 'vm' ? where : prefixOf(where);
  return to && { to, ...(port !== undefined && { port }) };
}

export function formatAccess({ to, port }: Access): string {
  const where = typeof to === 'string' ? to : to.length === to.width ? formatAddress(to) : formatPrefix(to);
  return port === undefined ? where : `${where}:${port}`;
}

/** Whether some underlay prefix holds all of it. */
export function isInside({ to }: Access, underlays: readonly Prefix[]): boolean {
  return typeof to === 'string' || underlays.some((each) => each.length <= to.length && contains(each, to));
}

/** Without host bits. */
function prefixOf(text: string): Prefix | undefined {
  const address = parseAddress(text);
  if (address) return { ...address, length: address.width };
  const prefix = parsePrefix(text);
  return prefix && network(prefix, prefix.length).bits === prefix.bits ? prefix : undefined;
}
