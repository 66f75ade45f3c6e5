/** docker's endpoints on this VM, as its drivers use them. All of it is in the kernel: an object lasts for one request. */
export interface EndpointStore {
  /** Prefix of the addresses of its containers, such as 10.16.32.0/24. */
  readonly pool: string;
  /** Prefix of the mesh, such as 10.0.0.0/8. */
  readonly overlay: string;
  /** The VM's own overlay address. */
  readonly gateway: string;
  /** Keeps an address for the endpoint that comes next: this one, or the next free one. */
  reserve(address: string | undefined): string;
  /** Gives back an address that no endpoint got. */
  release(address: string): void;
  /** Makes the endpoint with a reserved address; answers its link-layer address. Once more does no harm. */
  create(endpoint: string, address: string, mac: string | undefined): string;
  /** Name of the device that docker is to move into the container. */
  deviceOf(endpoint: string): string;
  /** Removes the endpoint, if there is one. */
  remove(endpoint: string): void;
}
