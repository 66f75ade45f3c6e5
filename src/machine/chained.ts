/** Containers that CNI's plugin attaches, by their ids: other plugins may come behind ours. */

/** How such ids begin. */
export const CNI_PREFIX = 'cni:';

/** Whether a plugin behind ours may make a discipline of its own at the container's device. */
export function isChainedId(id: string): boolean {
  return id.startsWith(CNI_PREFIX);
}
