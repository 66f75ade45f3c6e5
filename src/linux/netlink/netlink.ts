/**
 * Requests and dumps. The kernel does what it is asked for, and queues its answer, before send(2) returns
 * (rtnetlink(7)).
 */
import os from 'node:os';
import { pause } from '../pause.ts';
import { type Decoder, Writer } from './codec.ts';
import {
  acknowledgement,
  type Message,
  messagesIn,
  NetlinkError,
  NLM_F_DUMP,
  NLM_F_DUMP_INTR,
  NLM_F_REQUEST,
  NLMSG_DONE,
  NLMSG_ERROR,
  putMessage,
  type Request,
} from './message.ts';
import { NETLINK_ROUTE, openTransport, type Transport } from './transport.ts';

/**
 * How many requests one datagram has at most. The answers, all of them errors at worst, fit into the receive
 * buffer of any socket.
 */
const MAX_BATCH = 64;
/**
 * How often a dump is tried while its table keeps changing, and ms until the next try. The pause doubles each
 * time: a quarter of a second in all.
 */
const ATTEMPTS = 9;
const PAUSE = 1;
const { EINTR } = os.constants.errno;
/** What is sent is the kernel's before anything else is written. */
const WRITER = new Writer();

/** Asks the kernel. */
export class Netlink {
  readonly #transport: Transport;
  /** The sequence number of the last request. */
  #sequence: number;
  #isClosed = false;

  constructor(transport: Transport, sequence = 0) {
    this.#transport = transport;
    this.#sequence = sequence;
  }

  static open(protocol: number = NETLINK_ROUTE): Netlink {
    return new Netlink(openTransport(protocol));
  }

  get port(): number {
    return this.#transport.port;
  }

  /** Does what is asked for. Throws NetlinkError. */
  do(request: Request): void {
    const [error] = this.tryAll([request]);
    if (error) throw error;
  }

  /** Tries each request, in this order; returns the error of each that failed. */
  tryAll(requests: readonly Request[]): (NetlinkError | undefined)[] {
    const errors: (NetlinkError | undefined)[] = new Array(requests.length);
    for (let from = 0; from < requests.length; from += MAX_BATCH) {
      const batch = requests.slice(from, from + MAX_BATCH);
      const first = this.#send(batch);
      for (const message of this.#received()) {
        const i = (message.sequence - first) >>> 0;
        const request = batch[i];
        if (message.type !== NLMSG_ERROR || !request) continue;
        errors[from + i] = errorIn(message, request);
      }
    }
    return errors;
  }

  /** Sends all in one datagram, such as a transaction of nftables. Throws the first NetlinkError. */
  together(requests: readonly Request[]): void {
    const first = this.#send(requests);
    let failure: NetlinkError | undefined;
    for (const message of this.#received()) {
      const request = requests[(message.sequence - first) >>> 0];
      if (message.type === NLMSG_ERROR && request) failure ??= errorIn(message, request);
    }
    if (failure) throw failure;
  }

  /**
   * What the kernel answers to a request for one thing. Throws NetlinkError, as if there is no such thing.
   */
  get<T>(request: Request, codec: Decoder<T>): T {
    const sequence = this.#send([request]);
    let answer: T | undefined;
    for (const message of this.#received()) {
      if (message.sequence !== sequence) continue;
      const error = message.type === NLMSG_ERROR ? errorIn(message, request) : undefined;
      if (error) throw error;
      if (message.type !== NLMSG_ERROR) answer ??= codec.get(message.view, message.start, message.end);
    }
    if (answer === undefined) throw new Error(`${textOf(request)}: no answer`);
    return answer;
  }

  /**
   * The whole table; where it changes while it is read, what was read once that is `enough`. Throws
   * NetlinkError: EINTR if it keeps changing, and nothing that was read is enough.
   */
  dump<T>(request: Request, codec: Decoder<T>, enough: (found: readonly T[]) => boolean = () => false): T[] {
    for (let attempt = 0; ; attempt++) {
      const found: T[] = [];
      try {
        for (const part of this.parts(request, codec)) found.push(...part);
        return found;
      } catch (error) {
        if (!(error instanceof NetlinkError) || error.errno !== EINTR) throw error;
        if (enough(found)) return found;
        if (attempt === ATTEMPTS - 1) throw error;
      }
      pause(PAUSE << attempt);
    }
  }

  /**
   * A table in parts, as the kernel sends them. Throws NetlinkError: at the end EINTR if it changed meanwhile
   * in a way that may have left something out. Nothing else may be asked until the end. Who stops earlier
   * waits for the rest, or closes the socket before: then the kernel does not make the rest.
   */
  *parts<T>(request: Request, codec: Decoder<T>): Generator<T[]> {
    const sequence = this.#send([{ ...request, flags: request.flags | NLM_F_DUMP }]);
    let isWhole = true;
    let isDone = false;
    try {
      while (!isDone) {
        const part: T[] = [];
        for (const message of this.#next(request)) {
          if (message.sequence !== sequence) continue;
          if (message.flags & NLM_F_DUMP_INTR) isWhole = false;
          if (message.type === NLMSG_ERROR || message.type === NLMSG_DONE) {
            isDone = true;
            if (acknowledgement(message).errno === request.none) return;
            const error = errorIn(message, request);
            if (error) throw error;
          } else part.push(codec.get(message.view, message.start, message.end));
        }
        if (part.length > 0) yield part;
      }
    } finally {
      while (!isDone && !this.#isClosed)
        for (const { type } of this.#next(request)) isDone ||= type === NLMSG_DONE || type === NLMSG_ERROR;
    }
    if (!isWhole) throw new NetlinkError(EINTR, `${textOf(request)}: it changed meanwhile`);
  }

  close(): void {
    this.#isClosed = true;
    this.#transport.close();
  }

  /** Sends requests in one datagram; returns the sequence number of the first. */
  #send(requests: readonly Request[]): number {
    const first = (this.#sequence + 1) >>> 0;
    this.#sequence = (this.#sequence + requests.length) >>> 0;
    WRITER.clear();
    let sequence = first;
    for (const { type, flags, put } of requests) {
      putMessage(WRITER, { type, flags: flags | NLM_F_REQUEST, sequence }, put);
      sequence = (sequence + 1) >>> 0;
    }
    this.#transport.send(WRITER.bytes);
    return first;
  }

  *#received(): Generator<Message> {
    for (let datagram = this.#transport.receive(); datagram; datagram = this.#transport.receive())
      yield* messagesIn(datagram.slice()); // The buffer is used again, and what is read are views.
  }

  #next(request: Request): Iterable<Message> {
    const datagram = this.#transport.receive();
    if (!datagram) throw new Error(`${textOf(request)}: the kernel stopped in the middle of a dump`);
    return messagesIn(datagram.slice());
  }
}

function errorIn(message: Message, request: Request): NetlinkError | undefined {
  const { errno, words } = acknowledgement(message);
  return errno === 0 ? undefined : new NetlinkError(errno, textOf(request), words);
}

function textOf({ what }: Request): string {
  return typeof what === 'string' ? what : what();
}
