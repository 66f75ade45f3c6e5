/** The type of service: DSCP (RFC 2474, in tunnels RFC 2983) and ECN (RFC 3168, in tunnels RFC 6040), outbound and inbound. */
import * as abi from '../abi.ts';
import { addF64, type Memory } from './bytes.ts';
import { dscp, hasOption } from './config.ts';
import * as ipv4 from './ipv4.ts';

// From the specification: 6 bits of DSCP, 2 of ECN.

const DSCP_MASK = 0xfc;
const DSCP_SHIFT = 2;
const ECN_MASK = 0x03;
const NOT_ECT = 0;
const ECT_1 = 1;
const ECT_0 = 2;
const CE = 3;

/** The type of service of the outer header around a packet with `inner`. */
export function tosOut(memory: Memory, inner: number): number {
  // Pipe model: the way through the underlay is its own (RFC 2983 §3.1). Uniform: the tunnel does not show.
  const isUniform = hasOption(memory, abi.OPTION_DSCP_UNIFORM);
  const code = isUniform ? inner & DSCP_MASK : dscp(memory) << DSCP_SHIFT;
  return hasOption(memory, abi.OPTION_ECN_COMPATIBILITY) ? code : code | (inner & ECN_MASK);
}

/**
 * Whether the outer type of service says that congestion was experienced by a packet that cannot tell, as its inner one
 * says: "the decapsulator MUST drop the packet" (RFC 6040 §4.2).
 */
export function isLost(inner: number, outer: number): boolean {
  return (outer & ECN_MASK) === CE && (inner & ECN_MASK) === NOT_ECT;
}

/**
 * Gives the inner packet at `p`, which is not lost, what the outer type of service says of the way. Counts the combinations of ECN fields
 * that should not occur.
 */
export function receiveTos(memory: Memory, p: number, outer: number): void {
  const inner = ipv4.typeOfService(memory, p);
  const from = inner & ECN_MASK;
  const way = outer & ECN_MASK;
  if (isAnomaly(from, way)) addF64(memory, abi.INBOUND_COUNTERS + abi.COUNTERS_ANOMALIES, 1);
  const code = (hasOption(memory, abi.OPTION_DSCP_UNIFORM) ? outer : inner) & DSCP_MASK;
  const tos = code | combine(from, way);
  if (tos !== inner) ipv4.putTypeOfService(memory, p, tos);
}

/** The ECN field of a packet that goes on (RFC 6040 §4.2, figure 4): the more severe of both, but for those that cannot tell. */
function combine(inner: number, outer: number): number {
  if (inner === NOT_ECT) return NOT_ECT;
  if (outer === CE) return CE;
  return inner === ECT_0 && outer === ECT_1 ? ECT_1 : inner;
}

/** Whether the figure marks the combination as "(!)" or "(!!!)": no tunnel that follows the rules makes it. */
function isAnomaly(inner: number, outer: number): boolean {
  if (inner === NOT_ECT) return outer === ECT_0 || outer === ECT_1;
  return (inner === ECT_1 && outer === ECT_0) || (inner === CE && outer === ECT_1);
}
