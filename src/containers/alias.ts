/**
 * What a container's device says about it: the alias of the host's end of its veth, the name, and the
 * link-layer addresses, which all follow from the container's id and the name of its interface.
 */
import { hash } from 'node:crypto';
import { CONTAINER_PREFIX } from '../machine/alias.ts';

/** The group of all hosts' ends: also of those that were never finished. */
export const CONTAINER_GROUP = 74;
/** The group of links whose containers are being detached. Nobody else chooses such a number: "inly" in ASCII. */
export const DETACHED_GROUP = 0x696e6c79;
/** Of those that have given their addresses back: one message deletes all that are in the group, whoever put them there. */
export const RELEASED_GROUP = 0x696e6c7a;

/** Whether the link is one that is about to go. */
export function isGoingGroup(group: number | undefined): boolean {
  return group === DETACHED_GROUP || group === RELEASED_GROUP;
}

/** Bytes of an alias, at most (IFALIASZ in <linux/if.h>, without the final zero). */
const MAX_LENGTH = 255;
/** Bytes of the id that the alias holds; of a longer one it holds the beginning, and a hash. */
const MAX_ID = 160;
const HASHED = 17;
/** RFC 4648 section 6, in small letters. */
const BASE32 = 'abcdefghijklmnopqrstuvwxyz234567';
/** A link's name has 15 characters at most. */
const NAME = { prefix: 'inl', characters: 12 };

/** What makes a container's interface this one: who has the same is the same. */
export interface Identity {
  id: string;
  /** Name of the interface in the container. */
  ifname: string;
}

/** What the alias of a whole attachment tells: it is written last, so a link without one was never finished. */
export interface ContainerAlias extends Identity {
  /** The container's address in text: it tells the mesh, too, of which there may be several on a machine. */
  address: string;
  /** Inode of the container's network namespace. */
  netns: number;
  /** Seconds since 1970. */
  since: number;
}

export function aliasOf({ address, ifname, netns, since, id }: ContainerAlias): string {
  return `${CONTAINER_PREFIX}${address} ${ifname} ${netns} ${since} ${shortId(id)}`;
}

/** What an alias tells; undefined if it is not one of a container. */
export function containerOf(alias: string | undefined): ContainerAlias | undefined {
  if (alias === undefined || !alias.startsWith(CONTAINER_PREFIX) || alias.length > MAX_LENGTH) return undefined;
  const parts = /^(\d{1,3}(?:\.\d{1,3}){3}) (\S{1,15}) (\d{1,12}) (\d{1,12}) (.+)$/s.exec(
    alias.slice(CONTAINER_PREFIX.length),
  );
  if (!parts) return undefined;
  const [, address = '', ifname = '', netns, since, id = ''] = parts;
  return { address, ifname, netns: Number(netns), since: Number(since), id };
}

/** Whether the alias is that of this container's interface. */
export function isAliasOf(alias: ContainerAlias, { id, ifname }: Identity): boolean {
  return alias.ifname === ifname && alias.id === shortId(id);
}

/** docker names the interface when it moves it: eth0, or eth1 beside another. */
export const DOCKER_IFNAME = 'eth';
/** Who had the address of an endpoint of docker: one of them. Their ids are other ones each time. */
export const DOCKER = 1;

/** A number for a container's interface, never 0: what a tombstone tells of who had the address. */
export function holderOf({ id, ifname }: Identity): number {
  if (ifname === DOCKER_IFNAME) return DOCKER;
  return hash('sha256', `${shortId(id)}\0${ifname}`, 'buffer').readUInt32LE() || 1;
}

function shortId(id: string): string {
  if (Buffer.byteLength(id) <= MAX_ID) return id;
  const end = hash('sha256', id).slice(0, HASHED - 1);
  // Of a character of several bytes that is cut, nothing stays.
  const start = Buffer.from(id)
    .subarray(0, MAX_ID - HASHED)
    .toString()
    .replace(/\uFFFD+$/, '');
  return `${start}~${end}`;
}

/** The names and addresses of both ends. */
export interface Names {
  hostInterface: string;
  hostMac: Uint8Array;
  mac: Uint8Array;
}

export function namesOf({ id, ifname }: Identity): Names {
  const digest = hash('sha256', `${id}\0${ifname}`, 'buffer');
  let hostInterface: string = NAME.prefix;
  for (let i = 0; i < NAME.characters; i++) hostInterface += BASE32[(digest[i] as number) & 31];
  return {
    hostInterface,
    hostMac: localMac(digest.subarray(12, 18)),
    mac: localMac(digest.subarray(18, 24)),
  };
}

/** An address of one device that nobody has assigned (IEEE 802: the bit of groups clear, that of local ones set). */
function localMac(bytes: Uint8Array): Uint8Array {
  const mac = Uint8Array.from(bytes);
  mac[0] = ((mac[0] as number) & 0xfc) | 0x02;
  return mac;
}

/** Whether a device may be a container's, by its name. */
export function isContainerName(name: string): boolean {
  return name.startsWith(NAME.prefix) && name.length === NAME.prefix.length + NAME.characters;
}

export function macText(mac: Uint8Array): string {
  return Array.from(mac, (byte) => byte.toString(16).padStart(2, '0')).join(':');
}
