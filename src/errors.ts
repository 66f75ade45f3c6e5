/** Errors for the operator. Each says what, where, why and, as a hint, what to type next. */
import os from 'node:os';

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

/** <asm-generic/errno.h>, as far as Node has no name for it. The numbers follow each other from the first. */
const LINUX_ERRNO: readonly (readonly [first: number, names: string])[] = [
  [15, 'ENOTBLK'],
  [44, 'ECHRNG EL2NSYNC EL3HLT EL3RST ELNRNG EUNATCH ENOCSI EL2HLT EBADE EBADR EXFULL ENOANO EBADRQC EBADSLT'],
  [59, 'EBFONT'],
  [64, 'ENONET ENOPKG EREMOTE'],
  [68, 'EADV ESRMNT ECOMM'],
  [73, 'EDOTDOT'],
  [76, 'ENOTUNIQ EBADFD EREMCHG ELIBACC ELIBBAD ELIBSCN ELIBMAX ELIBEXEC'],
  [85, 'ERESTART ESTRPIPE EUSERS'],
  [94, 'ESOCKTNOSUPPORT'],
  [96, 'EPFNOSUPPORT'],
  [108, 'ESHUTDOWN ETOOMANYREFS'],
  [112, 'EHOSTDOWN'],
  [117, 'EUCLEAN ENOTNAM ENAVAIL EISNAM EREMOTEIO'],
  [123, 'ENOMEDIUM EMEDIUMTYPE'],
  [126, 'ENOKEY EKEYEXPIRED EKEYREVOKED EKEYREJECTED EOWNERDEAD ENOTRECOVERABLE ERFKILL EHWPOISON'],
];

/** Of those that have two names, the one that the kernel uses. */
const ERRNO_NAMES = new Map(
  [
    ...LINUX_ERRNO.flatMap(([first, names]) => names.split(' ').map((name, i) => [name, first + i] as const)),
    ...Object.entries(os.constants.errno),
    ...(['EAGAIN', 'EOPNOTSUPP'] as const).map((name) => [name, os.constants.errno[name]] as const),
  ].map(([name, errno]) => [errno, name]),
);

/** The name of an error number, such as 'EAGAIN'. */
export function errnoName(errno: number): string {
  return ERRNO_NAMES.get(errno) ?? `errno ${errno}`;
}

/** A failed system call, in the shape of Node's own (`code`, `errno`, `syscall`). */
export class SystemError extends Error {
  readonly code: string;
  readonly errno: number;
  readonly syscall: string;

  constructor(syscall: string, errno: number, what: string) {
    const code = errnoName(errno);
    super(`${code}: ${syscall} ${what}`);
    this.name = 'SystemError';
    this.code = code;
    this.errno = errno;
    this.syscall = syscall;
  }
}

/** The `code` of an error that has one, such as 'ENOENT'. */
export function errorCode(error: unknown): string | undefined {
  return error instanceof Error && 'code' in error ? String(error.code) : undefined;
}
