/** Which configurations of the core there are programs for. */
import { ipv4 } from '../../dist/mesh/address.js';
import { checkMappings, Mapping, mappingsWith } from '../../dist/mesh/mapping.js';

/**
 * Why there are no programs for a configuration of the core; undefined if there are.
 * @param {import('../../src/core/index.ts').CoreConfig} config
 */
export function whyNot({ local, mappings, greChecksum, greSequence, pathMtuDiscovery, ttl = 64, dscp = 0, mtu }) {
  if (greChecksum) return 'gre-checksum';
  if (greSequence) return 'gre-sequence';
  if (pathMtuDiscovery === false) return 'path-mtu-discovery';
  if (typeof ttl === 'number' && !(ttl >= 1 && ttl <= 255)) return 'ttl';
  if (typeof dscp === 'number' && !(dscp >= 0 && dscp <= 63)) return 'dscp';
  if (mtu !== undefined && !(mtu >= 68 && mtu <= 65535)) return 'mtu';
  try {
    const made = mappingsOf(mappings);
    checkMappings(made);
    const own = mappingsWith(made, ipv4(local));
    if (own.length === 0) return 'no slice';
    for (const mapping of own) mapping.checkVm(ipv4(local));
  } catch {
    return 'mappings';
  }
  return undefined;
}

/** The core's mappings as the control plane has them. */
export const mappingsOf = (mappings) =>
  mappings.map(({ overlay, overlayLength, underlay, underlayLength }) => {
    const prefix = (address, length) => ({ ...ipv4(address), length });
    return new Mapping(prefix(overlay, overlayLength), prefix(underlay, underlayLength));
  });
