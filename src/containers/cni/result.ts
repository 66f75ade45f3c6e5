/** Results of ADD (CNI specification 1.1.0, section 5): written in the version of the call, and read for CHECK. */
import type { Attachment } from '../attachment.ts';
import { isObject, type JsonObject } from '../json.ts';
import { quoted } from './error.ts';
import { configuration, type Network } from './network.ts';
import { isSince, type Version } from './versions.ts';

/** Lists of a result, of which other plugins of a chain may have written any. */
interface Result {
  interfaces: readonly JsonObject[];
  ips: readonly JsonObject[];
  routes: readonly JsonObject[];
  dns: JsonObject | undefined;
}

/** The result of the plugins before; undefined if there were none. Throws CniError, code 7. */
export function previousResult({ keys }: Network): Result | undefined {
  const value = keys['prevResult'];
  if (value === undefined || value === null) return undefined;
  if (!isObject(value)) throw configuration(`prevResult ${quoted(value)}: expected an object`);
  const { dns } = value;
  if (dns !== undefined && dns !== null && !isObject(dns))
    throw configuration(`prevResult.dns ${quoted(dns)}: expected an object`);
  return {
    interfaces: listOf(value, 'interfaces'),
    ips: listOf(value, 'ips'),
    routes: listOf(value, 'routes'),
    dns: isObject(dns) ? dns : undefined,
  };
}

function listOf(result: JsonObject, name: string): readonly JsonObject[] {
  const list = result[name] ?? [];
  if (Array.isArray(list) && list.every(isObject)) return list;
  throw configuration(`prevResult.${name} ${quoted(list)}: expected a list of objects`);
}

/** The `dns` of a configuration, which a result repeats. Throws CniError, code 7. */
export function dnsOf({ keys }: Network): JsonObject | undefined {
  const dns = keys['dns'];
  if (dns === undefined || dns === null) return undefined;
  if (!isObject(dns)) throw configuration(`dns ${quoted(dns)}: expected an object`);
  return Object.keys(dns).length === 0 ? undefined : dns;
}

/**
 * The result of an attachment. If plugins before had one, what is ours comes after what is theirs, and our
 * `dns` before theirs.
 */
export function resultOf(
  attachment: Attachment,
  {
    version,
    netns,
    dns,
    previous,
  }: { version: Version; netns: string; dns: JsonObject | undefined; previous: Result | undefined },
): JsonObject {
  const before = previous ?? { interfaces: [], ips: [], routes: [], dns: undefined };
  const { hostInterface, hostMac, ifname, mac, mtu, address, gateway } = attachment;
  // What is routed through the mesh: the overlay alone where another network has the default route.
  const { route = '0.0.0.0/0' } = attachment;
  // Strict readers of the versions before 1.1.0 do not know it.
  const size = isSince(version, '1.1.0') ? { mtu } : {};
  return {
    cniVersion: version,
    interfaces: [
      ...before.interfaces,
      { name: hostInterface, mac: hostMac, ...size },
      { name: ifname, mac, ...size, sandbox: netns },
    ],
    ips: [
      ...before.ips,
      {
        ...(!isSince(version, '1.0.0') && { version: '4' }),
        address: `${address}/32`,
        gateway,
        interface: before.interfaces.length + 1,
      },
    ],
    routes: [...before.routes, { dst: route, gw: gateway }],
    dns: dns ?? before.dns ?? {},
  };
}

/**
 * Compares the result that ADD had with what is there. Plugins later in the chain may have changed MTU and
 * routes, and so tell them: what is compared is what only we make. Answers what differs.
 */
export function differenceOf(
  { hostInterface, ifname, address, mac }: Attachment,
  { interfaces, ips }: Result,
  netns: string,
): string | undefined {
  const at = interfaces.findIndex(({ name, sandbox }) => name === ifname && sandbox === netns);
  if (at < 0) return `it has no interface ${ifname} in ${netns}`;
  const told = interfaces[at]?.['mac'];
  if (typeof told === 'string' && told.toLowerCase() !== mac)
    return `it has the link-layer address ${quoted(told)}, the interface ${mac}`;
  const expected = ips.filter((ip) => ip['interface'] === at).map((ip) => ip['address']);
  if (!expected.includes(`${address}/32`)) return `it has ${quoted(expected)}, the interface ${address}/32`;
  if (!interfaces.some(({ name, sandbox }) => name === hostInterface && !sandbox))
    return `it has no interface ${hostInterface} of the VM`;
  return undefined;
}
