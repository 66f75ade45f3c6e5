/** Writing files in Node, Deno and Bun, which all have node:fs. */
import { rename, rm, stat, writeFile } from 'node:fs/promises';
import process from 'node:process';

/**
 * Writes a file, which has another name until it is whole: an error leaves no half of it behind, and nothing that was there is lost.
 * @param {string} name
 * @param {Uint8Array} bytes
 */
export async function write(name, bytes) {
  // A device or a pipe has to be written to itself.
  const isOther = await stat(name).then(
    (it) => !it.isFile(),
    (error) => {
      if (error.code === 'ENOENT') return false;
      throw error;
    },
  );
  if (isOther) return writeFile(name, bytes);
  const part = `${name}.${process.pid}.part`;
  try {
    await writeFile(part, bytes);
    await rename(part, name);
  } catch (error) {
    await rm(part, { force: true });
    throw error;
  }
}
