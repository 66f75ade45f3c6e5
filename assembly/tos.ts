/** Type of service: DSCP (RFC 2474, RFC 2983) and ECN (RFC 3168) across the tunnel, as RFC 6040 has it. */
import { COUNTERS_ANOMALIES, INBOUND_COUNTERS, OPTION_DSCP_UNIFORM, OPTION_ECN_COMPATIBILITY } from '../src/core/abi';
import { addF64 } from './bytes';
import { dscp, hasOption, options } from './config';
import { putTypeOfService, typeOfService } from './ipv4';

// From the specification.
const ECN_MASK: u32 = 3;
const NOT_ECT: u32 = 0;
const ECT_1: u32 = 1;
const ECT_0: u32 = 2;
const CE: u32 = 3;

/** The outer type of service for a packet with `inner`. */
export function tosOut(inner: u32): u32 {
  const known = options();
  const code = (known & OPTION_DSCP_UNIFORM) !== 0 ? inner & ~ECN_MASK : dscp() << 2;
  return (known & OPTION_ECN_COMPATIBILITY) !== 0 ? code : code | (inner & ECN_MASK);
}

/** Whether a packet has met congestion that it cannot tell: it is as good as lost then (RFC 6040 §4.2). */
export function isLost(inner: u32, outer: u32): bool {
  return (outer & ECN_MASK) === CE && (inner & ECN_MASK) === NOT_ECT;
}

/** What the outer type of service tells goes into the packet at `p`, which is not lost. */
export function receiveTos(p: usize, outer: u32): void {
  // Most packets have met nothing: there is nothing to tell then.
  if ((outer & ECN_MASK) === NOT_ECT && !hasOption(OPTION_DSCP_UNIFORM)) return;
  const inner = typeOfService(p);
  if (isAnomaly(inner, outer)) addF64(INBOUND_COUNTERS + COUNTERS_ANOMALIES, 1);
  const tos = tosIn(inner, outer);
  if (tos !== inner) putTypeOfService(p, tos);
}

/** The type of service of a packet with `inner` that came with `outer` and is not lost (RFC 6040 §4.2, figure 4). */
function tosIn(inner: u32, outer: u32): u32 {
  const code = (hasOption(OPTION_DSCP_UNIFORM) ? outer : inner) & ~ECN_MASK;
  const before = inner & ECN_MASK;
  const met = outer & ECN_MASK;
  if (met === CE) return code | CE;
  return code | (before === ECT_0 && met === ECT_1 ? ECT_1 : before);
}

/** Whether no tunnel that does its work gives this combination. */
function isAnomaly(inner: u32, outer: u32): bool {
  const met = outer & ECN_MASK;
  if (met !== ECT_0 && met !== ECT_1) return false;
  const before = inner & ECN_MASK;
  return before === NOT_ECT || (before === ECT_1 && met === ECT_0) || (before === CE && met === ECT_1);
}
