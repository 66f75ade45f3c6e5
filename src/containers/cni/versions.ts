/** Versions of the CNI specification that the plugin speaks. */

/** The oldest first. Before 0.3.1 a result was another thing altogether. */
export const VERSIONS = ['0.3.1', '0.4.0', '1.0.0', '1.1.0'] as const;
export type Version = (typeof VERSIONS)[number];
export const NEWEST: Version = '1.1.0';

/** What a configuration without `cniVersion` is, by the specification's first version. */
export const UNNAMED = '0.1.0';

export function isSpoken(text: string): text is Version {
  return (VERSIONS as readonly string[]).includes(text);
}

/** Whether a text is a version at all: three numbers, as all of the specification have been. */
export function isVersion(text: string): boolean {
  return /^\d{1,4}(\.\d{1,4}){0,2}$/.test(text);
}

/** Whether version `a` is `b` or newer. */
export function isSince(a: Version, b: Version): boolean {
  return VERSIONS.indexOf(a) >= VERSIONS.indexOf(b);
}
