/** Which Linux capabilities this process has (capabilities(7)). */
import { readFileSync } from 'node:fs';
import { errorCode, InlayError } from './errors.ts';

// <linux/capability.h>
const NEEDED = { CAP_NET_ADMIN: 12, CAP_NET_RAW: 13 } as const;

/** Throws ERR_PERMISSION that names what is missing and the command that helps. */
export function requireCapabilities(): void {
  const effective = BigInt(
    `0x${/^CapEff:\s*([0-9a-f]+)/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1] ?? '0'}`,
  );
  const missing = Object.entries(NEEDED).flatMap(([name, bit]) => ((effective >> BigInt(bit)) & 1n ? [] : [name]));
  if (missing.length === 0) return;
  throw new InlayError(
    'ERR_PERMISSION',
    `missing ${missing.join(' and ')}: devices, routes and raw sockets need them`,
    {
      hint: 'run as root: sudo inlay up ...; or with systemd: AmbientCapabilities=CAP_NET_ADMIN CAP_NET_RAW',
    },
  );
}

/** What a failed socket(2) means: mostly a missing capability. */
export function rawSocketError(cause: unknown): InlayError {
  const code = errorCode(cause) ?? String(cause);
  return /EPERM|EACCES|not permitted|denied/.test(code)
    ? new InlayError('ERR_PERMISSION', 'no raw socket: CAP_NET_RAW is missing', { cause })
    : new InlayError('ERR_FAILED', `no raw socket: ${code}`, { cause });
}
