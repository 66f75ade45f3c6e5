/**
 * Errors of the plugin as a runtime takes them: CNI specification 1.1.0, section 5, "Error". The specification
 * has the codes up to 99; those above are in ../reasons.ts.
 */
import { errorCode, InlayError } from '../../errors.ts';
import { installationError } from '../../installation.ts';
import { ContainerError, REASONS } from '../reasons.ts';
import { NEWEST } from './versions.ts';

/** The specification's own codes. */
export const CODE = {
  incompatibleVersion: 1,
  unsupportedField: 2,
  environment: 4,
  io: 5,
  decoding: 6,
  configuration: 7,
  notAvailable: 50,
  limitedConnectivity: 51,
} as const;

/** Not in the specification: what the project's own plugins use for an error that they did not foresee. */
const INTERNAL = 999;
/** Characters of a value that an error quotes. */
const LONGEST_QUOTE = 80;

/** An error with the code, the short message and the longer one that the runtime gets. */
export class CniError extends Error {
  readonly code: number;
  readonly details: string | undefined;

  constructor(code: number, message: string, details?: string) {
    super(message);
    this.name = 'CniError';
    this.code = code;
    this.details = details;
  }
}

/** The error as JSON, in the version of the call's configuration. */
export function errorText(error: unknown, version: string = NEWEST): string {
  const { code, message, details } = cniErrorOf(error);
  return `${JSON.stringify({ cniVersion: version, code, msg: message, ...(details && { details }) })}\n`;
}

/** Any error as one that a runtime understands. */
function cniErrorOf(error: unknown): CniError {
  if (error instanceof CniError) return error;
  const found = installationError(error) ?? error;
  if (found instanceof ContainerError) return new CniError(REASONS[found.reason].cni, found.message, found.hint);
  if (found instanceof InlayError) return new CniError(INTERNAL, found.message, found.hint);
  const message = found instanceof Error ? found.message : String(found);
  return new CniError(INTERNAL, message, errorCode(found));
}

/** A value as an error quotes it: short, in one line and in ASCII, so that it does nothing to a terminal. */
export function quoted(value: unknown): string {
  const text = (JSON.stringify(value) ?? 'undefined').replace(
    /[^ -~]/g,
    (found) => `\\u${found.charCodeAt(0).toString(16).padStart(4, '0')}`,
  );
  return text.length > LONGEST_QUOTE ? `${text.slice(0, LONGEST_QUOTE)}... (${text.length} characters)` : text;
}
