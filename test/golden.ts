/** The golden packets of test/vectors, made by an implementation that is not ours (test/vectors/make.py). */
import { readdirSync, readFileSync } from 'node:fs';
import type { CoreConfig, Direction } from '../src/core/index.ts';
import { type Address, type Prefix, parseAddress, parsePrefix } from '../src/mesh/address.ts';

export interface Vector {
  name: string;
  /** What it shows of test/conformance/items.json. */
  item?: string;
  source: string;
  direction: Direction;
  input: string;
  /** What the host says of merging, if it says anything (DESCRIPTOR_MERGED). */
  merged?: number;
  verdict: string;
  /** Of forwarded packets: what they become, and the other VM. */
  output?: string;
  peer?: string;
  /** Instead of output, if it becomes several. */
  outputs?: string[];
  /** Of outbound packets: the code with which what they become is refused then. */
  refused?: number;
  /** What the container is answered. */
  reply?: string;
}

interface VectorFile {
  file: string;
  config: Omit<CoreConfig, 'local' | 'mappings'> & {
    local: string;
    mappings: { overlay: string; underlay: string }[];
  };
  vectors: Vector[];
}

const folder = new URL('./vectors/', import.meta.url);

export const vectorFiles: VectorFile[] = readdirSync(folder)
  .filter((name) => name.endsWith('.json'))
  .map((file) => ({ file, ...JSON.parse(readFileSync(new URL(file, folder), 'utf8')) }));

/** Of the vector's tests: what it shows stands first. */
export const titleOf = ({ item, direction, name }: Vector, says = '') =>
  `${item === undefined ? '' : `${item} `}${says}${direction}: ${name}`;

/** What a forwarded packet becomes. */
export const outputsOf = ({ output, outputs }: Vector): string[] => outputs ?? (output === undefined ? [] : [output]);

export const address = (text: string) => parseAddress(text) as Address;
export const prefix = (text: string) => parsePrefix(text) as Prefix;

/** The same for a core. */
export function coreConfig({ local, mappings, ...options }: VectorFile['config']): CoreConfig {
  return {
    ...options,
    local: Number(address(local).bits),
    mappings: mappings.map((mapping) => {
      const [overlay, underlay] = [prefix(mapping.overlay), prefix(mapping.underlay)];
      return {
        overlay: Number(overlay.bits),
        overlayLength: overlay.length,
        underlay: Number(underlay.bits),
        underlayLength: underlay.length,
      };
    }),
  };
}
