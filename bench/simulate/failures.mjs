/** What was found to be wrong, by the invariant that it breaks: each kind with how often it was met, and the first example. */

export const INVARIANTS = [
  'each packet, and each copy of one, came to exactly one end',
  'what was delivered is what was sent, byte for byte, at the right VM',
  'each verdict is one that the model expects',
  "each core's received = forwarded + drops, and its counters are what the model saw",
  'sums over all VMs are what the network saw, and the ends of packets',
  'each reply to a container is about a packet of its own, and each that was due was made or suppressed',
  'a VM that is taken out of the core leaves nothing behind',
];
export const [ENDS, BYTES, VERDICTS, COUNTERS, SUMS, REPLIES, SWAP] = INVARIANTS.keys();

export class Failures {
  /** In the order in which they were met: the invariant, what is wrong, how often, and the first example. */
  list = [];
  #known = new Map();

  add(invariant, what, example) {
    const known = this.#known.get(what);
    if (known) {
      known.count++;
      return;
    }
    const failure = { invariant, what, count: 1, example };
    this.#known.set(what, failure);
    this.list.push(failure);
  }

  /** Two numbers that have to be equal. */
  expect(invariant, what, found, right) {
    if (found !== right) this.add(invariant, what, { found, right });
  }
}
