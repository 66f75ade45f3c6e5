/** VMs with containers that a test attaches by hand, as root in them may do whatever they like. */
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { expect } from 'vitest';
import { Vms } from '../net/vms.ts';
import { sum } from '../packet.ts';

const INJECT = fileURLToPath(new URL('../net/inject.mjs', import.meta.url));

/** An entry of the journal, as far as it is about a container's device. */
export interface Noted {
  device: string;
  before: string;
}

export class GuardedVms extends Vms {
  /** Joins a container to a VM by a veth that is called as it is: its address has this index of the VM's slice. */
  async attach(vm: string, name: string, index: number, ...more: string[]): Promise<void> {
    await this.lab.ip(undefined, [`netns add ${name}`]);
    await this.ip(vm, `link add ${name} type veth peer name eth0 netns ${name}`);
    const address = this.container(vm, index);
    await this.lab.ip(name, ['link set lo up', `address add ${address}/32 dev eth0`, 'link set eth0 mtu 1400 up']);
    await this.lab.ip(name, [`route add ${this.overlay(vm)} dev eth0`, `route add default via ${this.overlay(vm)}`]);
    await this.ip(vm, ...more, `link set ${name} up`, `route add ${address}/32 dev ${name}`);
    await this.lab.must(vm, ['sh', '-c', `echo 1 >/proc/sys/net/ipv4/conf/${name}/forwarding`]);
  }

  container(vm: string, index: number): string {
    return this.overlay(vm).replace(/\.1$/, `.${index}`);
  }

  /** rp_filter, accept_redirects and send_redirects of IPv4; disable_ipv6, accept_ra and accept_redirects of IPv6. */
  async settings(vm: string, device: string): Promise<string> {
    const files = [
      ...['rp_filter', 'accept_redirects', 'send_redirects'].map((name) => `ipv4/conf/${device}/${name}`),
      ...['disable_ipv6', 'accept_ra', 'accept_redirects'].map((name) => `ipv6/conf/${device}/${name}`),
    ];
    return (await this.lab.must(vm, ['sh', '-c', `cd /proc/sys/net; cat ${files.join(' ')}`]))
      .trim()
      .replace(/\n/g, ' ');
  }

  /** Sets files below /proc/sys/net, such as ipv4/rp_filter, of a device. */
  async set(vm: string, device: string, values: Readonly<Record<string, number>>): Promise<void> {
    const lines = Object.entries(values).map(
      ([name, value]) => `echo ${value} >${name.replace('/', `/conf/${device}/`)}`,
    );
    await this.lab.must(vm, ['sh', '-ec', `cd /proc/sys/net; ${lines.join('; ')}`]);
  }

  /** Tells all on the link of an IPv6 router, which gives them a prefix (RFC 4861 §4.2, §4.6.2). */
  async advertise(where: string, device: string): Promise<void> {
    const mac = (await this.lab.must(where, ['cat', `/sys/class/net/${device}/address`])).trim().replaceAll(':', '');
    const [from, to] = ['fe800000000000000000000000000bad', 'ff020000000000000000000000000001'];
    const prefix = '20010db80bad00000000000000000000';
    const body = `4000070800000000000000000101${mac}030440c0000151800000384000000000${prefix}`;
    const message = (checksum: string) => `8600${checksum}${body}`;
    const length = message('0000').length / 2;
    const pseudo = Buffer.from(`${from}${to}${length.toString(16).padStart(8, '0')}0000003a`, 'hex');
    const checksum = ~sum(Buffer.from(message('0000'), 'hex'), sum(pseudo)) & 0xffff;
    const ipv6 = `60000000${length.toString(16).padStart(4, '0')}3aff${from}${to}`;
    const frame = `333300000001${mac}86dd${ipv6}${message(checksum.toString(16).padStart(4, '0'))}`;
    expect(await this.lab.must(where, [process.execPath, INJECT, device], frame)).toBe('1\n');
  }

  noted(vm: string): Noted[] {
    const noted = new Map<number, Noted>();
    for (const line of readFileSync(this.lab.path(`${this.runDir(vm)}/journal.jsonl`), 'utf8').split('\n')) {
      const { op, thing, before } = line === '' ? ({} as never) : JSON.parse(line);
      if (thing?.kind !== 'guard') continue;
      if (op === 'add') noted.set(thing.index, { device: thing.device, before });
      else noted.delete(thing.index);
    }
    return [...noted.values()];
  }

  /** Remarks, but for those about forwarding, and about the neighbour table, which other tests may fill. */
  async open(vm: string): Promise<string[]> {
    const all = ((await this.status(vm)).remarks ?? []).map(({ what }) => what);
    return all.filter((what) => !/^forwarding |neighbour table/.test(what));
  }

  /** Echo requests that a VM or a container has got, whoever sent them. */
  async echoes(where: string): Promise<number> {
    const rows = (await this.lab.must(where, ['cat', '/proc/net/snmp']))
      .split('\n')
      .filter((row) => row.startsWith('Icmp:'));
    const [names, values] = rows.map((row) => row.split(' '));
    return Number(values?.[names?.indexOf('InEchos') ?? -1]);
  }
}
