/**
 * The barrier: a table of nftables that is ours, by its name. It is compared with the kernel's only where some
 * rule set has changed since.
 */
import { errorCode } from '../../errors.ts';
import type { OwnChain, OwnRule, OwnTables } from '../../linux/netfilter/own-tables.ts';
import { commentIn, commentOf, type Expression } from '../../linux/netlink/nf-tables.ts';
import { type BarrierChain, type BarrierFacts, barrierChains, barrierText, expressionsOf } from '../barrier/rules.ts';
import type { BarrierThing } from '../state.ts';
import type { Kind } from './kind.ts';

/** ms until a kernel that has refused the table is asked again: it may look for a module each time. */
const RETRY = 10_000;
/** What a kernel answers that does not know an expression. */
const UNKNOWN_EXPRESSION = 'ENOENT';

/** The table of this process, as it was found to be right. */
export class BarrierMemory {
  readonly tables: OwnTables;
  /** Whether the kernel can be asked for routes by a rule; it can until it says otherwise. */
  hasFib = true;
  /** The generation of rule sets in which the table had this text. */
  generation: number | undefined;
  text: string | undefined;
  failure: { error: unknown; until: number } | undefined;

  constructor(tables: OwnTables) {
    this.tables = tables;
  }
}

export const barrierKind: Kind<BarrierThing> = {
  ensure({ table, facts }, { barrier, links, note }) {
    if (!facts) return undefined;
    const device = { name: facts.device.name, index: links.get(facts.device.name) ?? 0 };
    if (barrier.failure && performance.now() < barrier.failure.until) throw barrier.failure.error;
    try {
      const wrong = write(table, { ...facts, device }, barrier, () => note({ kind: 'barrier', table }));
      barrier.failure = undefined;
      return wrong;
    } catch (error) {
      barrier.failure = { error, until: performance.now() + RETRY };
      throw error;
    }
  },

  undo: ({ table }, { barrier }) => {
    try {
      return barrier.tables.remove(table);
    } catch (error) {
      // A kernel without nftables has no table either.
      if (WITHOUT_NFTABLES.includes(errorCode(error) ?? '')) return false;
      throw error;
    }
  },

  commands: ({ table, facts }) =>
    facts ? ["nft -f - <<'EOF'", ...barrierText(table, barrierChains(printed(facts), true)), 'EOF'] : [],
  describe: ({ table }) => `table ip ${table} of nftables`,
};

/** As commands say it: the device is there by then. */
function printed(facts: BarrierFacts): BarrierFacts {
  return { ...facts, device: { ...facts.device, index: 1 } };
}

/** What a kernel without nftables answers: to the request, or to the socket already. */
export const WITHOUT_NFTABLES: readonly string[] = ['EINVAL', 'EOPNOTSUPP', 'EPROTONOSUPPORT'];

/** Returns what others have changed. */
function write(table: string, facts: BarrierFacts, memory: BarrierMemory, note: () => void): string | undefined {
  const { tables } = memory;
  const chains = barrierChains(facts, memory.hasFib);
  const indexes = [facts.device, ...facts.uplinks].map(({ index }) => index);
  const text = [...barrierText(table, chains), ...indexes].join('\n');
  const before = tables.generation;
  if (memory.generation === before && memory.text === text) return undefined;
  const names = chains.map(({ name }) => name);
  const found = tables.read(table, names);
  const isRight = found !== undefined && shapeOf(found) === shapeOf(chains.map((each) => ownChain(each)));
  if (!isRight) {
    note();
    const counts = countsIn(found ?? []);
    try {
      tables.replace(
        table,
        chains.map((each) => ownChain(each, counts)),
      );
    } catch (error) {
      if (!memory.hasFib || errorCode(error) !== UNKNOWN_EXPRESSION) throw error;
      memory.hasFib = false;
      return write(table, facts, memory, note);
    }
  }
  const isOurChange = memory.text !== undefined && memory.text !== text;
  memory.text = text;
  // Where others have changed something at the same time, the next look compares again.
  memory.generation = isRight ? before : before + 1;
  if (isRight || isOurChange) return undefined;
  return `table ip ${table} ${found ? 'is not as it should be' : 'is missing'}`;
}

/** What was counted, by the comments of the rules. Each is given out once. */
type Counts = Map<string, { packets: number; bytes: number }>;

function ownChain({ name, hook, rules }: BarrierChain, counts: Counts = new Map()): OwnChain {
  const ownRules = rules.map((rule): OwnRule => {
    const { drops } = rule;
    if (drops === undefined) return { expressions: expressionsOf(rule) };
    const { packets, bytes } = counts.get(drops) ?? {};
    counts.delete(drops);
    return { expressions: expressionsOf(rule, packets, bytes), userdata: commentOf(drops) };
  });
  return { name, ...(hook && { hook: { number: hook.number, priority: hook.priority } }), rules: ownRules };
}

/** The sums of the counters of rules with the same comment. */
export function countsIn(chains: readonly Pick<OwnChain, 'rules'>[]): Counts {
  const counts: Counts = new Map();
  for (const { expressions, userdata } of chains.flatMap(({ rules }) => rules)) {
    const name = commentIn(userdata);
    const counter = expressions?.find((each) => each.name === 'counter')?.data as Counter | undefined;
    if (name === undefined || !counter) continue;
    const { packets, bytes } = counts.get(name) ?? { packets: 0, bytes: 0 };
    counts.set(name, { packets: packets + (counter.packets ?? 0), bytes: bytes + (counter.bytes ?? 0) });
  }
  return counts;
}
type Counter = { packets?: number; bytes?: number };

/** What chains say, without what they count: the kernel's and ours as one text. */
function shapeOf(chains: readonly OwnChain[]): string {
  return JSON.stringify(
    chains.map(({ name, hook, rules }) => [
      name,
      hook && [hook.number, hook.priority],
      rules.map(({ expressions = [], userdata }) => [expressions.map(shapeOfExpression), commentIn(userdata)]),
    ]),
  );
}

function shapeOfExpression({ name, data }: Expression): unknown {
  if (name === 'counter') return name;
  // The kernel adds the operation of `bitwise`, which is 0 unless it says otherwise.
  const sorted = Object.entries(data ?? {}).filter(([key, value]) => key !== 'op' || name !== 'bitwise' || value !== 0);
  return [name, sorted.sort(([a], [b]) => (a < b ? -1 : 1)).map(([key, value]) => [key, plain(value)])];
}

function plain(value: unknown): unknown {
  if (value instanceof Uint8Array) return Buffer.from(value).toString('hex');
  if (typeof value !== 'object' || value === null) return value;
  return Object.entries(value).map(([key, each]) => [key, plain(each)]);
}
