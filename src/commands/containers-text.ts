/** `containers` for people. */
import type { ContainerStatus } from '../containers/list.ts';
import { table } from './table.ts';
import { count, duration } from './units.ts';

const HEAD = ['CONTAINER', 'ADDRESS', 'NAMESPACE', 'INTERFACE', 'ID', 'SENT', 'RECEIVED', 'ATTACHED'];

export interface ContainersStatus {
  capacity: number;
  inUse: number;
  coolingDown: number;
  containers: readonly ContainerStatus[];
}

/** `now` in ms since 1970. */
export function containersText({ capacity, inUse, coolingDown, containers }: ContainersStatus, now: number): string {
  const summary = `${count(inUse)} of ${count(capacity)} addresses in use, ${count(coolingDown)} cooling down`;
  if (containers.length === 0) return summary;
  const rows = containers.map((each) => [
    ...[each.container, each.address, namespaceOf(each), each.ifname, each.id],
    ...[each.sentPackets, each.receivedPackets, `${duration(now / 1000 - each.since)} ago`],
  ]);
  return `${table([HEAD, ...rows])}\n\n${summary}`;
}

/** docker chooses it when the interface has been made: nobody notes it. */
function namespaceOf({ namespace, netns }: ContainerStatus): string {
  return namespace || (netns === 0 ? '-' : `inode ${netns}`);
}
