/** A table of the fake kernel: how rtnetlink asks of it, changes it and tells of it. */
import os from 'node:os';
import { type Codec, s32 } from '../../src/linux/netlink/codec.ts';
import {
  type Message,
  NLM_F_DUMP,
  NLM_F_DUMP_INTR,
  NLM_F_REQUEST,
  NLMSG_DONE,
  putMessage,
} from '../../src/linux/netlink/message.ts';
import type { Datagram, FakeSocket } from './fake-socket.ts';

const { EBUSY, EOPNOTSUPP } = os.constants.errno;
const NLM_F_MULTI = 0x2;
/** RTM_NEW..., RTM_DEL..., RTM_GET... and RTM_SET... have numbers one behind the other. */
const [NEW, DEL, GET, SET] = [0, 1, 2, 3];

export const hex = (bytes: Uint8Array | undefined) => Buffer.from(bytes ?? []).toString('hex');

/** What the kernel answers if it does not do something. */
export class Refusal extends Error {
  readonly errno: number;
  readonly words: string | undefined;

  constructor(errno: number, words?: string) {
    super(words);
    this.errno = errno;
    this.words = words;
  }
}

export function refuse(errno: number, words?: string): never {
  throw new Refusal(errno, words);
}

export interface Rules<T> {
  /** RTM_NEW... */
  type: number;
  group: number;
  codec: Codec<T>;
  keyOf(thing: T): string;
  /** Does what RTM_NEW... and RTM_SET... ask for. `port` is who asks. */
  put(given: T, message: Message): void;
  /** What RTM_DEL... and RTM_GET... mean. */
  find(given: T, message: Message): T;
  remove?(found: T, port: number): void;
  /** Refuses a dump that is asked for like this. */
  checkDump?(given: T): void;
  /** Whether a dump that was asked for so has this. */
  isWanted?(given: T, each: T): boolean;
}

/** How dumps come. */
export interface Dumps {
  /** Things in one datagram, at most. */
  partSize: number;
  /** Whether they say that their table changed meanwhile. */
  tellInterruptions: boolean;
  /** Called before each part is made. */
  onPart: (() => void) | undefined;
}

export class Table<T> {
  readonly entries = new Map<string, T>();
  readonly #rules: Rules<T>;
  readonly #sockets: Iterable<FakeSocket>;
  readonly #dumps: Dumps;
  #changes = 0;

  constructor(sockets: Iterable<FakeSocket>, dumps: Dumps, rules: Rules<T>) {
    this.#sockets = sockets;
    this.#dumps = dumps;
    this.#rules = rules;
  }

  get all(): T[] {
    return [...this.entries.values()];
  }

  /** The one with the same key. */
  like(thing: T): T | undefined {
    return this.entries.get(this.#rules.keyOf(thing));
  }

  /** Keeps it, and tells of it on behalf of a socket. */
  set(thing: T, port = 0): void {
    this.entries.set(this.#rules.keyOf(thing), thing);
    this.tell(thing, port);
  }

  delete(thing: T, port = 0): void {
    this.entries.delete(this.#rules.keyOf(thing));
    this.tell(thing, port, this.#rules.type + DEL);
  }

  tell(thing: T, port: number, type = this.#rules.type, flags = 0): void {
    this.#changes++;
    for (const socket of this.#sockets)
      socket.hear(this.#rules.group, this.#messageOf({ type, flags, sequence: 0, port }, thing));
  }

  /** The kernel itself wants to know something. */
  ask(thing: T): void {
    this.tell(thing, 0, this.#rules.type + GET, NLM_F_REQUEST);
  }

  /** Does what a request asks for. True if its answer is a dump. */
  handle(message: Message, from: FakeSocket): boolean {
    const { type, codec } = this.#rules;
    const given = codec.get(message.view, message.start, message.end);
    switch (message.type - type) {
      case NEW:
      case SET:
        this.#rules.put(given, message);
        return false;
      case DEL: {
        const found = this.#rules.find(given, message);
        if (this.#rules.remove) this.#rules.remove(found, message.port);
        else this.delete(found, message.port);
        return false;
      }
      case GET:
        if (!(message.flags & NLM_F_DUMP)) {
          from.push(this.#messageOf({ ...message, type, flags: 0 }, this.#rules.find(given, message)));
          return false;
        }
        if (from.isDumping) refuse(EBUSY);
        this.#rules.checkDump?.(given);
        from.startDump(this.#dump(given, message));
        return true;
      default:
        return refuse(EOPNOTSUPP);
    }
  }

  /** Each part is of the table as it is when the part is made. */
  *#dump(given: T, { sequence, port }: Message): Generator<Datagram> {
    const before = this.#changes;
    const { partSize, tellInterruptions } = this.#dumps;
    for (let from = 0, isDone = false; !isDone; from += partSize) {
      this.#dumps.onPart?.();
      const part = this.all.filter((each) => this.#rules.isWanted?.(given, each) ?? true).slice(from, from + partSize);
      const isInterrupted = tellInterruptions && this.#changes !== before;
      const header = { flags: NLM_F_MULTI | (isInterrupted ? NLM_F_DUMP_INTR : 0), sequence, port };
      isDone = part.length < partSize; // Then there is room for the end.
      yield (writer) => {
        for (const thing of part) this.#messageOf({ ...header, type: this.#rules.type }, thing)(writer);
        if (isDone) putMessage(writer, { ...header, type: NLMSG_DONE }, (body) => s32.put(body, 0));
      };
    }
  }

  #messageOf(header: Parameters<typeof putMessage>[1], thing: T): Datagram {
    return (writer) => putMessage(writer, header, (body) => this.#rules.codec.put(body, thing));
  }
}
