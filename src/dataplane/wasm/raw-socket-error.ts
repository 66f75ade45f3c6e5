/** Raw sockets (raw(7)): what both engines say where one cannot be had. */
import { errorCode, InlayError } from '../../errors.ts';

/** What a failed socket(2) means: mostly a missing capability. */
export function rawSocketError(cause: unknown): InlayError {
  const code = errorCode(cause) ?? String(cause);
  return /EPERM|EACCES|not permitted|denied/.test(code)
    ? new InlayError('ERR_PERMISSION', 'no raw socket: CAP_NET_RAW is missing', { cause })
    : new InlayError('ERR_FAILED', `no raw socket: ${code}`, { cause });
}
