/** Failed system calls, and the names of their error numbers. */
import os from 'node:os';

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
