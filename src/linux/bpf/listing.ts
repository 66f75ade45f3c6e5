/**
 * Programs as text for people, one instruction a line, in the form that llvm-objdump(1) has
 * (Documentation/bpf/standardization/instruction-set.rst).
 */
import type { Instruction } from './assembler.ts';

export interface ListingNames {
  /** Of maps, by their descriptors. */
  maps: ReadonlyMap<number, string>;
}

/** bpf-helpers(7), without the bpf_ in front. */
const HELPERS: Readonly<Record<number, string>> = {
  1: 'map_lookup_elem',
  9: 'skb_store_bytes',
  10: 'l3_csum_replace',
  11: 'l4_csum_replace',
  23: 'redirect',
  26: 'skb_load_bytes',
  28: 'csum_diff',
  34: 'get_hash_recalc',
  38: 'skb_change_tail',
  39: 'skb_pull_data',
  50: 'skb_adjust_room',
  69: 'fib_lookup',
  135: 'csum_level',
  152: 'redirect_neigh',
  155: 'redirect_peer',
  160: 'ktime_get_coarse_ns',
  163: 'check_mtu',
};

/** The low three bits of a code. */
const CLASSES = {
  load: 0x00,
  loadFrom: 0x01,
  store: 0x02,
  storeFrom: 0x03,
  alu32: 0x04,
  jump: 0x05,
  jump32: 0x06,
  alu64: 0x07,
};
/** By bits 3 and 4. */
const SIZES = ['u32', 'u16', 'u8', 'u64'];
/** The bit that says that the other operand is a register. */
const FROM_REGISTER = 0x08;
const OPERATIONS: Readonly<Record<number, string>> = {
  ...{ 0: '+=', 16: '-=', 32: '*=', 48: '/=', 64: '|=', 80: '&=' },
  ...{ 96: '<<=', 112: '>>=', 144: '%=', 160: '^=', 176: '=', 192: 's>>=' },
};
const CONDITIONS: Readonly<Record<number, string>> = {
  ...{ 16: '==', 32: '>', 48: '>=', 64: '&', 80: '!=', 96: 's>', 112: 's>=' },
  ...{ 160: '<', 176: '<=', 192: 's<', 208: 's<=' },
};
const [NEGATE, SWAP] = [0x80, 0xd0];
const [ALWAYS, CALL, EXIT] = [0x00, 0x80, 0x90];
/** A load of 64 bits, which takes two instructions; and a change of memory at once for all processors. */
const [LOAD_64, ATOMIC] = [0x18, 0xc0];
const [PSEUDO_MAP_FD, PSEUDO_MAP_VALUE] = [1, 2];

/** Jumps go to labels, which stand on lines of their own. */
export function listing(instructions: readonly Instruction[], names: ListingNames): string[] {
  const labels = labelsOf(instructions);
  return instructions.flatMap((instruction, at) => {
    const label = labels.get(at);
    // The second half of a load of 64 bits.
    const isHalf = instructions[at - 1]?.[0] === LOAD_64;
    const next = instructions[at + 1]?.[4] ?? 0;
    return [
      ...(label === undefined ? [] : [`${label}:`]),
      ...(isHalf ? [] : [`  ${text(instruction, next, labels.get(at + 1 + instruction[3]) ?? '', names)}`]),
    ];
  });
}

/** Names of the places that jumps go to, in their order. */
function labelsOf(instructions: readonly Instruction[]): Map<number, string> {
  const places = instructions.flatMap((instruction, at) => (isJump(instruction) ? [at + 1 + instruction[3]] : []));
  const sorted = [...new Set(places)].sort((a, b) => a - b);
  return new Map(sorted.map((place, i) => [place, `L${i + 1}`]));
}

function isJump([code]: Instruction): boolean {
  const [kind, operation] = [code & 0x07, code & 0xf0];
  return (kind === CLASSES.jump || kind === CLASSES.jump32) && operation !== CALL && operation !== EXIT;
}

function text(instruction: Instruction, next: number, label: string, names: ListingNames): string {
  const [code, destination, source, offset, immediate] = instruction;
  const kind = code & 0x07;
  const at = (register: number) => `*(${SIZES[(code >> 3) & 3]} *)(r${register} ${signed(offset)})`;
  switch (kind) {
    case CLASSES.load:
      return `r${destination} = ${wide(source, immediate, next, names)}`;
    case CLASSES.loadFrom:
      return `r${destination} = ${at(source)}`;
    case CLASSES.store:
      return `${at(destination)} = ${immediate}`;
    case CLASSES.storeFrom:
      if ((code & 0xe0) !== ATOMIC) return `${at(destination)} = r${source}`;
      return `lock ${at(destination)} ${OPERATIONS[immediate]} r${source}`;
    case CLASSES.jump:
    case CLASSES.jump32:
      return jumpText(instruction, label);
    default:
      return arithmetic(instruction);
  }
}

function wide(source: number, low: number, high: number, { maps }: ListingNames): string {
  const name = maps.get(low) ?? `map ${low}`;
  if (source === PSEUDO_MAP_FD) return name;
  if (source === PSEUDO_MAP_VALUE) return `&${name}[0]${high === 0 ? '' : ` + ${high}`}`;
  return `${(BigInt(high) << 32n) | BigInt(low >>> 0)} ll`;
}

function arithmetic([code, destination, source, , immediate]: Instruction): string {
  const name = (code & 0x07) === CLASSES.alu32 ? 'w' : 'r';
  const operation = code & 0xf0;
  if (operation === SWAP) return `r${destination} = ${code & FROM_REGISTER ? 'be' : 'le'}${immediate} r${destination}`;
  if (operation === NEGATE) return `${name}${destination} = -${name}${destination}`;
  const other = code & FROM_REGISTER ? `${name}${source}` : `${immediate}`;
  return `${name}${destination} ${OPERATIONS[operation] ?? `?${code.toString(16)}`} ${other}`;
}

function jumpText([code, destination, source, , immediate]: Instruction, label: string): string {
  const operation = code & 0xf0;
  if (operation === EXIT) return 'exit';
  if (operation === CALL) return `call ${HELPERS[immediate] ?? immediate}`;
  if (operation === ALWAYS) return `goto ${label}`;
  const name = (code & 0x07) === CLASSES.jump32 ? 'w' : 'r';
  const other = code & FROM_REGISTER ? `${name}${source}` : `${immediate}`;
  return `if ${name}${destination} ${CONDITIONS[operation] ?? `?${code.toString(16)}`} ${other} goto ${label}`;
}

function signed(offset: number): string {
  return offset < 0 ? `- ${-offset}` : `+ ${offset}`;
}
