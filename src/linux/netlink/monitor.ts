/**
 * Notifications, which the kernel sends by itself to sockets that have joined a multicast group
 * (rtnetlink(7)).
 */
import { type Message, messagesIn } from './message.ts';
import { isOverrun, type Transport } from './transport.ts';

/** How many datagrams are read before other work has its turn. */
const MAX_DRAINED = 256;

export interface MonitorListeners {
  onMessages(messages: readonly Message[]): void;
  /** Notifications were lost, or could not be read: only a dump tells now how things are. */
  onOverrun(): void;
  /** Nothing more will be heard. */
  onFailure(error: Error): void;
}

/** Hears notifications until it is closed. */
export class Monitor {
  readonly #transport: Transport;
  readonly #listeners: MonitorListeners;
  #closed = false;

  constructor(transport: Transport, listeners: MonitorListeners) {
    this.#transport = transport;
    this.#listeners = listeners;
    this.#wait();
  }

  close(): void {
    this.#closed = true;
    this.#transport.close();
  }

  /** Hands on what has been told until now, and closes. */
  finish(): void {
    try {
      while (!this.#closed && this.#drain());
    } finally {
      this.close();
    }
  }

  #wait(): void {
    this.#transport.wait(() => {
      if (this.#closed) return;
      try {
        this.#drain();
      } catch (error) {
        this.close();
        this.#listeners.onFailure(error as Error);
        return;
      }
      if (!this.#closed) this.#wait();
    });
  }

  /** Hands on the datagrams that wait, but lets other work have its turn. Returns whether more may wait. */
  #drain(): boolean {
    const messages: Message[] = [];
    let isIncomplete = false;
    let isMore = true;
    for (let i = 0; i < MAX_DRAINED; i++) {
      try {
        const datagram = this.#transport.receive();
        isMore = datagram !== undefined;
        if (!datagram) break;
        messages.push(...messagesIn(datagram.slice())); // The buffer is used again.
      } catch (error) {
        if (!isOverrun(error) && !(error instanceof RangeError)) throw error;
        isIncomplete = true;
      }
    }
    try {
      if (messages.length > 0) this.#listeners.onMessages(messages);
    } catch (error) {
      if (!(error instanceof RangeError)) throw error;
      isIncomplete = true; // Whatever it says, it says in a way that is not known here.
    }
    if (isIncomplete) this.#listeners.onOverrun();
    return isMore;
  }
}
