/** Containers that were attached when this machine had another underlay address, and so was another VM. */
import { type Address, contains, formatAddress, parseAddress } from '../mesh/address.ts';
import { covering, type Mapping, slicesOf } from '../mesh/mapping.ts';
import { quote } from '../shell.ts';
import { type ContainerAlias, containerOf } from './alias.ts';

/** Containers that are named, at most. */
const MAX_NAMED = 3;

/**
 * What is wrong, and what to type, for the aliases of all devices; none where all are this VM's. Containers of
 * another overlay are those of another daemon.
 */
export function otherVmRemarks(
  aliases: Iterable<string | undefined>,
  { mappings, local }: { mappings: readonly Mapping[]; local: Address },
): { key: string; what: string; hint: string }[] {
  const slices = slicesOf(mappings, local);
  const isOther = ({ address: text }: ContainerAlias) => {
    const address = parseAddress(text);
    if (!address || slices.some((slice) => contains(slice, address))) return false;
    return covering(mappings, address) !== undefined;
  };
  const found = [...aliases].flatMap((alias) => containerOf(alias) ?? []).filter(isOther);
  if (found.length === 0) return [];
  const [named, more] = [found.slice(0, MAX_NAMED), found.length > MAX_NAMED ? ', ...' : ''];
  const list = named.map(({ address }) => address).join(', ');
  const what = `${found.length} ${found.length === 1 ? 'container is' : 'containers are'} attached as another VM (${list}${more}), not as ${formatAddress(local)}: nobody reaches them`;
  const commands = named.map(({ id, ifname }) => `inlay detach --id ${quote(id)} --ifname ${ifname}`).join('; ');
  return [{ key: 'other-vm', what, hint: `detach them, and attach them anew: ${commands}${more}` }];
}
