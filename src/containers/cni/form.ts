/**
 * A call as the shim sends it to the daemon: a form (application/x-www-form-urlencoded) with the variables
 * under their own names and the configuration under `config`. So no character of theirs means anything on the
 * way.
 */
import type { CniEnvironment } from './environment.ts';

/** Variables that a form has. */
export const FIELDS = ['CNI_COMMAND', 'CNI_CONTAINERID', 'CNI_NETNS', 'CNI_IFNAME', 'CNI_ARGS'] as const;

export function readForm(form: string): { env: CniEnvironment; config: string } {
  const values = new URLSearchParams(form);
  const env = Object.fromEntries(FIELDS.map((name) => [name, values.get(name) ?? '']));
  return { env, config: values.get('config') ?? '' };
}
