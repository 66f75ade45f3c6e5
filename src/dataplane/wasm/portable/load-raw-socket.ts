/** The package raw-socket, which is optional: it has to be built. */
import { InlayError } from '../../../errors.ts';

/** Loads it. Throws ERR_FAILED where it was not built. */
export async function loadRawSocket(): Promise<typeof import('raw-socket')> {
  try {
    return await import('raw-socket');
  } catch (cause) {
    throw new InlayError('ERR_FAILED', 'the portable engine needs the package raw-socket, which did not build here', {
      hint: 'apt-get install g++ make python3, then npm rebuild raw-socket; or --engine linux',
      cause,
    });
  }
}
