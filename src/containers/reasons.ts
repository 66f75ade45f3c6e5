/**
 * Why a container cannot be attached or detached: each reason with the exit code of the command line
 * (sysexits.h where it has one) and the code of a CNI error (CNI specification 1.1.0, section 2: 1 to 99 are
 * the specification's own).
 */
import { EXIT, InlayError } from '../errors.ts';

interface Reason {
  readonly exit: number;
  readonly cni: number;
  readonly meaning: string;
}

// sysexits.h
const EX_NOINPUT = 66;
const EX_UNAVAILABLE = 69;
const EX_OSERR = 71;
const EX_CANTCREAT = 73;
const EX_TEMPFAIL = 75;

export const REASONS = {
  invalid: { exit: EXIT.usage, cni: 4, meaning: 'a word or an environment variable that makes no sense' },
  'out-of-range': { exit: EXIT.usage, cni: 7, meaning: 'no container of this VM can have that number or address' },
  'no-namespace': { exit: EX_NOINPUT, cni: 100, meaning: 'there is no such network namespace' },
  'namespace-gone': { exit: EX_NOINPUT, cni: 101, meaning: 'the namespace, or the interface in it, went meanwhile' },
  'not-attached': {
    exit: EX_NOINPUT,
    cni: 102,
    meaning: 'the container has no interface of ours, or not as it was made',
  },
  'interface-exists': { exit: EX_CANTCREAT, cni: 103, meaning: 'the namespace has an interface of that name' },
  attached: { exit: EX_CANTCREAT, cni: 104, meaning: 'this container and interface are attached already' },
  taken: { exit: EX_CANTCREAT, cni: 105, meaning: 'another container has the number that was asked for' },
  cooling: { exit: EX_TEMPFAIL, cni: 106, meaning: 'the number that was asked for was in use a moment ago' },
  full: { exit: EX_UNAVAILABLE, cni: 107, meaning: 'no address of this VM is free' },
  'no-underlay': { exit: EX_TEMPFAIL, cni: 11, meaning: 'this VM has no underlay address yet' },
  'no-mesh': { exit: EXIT.badConfiguration, cni: 108, meaning: 'nothing tells which mesh this VM is part of' },
  'damaged-mesh': { exit: EXIT.badConfiguration, cni: 112, meaning: 'what a daemon left of its mesh cannot be read' },
  'other-mesh': { exit: EXIT.badConfiguration, cni: 7, meaning: "the configuration is not that of this VM's daemon" },
  permission: { exit: EXIT.noPermission, cni: 109, meaning: 'a capability is missing' },
  'not-ours': { exit: EX_UNAVAILABLE, cni: 110, meaning: 'a link of that name is not one that Inlay made' },
  'no-veth': { exit: EX_OSERR, cni: 111, meaning: 'this kernel has no veth devices' },
  system: { exit: EX_OSERR, cni: 5, meaning: 'the kernel refused a step' },
} as const satisfies Record<string, Reason>;

export type ReasonName = keyof typeof REASONS;

/** A container could not be attached or detached. Its exit code is its reason's. */
export class ContainerError extends InlayError {
  readonly reason: ReasonName;

  constructor(reason: ReasonName, message: string, options: { hint?: string; cause?: unknown } = {}) {
    super('ERR_FAILED', message, options);
    this.name = 'ContainerError';
    this.reason = reason;
  }

  override get exitCode(): number {
    return REASONS[this.reason].exit;
  }
}

/** The table of docs/containers.md, as Markdown. */
export function reasonsTable(): string {
  const rows = Object.entries<Reason>(REASONS).map(
    ([name, { exit, cni, meaning }]) => `| \`${name}\` | ${exit} | ${cni} | ${meaning} |`,
  );
  return ['| reason | exit code | CNI code | means |', '|---|---|---|---|', ...rows].join('\n');
}
