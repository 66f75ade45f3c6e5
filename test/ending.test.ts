/** The daemon's end comes in time whatever is stuck. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { describe, expect, test } from 'vitest';

/** Runs a module with `ending`, and these imports of what is built; answers how it ended and what it printed. */
async function run(code: string): Promise<{ code: number | null; signal: string | null; stdout: string }> {
  const dist = new URL('../dist/', import.meta.url);
  const script = `
    import { Ending } from '${dist}daemon/ending.js';
    import { poll } from '${dist}linux/native.js';
    const ending = new Ending();
    ${code}`;
  const child = spawn(process.execPath, ['--input-type=module', '-e', script], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let stdout = '';
  child.stdout.setEncoding('utf8').on('data', (chunk) => {
    stdout += chunk;
  });
  const [exitCode, signal] = await once(child, 'close');
  return { code: exitCode, signal, stdout };
}

describe('Ending', () => {
  test('the kernel ends a process whose main thread does not come back from a system call', async () => {
    expect(await run('ending.begin(); poll(0, 0, -1);')).toEqual({ code: null, signal: 'SIGALRM', stdout: '' });
  });

  test('what never comes is waited for until time is up, and not before the end has begun', async () => {
    const code = `
      const before = await Promise.race([ending.within(new Promise(() => {})), new Promise((done) => setTimeout(done, 50, 'not yet'))]);
      ending.begin();
      console.log(before, ending.isOver);
      console.log(await ending.within(new Promise(() => {})), ending.isOver);
      process.exit(3);`;
    expect(await run(code)).toEqual({ code: 3, signal: null, stdout: 'not yet false\nundefined true\n' });
  });

  test('in a hurry, it comes earlier; told again and again, it is not put off', async () => {
    const code = `
      ending.begin();
      const late = new Promise((resolve) => setTimeout(resolve, 1400, 'late'));
      setInterval(() => ending.hurry(), 100);
      console.log(await ending.within(late));
      poll(0, 0, -1);`;
    expect(await run(code)).toEqual({ code: null, signal: 'SIGALRM', stdout: 'undefined\n' });
  });

  test('what is done in time keeps nothing waiting', async () => {
    const code = `
      ending.begin();
      console.log(await ending.within(Promise.resolve('done')), ending.isOver);
      ending.done();`;
    expect(await run(code)).toEqual({ code: 0, signal: null, stdout: 'done false\n' });
  });
});
