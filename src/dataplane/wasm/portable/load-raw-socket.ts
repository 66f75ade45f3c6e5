/** The package raw-socket, which is optional: it has to be built, for the Node that loads it. */
import { errorCode, InlayError } from '../../../errors.ts';

const TOOLS = 'apt-get install g++ make python3';

/** Loads it. Throws ERR_FAILED where it cannot be loaded, and says which step is missing. */
export async function loadRawSocket(): Promise<typeof import('raw-socket')> {
  try {
    return await import('raw-socket');
  } catch (cause) {
    throw rawSocketMissing(cause, process.versions);
  }
}

/** What the error of `import('raw-socket')` means. */
export function rawSocketMissing(
  cause: unknown,
  { node, modules }: Pick<NodeJS.ProcessVersions, 'node' | 'modules'>,
): InlayError {
  const needs = 'the portable engine needs the package raw-socket, which';
  const message = cause instanceof Error ? cause.message : '';
  const [why, how] = message.includes('NODE_MODULE_VERSION')
    ? [`was built for another Node: this is ${node} (modules version ${modules})`, 'npm rebuild raw-socket']
    : errorCode(cause) === 'ERR_MODULE_NOT_FOUND'
      ? ['is not installed', `${TOOLS}, then npm install raw-socket`]
      : ['did not build here', `${TOOLS}, then npm rebuild raw-socket`];
  return new InlayError('ERR_FAILED', `${needs} ${why}`, {
    hint: `where Inlay is installed: ${how}; or --engine linux`,
    cause,
  });
}
