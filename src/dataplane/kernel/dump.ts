/** Long tables of the kernel, read by a socket of their own, so that nobody else waits for them. */
import { setImmediate as turn } from 'node:timers/promises';
import type { Decoder } from '../../linux/netlink/codec.ts';
import type { Request } from '../../linux/netlink/message.ts';
import type { Netlink } from '../../linux/netlink/netlink.ts';

/**
 * What a dump has, part by part; between two parts others have their turn. Throws NetlinkError, as
 * `Netlink.parts` does, and the signal's reason once that is aborted.
 */
export async function* dump<T>(
  open: () => Netlink,
  query: Request,
  codec: Decoder<T>,
  signal?: AbortSignal,
): AsyncGenerator<T> {
  const netlink = open();
  try {
    for (const part of netlink.parts(query, codec)) {
      yield* part;
      await turn();
      signal?.throwIfAborted();
    }
  } finally {
    netlink.close();
  }
}
