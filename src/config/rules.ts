/** Rules that concern more than one setting: which values go together. */
import { InlayError } from '../errors.ts';
import type { Values } from './settings.ts';

/** Largest VXLAN network identifier (RFC 7348 §5). */
const MAX_VNI = 0xffffff;

/** A rule and its error: `what: expected ...`. */
type Rule = [isBroken: boolean, what: string, expected: string];

/** Throws ERR_CONFIG for the first rule that the values break. */
export function checkRules(values: Values): void {
  const rules = [...dataplaneRules(values), ...engineRules(values), ...wireRules(values), ...fastPathRules(values)];
  const broken = rules.find(([isBroken]) => isBroken);
  if (!broken) return;
  const [, what, expected] = broken;
  throw new InlayError('ERR_CONFIG', `${what}: expected ${expected}`);
}

/** What only one of the data planes can do. */
function dataplaneRules(values: Values): Rule[] {
  const { encapsulation, queues, key = 0 } = values;
  const isKernel = values.dataplane === 'kernel';
  const isVxlan = encapsulation === 'vxlan';
  const wasm = 'dataplane wasm with it';
  return [
    [isVxlan && !isKernel, 'encapsulation vxlan', 'dataplane kernel with it'],
    [isKernel && values.engine === 'portable', 'engine portable', wasm],
    [isKernel && values.core === 'typescript', 'core typescript', wasm],
    [isKernel && queues > 1, `queues ${queues}`, wasm],
    [isKernel && values.busyPoll > 0, 'busy-poll', wasm],
    [isKernel && values.greSegmentation === 'kernel', 'gre-segmentation kernel', wasm],
    [isKernel && values.clampMss, 'clamp-mss on', wasm],
    // A multipoint device has one sequence number for all VMs.
    [isKernel && values.greSequence, 'gre-sequence on', wasm],
    [isKernel && values.ecn === 'compatibility', 'ecn compatibility', wasm],
    [isKernel && values.dscp === 'uniform', 'dscp uniform', wasm],
    [isVxlan && values.greChecksum, 'encapsulation vxlan', 'no gre-checksum with it'],
    [isVxlan && key > MAX_VNI, `key ${key}`, `at most ${MAX_VNI} with encapsulation vxlan`],
  ];
}

/** What only the linux engine can do. */
function engineRules({ engine, encapsulation, queues, busyPoll, greSegmentation }: Values): Rule[] {
  const isPortable = engine === 'portable';
  return [
    [isPortable && queues > 1, `queues ${queues}`, '1 with engine portable, which has one thread'],
    [isPortable && busyPoll > 0, 'busy-poll', 'none with engine portable, whose event loop sleeps'],
    [
      greSegmentation === 'kernel' && (isPortable || encapsulation !== 'gre'),
      'gre-segmentation kernel',
      'engine linux and encapsulation gre with it',
    ],
  ];
}

/** What the programs of the fast path do not do. With `auto` they leave such packets to the data plane. */
function fastPathRules({ fastPath, encapsulation, greChecksum, greSequence, pathMtuDiscovery }: Values): Rule[] {
  const isOn = fastPath === 'on';
  return [
    [isOn && encapsulation === 'vxlan', 'fast-path on', 'encapsulation gre or gre-udp with it'],
    [isOn && (greChecksum || greSequence), 'fast-path on', 'neither gre-checksum nor gre-sequence with it'],
    [isOn && !pathMtuDiscovery, 'fast-path on', 'path-mtu-discovery on with it'],
  ];
}

/** What does not go together on the wire. */
function wireRules(values: Values): Rule[] {
  const { encapsulation, queues, ttl, dscp, greChecksum, greSequence, pathMtuDiscovery } = values;
  const isPortable = values.engine === 'portable';
  // Node's UDP sockets set neither DSCP nor don't-fragment, and one TTL for all packets.
  const isNodeUdp = isPortable && encapsulation === 'gre-udp';
  const raw = 'engine linux with it, or encapsulation gre';
  return [
    [greSequence && queues > 1, 'gre-sequence', `1 queue with it, not ${queues}, so that packets stay in order`],
    [
      values.greSegmentation === 'kernel' && (greChecksum || greSequence),
      'gre-segmentation kernel',
      'neither gre-checksum nor gre-sequence with it',
    ],
    [
      !pathMtuDiscovery && encapsulation === 'gre' && queues > 1,
      'path-mtu-discovery off',
      `1 queue with it, not ${queues}, so that identifications are unique`,
    ],
    [isPortable && dscp === 'uniform', 'dscp uniform', 'engine linux with it, which sees the DSCP of gre-udp'],
    [isNodeUdp && ttl === 'inherit', 'ttl inherit', raw],
    [isNodeUdp && dscp !== 0, `dscp ${dscp}`, raw],
    [isNodeUdp && !pathMtuDiscovery, 'path-mtu-discovery off', raw],
  ];
}
