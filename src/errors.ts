/** Errors for the operator. Each says what, where, why and, as a hint, what to type next. */

/** Exit codes of the CLI: sysexits.h where it has one (EX_NOPERM, EX_CONFIG). */
export const EXIT = { done: 0, failed: 1, usage: 2, notRunning: 3, noPermission: 77, badConfiguration: 78 } as const;

const EXIT_CODES = {
  ERR_FAILED: EXIT.failed,
  ERR_USAGE: EXIT.usage,
  ERR_NOT_RUNNING: EXIT.notRunning,
  ERR_PERMISSION: EXIT.noPermission,
  ERR_CONFIG: EXIT.badConfiguration,
} as const;

export class InlayError extends Error {
  readonly code: keyof typeof EXIT_CODES;
  /** What the operator can do about it, one line. */
  readonly hint: string | undefined;

  constructor(code: keyof typeof EXIT_CODES, message: string, options: { hint?: string; cause?: unknown } = {}) {
    super(message, options.cause === undefined ? {} : { cause: options.cause });
    this.name = 'InlayError';
    this.code = code;
    this.hint = options.hint;
  }

  get exitCode(): number {
    return EXIT_CODES[this.code];
  }
}

export function exitCodeOf(error: unknown): number {
  return error instanceof InlayError ? error.exitCode : EXIT.failed;
}

/** The `code` of an error that has one, such as 'ENOENT'. */
export function errorCode(error: unknown): string | undefined {
  return error instanceof Error && 'code' in error ? String(error.code) : undefined;
}
