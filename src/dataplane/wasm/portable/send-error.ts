/** What went wrong where a socket could not send, by the name of the error number. */
import { getSystemErrorMap } from 'node:util';
import { errorCode } from '../../../errors.ts';

/** The package raw-socket gives the text of strerror(3) alone. It is that of Node's own list, with one exception that matters. */
const NAMES = new Map<string, string>([...getSystemErrorMap().values()].map(([name, text]) => [text, name]));
NAMES.set('no route to host', 'EHOSTUNREACH');

export function sendErrorName(error: Error): string {
  return errorCode(error) ?? NAMES.get(error.message.toLowerCase()) ?? error.message;
}
