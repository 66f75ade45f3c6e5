/** The library: containers attached and detached from any program on the VM. */
export { type Attachment, type AttachRequest, Containers, type Target } from './containers.ts';
export type { ContainerStatus } from './list.ts';
export { type Mesh, readMesh, requireMesh } from './mesh.ts';
export { ContainerError, REASONS, type ReasonName } from './reasons.ts';
