/** GRE-in-UDP (RFC 8086): what both engines' sockets have in common. */
import { GRE_UDP_PORT } from '../../core/abi.ts';
import { errorCode, InlayError } from '../../errors.ts';

/** "it is RECOMMENDED that the source port be in the ephemeral port range" (RFC 8086 §3.2.1). */
const FIRST_SOURCE_PORT = 49152;
const LAST_SOURCE_PORT = 65535;
/** Azure drops what is sent from it. */
const RESERVED_PORT = 65330;

/** Source ports to try, one after the other. */
export function* sourcePorts(): Generator<number> {
  for (let port = FIRST_SOURCE_PORT; port <= LAST_SOURCE_PORT; port++) if (port !== RESERVED_PORT) yield port;
}

/** What a VM that sends gre cannot do without the destination port. */
export const WITHOUT_PORT = 'packets of VMs that send gre-udp will not be understood';

/** What it means that the destination port cannot be had. */
export function portError(cause: unknown): InlayError {
  return new InlayError('ERR_FAILED', `UDP port ${GRE_UDP_PORT} cannot be had: ${errorCode(cause)}`, {
    hint: `look who has it: ss -ulpn sport = :${GRE_UDP_PORT}`,
    cause,
  });
}
