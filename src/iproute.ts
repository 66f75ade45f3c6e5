/** Runs iproute2's `ip`, which sets up links, addresses and routes. */
import { execFile } from 'node:child_process';
import { errorCode, InlayError } from './errors.ts';

/** Runs `ip ARGS`; resolves to what it prints. Throws ERR_FAILED with its words. */
export function ip(args: readonly string[]): Promise<string> {
  return new Promise((resolve, reject) => {
    execFile('ip', args, { maxBuffer: 64 << 20 }, (error, stdout, stderr) => {
      if (!error) resolve(stdout);
      else if (errorCode(error) === 'ENOENT') {
        reject(new InlayError('ERR_FAILED', 'the command ip is missing', { hint: 'apt-get install iproute2' }));
      } else {
        reject(
          new InlayError('ERR_FAILED', `ip ${args.join(' ')}: ${stderr.trim() || error.message}`, { cause: error }),
        );
      }
    });
  });
}

/** Runs `ip -json ARGS`; resolves to what it prints, parsed. */
export async function ipJson<T>(args: readonly string[]): Promise<T[]> {
  const text = await ip(['-json', ...args]);
  return text.trim() === '' ? [] : JSON.parse(text);
}
