/** VMs of the kernel data plane, and what it tells the kernel of the others. */
import { expect } from 'vitest';
import { Lab } from '../../src/demo/lab.ts';
import { PATIENCE, Vms } from './vms.ts';

export class KernelVms extends Vms {
  /** The first VM is 192.168.16.32. */
  static async open(...names: string[]): Promise<KernelVms> {
    return await new KernelVms(await Lab.open(), 'kernel', names).joined();
  }

  mac(name: string): string {
    return `02:00:c0:a8:10:${this.number(name).toString(16)}`;
  }

  /** The entries about remote VMs: routes, neighbours and where MAC addresses live, sorted. */
  async entries(name: string): Promise<string[]> {
    const script = `ip route show proto 73 | grep via | sed 's/ metric [0-9]*//'
      ip neighbour show nud all dev inlay0 | sed 's/\\(STALE\\|DELAY\\|REACHABLE\\)/KNOWN/'
      bridge fdb show dev inlay0`;
    return (await this.lab.must(name, ['sh', '-c', script]))
      .split('\n')
      .map((line) => line.trim())
      .filter((line) => line !== '')
      .sort();
  }

  /** What those are to be. */
  entriesOf(name: string, ...others: string[]): string[] {
    return others
      .flatMap((other) => [
        `${this.mac(other)} dst ${this.underlay(other)} self permanent`,
        `${this.overlay(other)} lladdr ${this.mac(other)} extern_learn KNOWN proto 73`,
        `${this.slice(other)} via ${this.overlay(other)} dev inlay0 src ${this.overlay(name)} onlink`,
      ])
      .sort();
  }

  /** Waits until the entries are those of these VMs and no others. */
  async expectEntries(name: string, ...others: string[]): Promise<void> {
    await expect.poll(() => this.entries(name), PATIENCE).toEqual(this.entriesOf(name, ...others));
  }
}
