/** Words for a shell: hints and `--dry-run` print commands that can be pasted. */

/** A word as a shell takes it, quoted only where it has to be. */
export function quote(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}
