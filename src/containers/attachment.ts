/** What attaching is asked for, and what it answers. */

/** What to attach. */
export interface AttachRequest {
  /** Name (of `ip netns`), path or process id. */
  netns: string;
  /** Interface in the container; eth0 unless given. */
  ifname?: string;
  /** 1 to 256 printable characters; unless given, the namespace's own number. */
  id?: string;
  /** Number of the container; unless given, the next free one. */
  container?: number;
  /** Link-layer address of the interface, 6 bytes; unless given, it follows from id and ifname. */
  mac?: Uint8Array;
}

/** A container on the mesh. */
export interface Attachment {
  /** Number: the index of its address less one; 0 if the address is of another mesh. */
  container: number;
  /** Overlay address, such as 10.16.32.91. */
  address: string;
  /** The VM's own overlay address. */
  gateway: string;
  id: string;
  ifname: string;
  /** The host's end of the veth. */
  hostInterface: string;
  /** Link-layer addresses, such as 02:0a:... */
  mac: string;
  hostMac: string;
  /** Bytes. */
  mtu: number;
  /** Inode of the network namespace. */
  netns: number;
  /** Seconds since 1970. */
  since: number;
  /** What the gateway is the way to, as attaching made it: 0.0.0.0/0, or the overlay beside another network. */
  route?: string;
}
