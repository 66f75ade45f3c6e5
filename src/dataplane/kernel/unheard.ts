/**
 * VMs that packets were sent to and that were never heard from. A container can send to every address of the overlay, and the VMs that it makes up have entries in
 * the kernel as others have: so only a few of them keep theirs until they are idle, and the others a few seconds. A packet after that has the kernel ask again.
 */

/** ms in which a VM that exists answers: the kernel itself asks for it on the underlay for 3 s (arp(7), mcast_solicit). */
const PATIENCE = 4000;
/** That keep their entries for as long as others: VMs that are down, or only listen. */
const FEW = 256;

export class Unheard {
  /** When each VM's entries were made, in ms; the oldest come first. */
  readonly #since = new Map<number, number>();
  readonly #isHeard: (vm: number) => boolean;

  /** `isHeard` says whether packets have come from a VM. It is asked about those that may go, and then never again. */
  constructor(isHeard: (vm: number) => boolean) {
    this.#isHeard = isHeard;
  }

  add(vm: number, now: number): void {
    this.#since.set(vm, now);
  }

  /** Its entries have gone. */
  delete(vm: number): void {
    this.#since.delete(vm);
  }

  /** Those whose time is over, and forgets them. */
  take(now: number): number[] {
    const due: number[] = [];
    for (const [vm, since] of this.#since) {
      if (this.#since.size <= FEW || now - since < PATIENCE) break;
      this.#since.delete(vm);
      if (!this.#isHeard(vm)) due.push(vm);
    }
    return due;
  }
}
