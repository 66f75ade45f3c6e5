/** Data planes with the fast path around them, where the configuration lets it be. */
import type { Config } from '../../config/config.ts';
import type { DataPlaneKind } from '../dataplane.ts';
import { FastPath } from './fast-path.ts';

export function withFastPath(kind: DataPlaneKind): DataPlaneKind {
  return {
    ...kind,
    remarks: (config, plan) => [...kind.remarks(config, plan), ...(hasFastPath(config) ? REMARKS : [])],
    create: (config, options) => {
      const create = (below: typeof options) => kind.create(config, below);
      if (!hasFastPath(config)) return create(options);
      return new FastPath({ config, options, overhead: kind.overhead(config), create });
    },
  };
}

/** VXLAN is the kernel's alone. */
export function hasFastPath({ fastPath, encapsulation }: Config): boolean {
  return fastPath !== 'off' && encapsulation !== 'vxlan';
}

const REMARKS = [
  '# The fast path: programs at the ingress of the underlay device and of each container take packets past this device.',
  '# inlay explain --program prints them.',
];
