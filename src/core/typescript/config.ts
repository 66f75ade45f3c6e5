/** What `configure` is told, kept in memory where every host can see it (docs/abi.md). */
import * as abi from '../abi.ts';
import { clear, type Memory, storeI32 } from './bytes.ts';

/** Sets everything anew; no mapping is left. */
export function configure(memory: Memory, local: number, keyed: number, key: number, ttl: number): void {
  clear(memory, abi.CONFIG, abi.CONFIG_SIZE);
  storeI32(memory, abi.CONFIG + abi.CONFIG_LOCAL, local);
  storeI32(memory, abi.CONFIG + abi.CONFIG_KEYED, keyed === 0 ? 0 : 1);
  storeI32(memory, abi.CONFIG + abi.CONFIG_KEY, keyed === 0 ? 0 : key);
  storeI32(memory, abi.CONFIG + abi.CONFIG_TTL, ttl & 0xff);
}
