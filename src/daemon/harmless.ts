/** Words from elsewhere, which a terminal is to show and not to obey. */

/**
 * Control characters (ISO 6429), among them the escape character that begins a terminal's commands, and those
 * that let text be read in another order than it stands (Unicode Standard Annex 9).
 */
// biome-ignore lint/suspicious/noControlCharactersInRegex: these are what is looked for.
const COMMANDS = /[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]/g;

/** The same value with each such character written out, as JSON does. */
export function harmless(value: unknown): unknown {
  if (typeof value === 'string')
    return value.replace(COMMANDS, (found) => `\\u${found.charCodeAt(0).toString(16).padStart(4, '0')}`);
  if (Array.isArray(value)) return value.map(harmless);
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([name, each]) => [harmless(name), harmless(each)]));
}
