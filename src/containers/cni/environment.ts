/** What a call is: the variables of its environment (CNI specification 1.1.0, section 2, "Parameters"). */
import { CniError, CODE, quoted } from './error.ts';

/** Variables by name: those of a process, or those that a form brought. */
export type CniEnvironment = Readonly<Record<string, string | undefined>>;

/** Which variables each command cannot do without. */
const NEEDED = {
  ADD: ['CNI_CONTAINERID', 'CNI_NETNS', 'CNI_IFNAME'],
  DEL: ['CNI_CONTAINERID', 'CNI_IFNAME'],
  CHECK: ['CNI_CONTAINERID', 'CNI_NETNS', 'CNI_IFNAME'],
  GC: [],
  STATUS: [],
  VERSION: [],
} as const satisfies Record<string, readonly string[]>;

type Command = keyof typeof NEEDED;

/** Variables that tell about one container. */
export interface Call {
  command: Command;
  id: string;
  /** Absolute path; empty where the command needs none. */
  netns: string;
  ifname: string;
  /** CNI_ARGS, not yet read. */
  args: string;
}

/** As an id of the library may be. The specification has no limit. */
const LONGEST_ID = 256;
/** Bytes (IFNAMSIZ in <linux/if.h>, without the final zero). */
const LONGEST_IFNAME = 15;
/** Bytes (PATH_MAX in <linux/limits.h>, without the final zero). */
const LONGEST_PATH = 4095;

/** Throws CniError, code 4, whose message has the names of the variables. */
export function readCall(env: CniEnvironment): Call {
  const of = (name: string) => env[name] ?? '';
  const command = of('CNI_COMMAND');
  if (command === '') throw invalid('required environment variable missing: CNI_COMMAND');
  if (!isCommand(command)) throw invalid(`CNI_COMMAND ${quoted(command)}: expected ${Object.keys(NEEDED).join(', ')}`);
  const missing = NEEDED[command].filter((name) => of(name) === '');
  if (missing.length > 0)
    throw invalid(
      `required environment variable${missing.length > 1 ? 's' : ''} missing: ${missing.join(', ')}`,
      `CNI_COMMAND is ${command}`,
    );
  const call = {
    command,
    id: of('CNI_CONTAINERID'),
    netns: of('CNI_NETNS'),
    ifname: of('CNI_IFNAME'),
    args: of('CNI_ARGS'),
  };
  const needed: readonly string[] = NEEDED[command];
  if (needed.includes('CNI_CONTAINERID')) checkId(call.id);
  if (needed.includes('CNI_NETNS')) checkNetns(call.netns);
  if (needed.includes('CNI_IFNAME')) checkIfname(call.ifname);
  return call;
}

function isCommand(text: string): text is Command {
  return Object.hasOwn(NEEDED, text);
}

/** A name as the specification has it: of a container, and of a network. */
export function isName(text: string): boolean {
  return /^[a-zA-Z0-9][a-zA-Z0-9_.-]*$/.test(text);
}

function checkId(id: string): void {
  if (id.length > LONGEST_ID)
    throw invalid(`CNI_CONTAINERID is too long: ${id.length} characters, expected ${LONGEST_ID} at most`);
  if (!isName(id))
    throw invalid(
      `CNI_CONTAINERID ${quoted(id)} has invalid characters`,
      'expected a letter or digit, then letters, digits, "_", "." and "-"',
    );
}

function checkNetns(netns: string): void {
  // A name or a process id would mean something to the library, and something else to the runtime.
  if (!netns.startsWith('/') || netns.includes('\0') || Buffer.byteLength(netns) > LONGEST_PATH)
    throw invalid(`CNI_NETNS ${quoted(netns)}: expected an absolute path`, 'such as /run/netns/NAME');
}

/**
 * As the kernel's dev_valid_name() has it (net/core/dev.c), which the specification's own code repeats; and
 * without "%", which asks the kernel for a number.
 */
function checkIfname(ifname: string): void {
  const bytes = Buffer.byteLength(ifname);
  if (bytes > LONGEST_IFNAME)
    throw invalid(`CNI_IFNAME ${quoted(ifname)} is too long: ${bytes} bytes, expected ${LONGEST_IFNAME} at most`);
  if (ifname === '.' || ifname === '..') throw invalid(`CNI_IFNAME is ${quoted(ifname)}, which no interface can be`);
  if (!/^[!-$&-.0-9;-~]+$/.test(ifname))
    throw invalid(`CNI_IFNAME ${quoted(ifname)}: expected ASCII characters without "/", ":", "%" and white space`);
}

function invalid(message: string, details?: string): CniError {
  return new CniError(CODE.environment, message, details);
}
