/** The library: containers attached and detached from any program on the VM. */
export type { Attachment, AttachRequest } from './attachment.ts';
export { Containers } from './containers.ts';
export type { Target } from './found.ts';
export type { ContainerStatus } from './list.ts';
export { type Mesh, readMesh, requireMesh } from './mesh.ts';
export { ContainerError, REASONS, type ReasonName } from './reasons.ts';
