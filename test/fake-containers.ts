/** The library of containers in memory: what the CNI plugin does to it, without a kernel. */

import type { Attachment, AttachRequest } from '../src/containers/attachment.ts';
import type { MeshRequest } from '../src/containers/cni/network.ts';
import type { CniContainers, CniLibrary } from '../src/containers/cni/plugin.ts';
import { ContainerError } from '../src/containers/reasons.ts';

export class FakeContainers implements CniContainers, CniLibrary {
  readonly capacity: number = 253;
  coolingDown = 0;
  readonly attached = new Map<string, Attachment>();
  /** What was asked, in order. */
  readonly requests: AttachRequest[] = [];
  readonly meshes: MeshRequest[] = [];
  /** Thrown instead of opening. */
  refusal: ContainerError | undefined;
  /** Whether the machine has not the VM's address. */
  isElsewhere = false;
  opened = 0;
  /** What a container is routed to, where that is not everything. */
  route: string | undefined;

  readonly slice = {
    requireContainerAt(text: string): number {
      const [, index] = /^10\.16\.32\.(\d+)$/.exec(text) ?? [];
      const container = Number(index) - 1;
      if (container >= 1 && container <= 253) return container;
      throw new ContainerError('out-of-range', `address ${text} is not one of this VM's containers`);
    },
  };

  open(request: MeshRequest): this {
    this.meshes.push(request);
    if (this.refusal) throw this.refusal;
    this.opened += 1;
    return this;
  }

  close(): void {
    this.opened -= 1;
  }

  requireVm(): void {
    if (this.isElsewhere) throw new ContainerError('no-underlay', 'this VM has not 192.168.16.32 any more');
  }

  attach(request: AttachRequest): Attachment {
    this.requests.push(request);
    const { id = '', ifname = 'eth0', container = this.attached.size + 90, mac } = request;
    const key = `${id} ${ifname}`;
    if (this.attached.has(key)) throw new ContainerError('attached', `container ${id} is attached as ${ifname}`);
    const attachment: Attachment = {
      ...{ container, id, ifname, address: `10.16.32.${container + 1}`, gateway: '10.16.32.1' },
      ...{ hostInterface: 'inlabcdefghijkl', hostMac: '02:00:00:00:00:01', mtu: 1476, netns: 4026532000, since: 1 },
      mac: Array.from(mac ?? [2, 0, 0, 0, 0, container], (byte) => byte.toString(16).padStart(2, '0')).join(':'),
      ...(this.route !== undefined && { route: this.route }),
    };
    this.attached.set(key, attachment);
    return attachment;
  }

  detach(target: { id: string; ifname: string }): Attachment | undefined {
    return this.detachAll([target])[0];
  }

  detachAll(targets: readonly { id: string; ifname: string }[]): Attachment[] {
    return targets.flatMap(({ id, ifname }) => {
      const found = this.attached.get(`${id} ${ifname}`);
      this.attached.delete(`${id} ${ifname}`);
      return found ?? [];
    });
  }

  check({ id, ifname }: { id: string; ifname: string }): Attachment {
    const found = this.attached.get(`${id} ${ifname}`);
    if (!found) throw new ContainerError('not-attached', `container ${id}: no interface ${ifname} is attached`);
    return found;
  }

  list(): Attachment[] {
    return [...this.attached.values()];
  }

  usage(): { capacity: number; inUse: number; coolingDown: number } {
    return { capacity: this.capacity, inUse: this.attached.size, coolingDown: this.coolingDown };
  }
}
