/** One daemon for each run directory. */
import { ask } from './control.ts';
import { InlayError } from './errors.ts';
import * as native from './io/linux/native.ts';

export interface Lock {
  release(): void;
}

/**
 * Takes the lock of `runDir`, which exists. Throws ERR_FAILED if somebody has it, however slow they are to answer; `help` is what to type then,
 * before the process number. It is a flock(2) on the directory: the kernel frees it when its holder dies.
 */
export async function lockRunDir(runDir: string, help: string): Promise<Lock> {
  const flags = native.O_RDONLY | native.O_DIRECTORY | native.O_CLOEXEC;
  const fd = native.must(native.open(runDir, flags), 'open', runDir);
  if (native.flock(fd, native.LOCK_EX | native.LOCK_NB) === 0) return { release: () => native.close(fd) };
  native.close(fd);
  const running = await ask<{ pid: number }>(runDir, 'status').catch(() => undefined);
  throw new InlayError(
    'ERR_FAILED',
    `a daemon runs already with run directory ${runDir} (process ${running?.pid ?? 'unknown: it does not answer'})`,
    { hint: running ? `${help} ${running.pid}` : 'look for it with: pgrep -af "inlay|cli.js up"' },
  );
}
