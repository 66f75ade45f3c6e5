/** What a suite needs of the machine: it is skipped with a printed reason, or fails where INLAY_REQUIRE_ALL is 1 (as in CI). */
import { execFileSync } from 'node:child_process';
import { Lab, requireCommands } from '../../src/demo/lab.ts';
import { InlayError } from '../../src/errors.ts';

/** The reason why these commands cannot be run here; undefined if they can. */
export function missingCommands(...commands: string[]): string | undefined {
  try {
    requireCommands(...commands);
    return undefined;
  } catch (error) {
    return reasonOf(error);
  }
}

/** The reason why labs with these commands cannot be made here; undefined if they can. */
export async function missing(...commands: string[]): Promise<string | undefined> {
  try {
    requireCommands(...commands);
    const lab = await Lab.open();
    // A lab without root cannot open the device where its file is root's alone.
    const tun = await lab.run(undefined, ['sh', '-c', 'exec 3<>/dev/net/tun']);
    await lab.close();
    if (tun.code !== 0) return `/dev/net/tun cannot be opened: ${tun.stderr.trim()}`;
    return undefined;
  } catch (error) {
    return reasonOf(error);
  }
}

function reasonOf(error: unknown): string {
  if (error instanceof InlayError) return `${error.message}${error.hint ? ` (${error.hint})` : ''}`;
  throw error;
}

export const notRoot = process.getuid?.() === 0 ? undefined : 'only root can make a device file';

/** True if the suite is to be skipped for this reason, which it prints. Throws where nothing may be skipped. */
export function skip(suite: string, reason: string | undefined): boolean {
  if (reason === undefined) return false;
  if (process.env['INLAY_REQUIRE_ALL'] === '1') throw new Error(`${suite} may not be skipped: ${reason}`);
  process.stderr.write(`skipped: ${suite}: ${reason}\n`);
  return true;
}

/** Whether the optional package raw-socket was built. */
export function rawSocketMissing(): string | undefined {
  try {
    execFileSync(process.execPath, ['-e', "require('raw-socket')"], {
      cwd: new URL('../..', import.meta.url),
      stdio: 'ignore',
    });
    return undefined;
  } catch {
    return 'the package raw-socket is not built (apt-get install g++ make python3, then npm rebuild raw-socket)';
  }
}
