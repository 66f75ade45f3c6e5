/**
 * The core's memory layout, drawn in docs/abi.md. Compiled by asc and by tsc: constants only, no imports, no types.
 * Numbers in memory are little-endian; bytes of packets and `peer` are in network order.
 */

/** Changes whenever a host that was written for an older layout would go wrong. */
export const ABI_VERSION = 1;

// Capacities.

/** Most packets that one call handles. */
export const BATCH_SIZE = 128;
/** Bytes kept free before each packet, so that outer headers are written in place. */
export const HEADROOM = 64;
/** Bytes in one packet slot: headroom and 64 KiB. An odd number of cache lines spreads the slots over the cache's sets. */
export const SLOT_SIZE = 66112;
export const MAX_MAPPINGS = 16;
/** The tunnel table is set-associative: `TUNNEL_SETS` sets of `TUNNEL_WAYS` tunnels. */
export const TUNNEL_WAYS = 8;
export const TUNNEL_SETS_LOG2 = 14;
export const TUNNEL_SETS = 1 << TUNNEL_SETS_LOG2;
export const TUNNEL_CAPACITY = TUNNEL_SETS * TUNNEL_WAYS;

// Records: size, and the offset of each field in bytes.

/** One packet: where it is, how long it is, what became of it, and the remote VM. */
export const DESCRIPTOR_SIZE = 16;
export const DESCRIPTOR_ADDRESS = 0; // u32
export const DESCRIPTOR_LENGTH = 4; // u32, bytes
export const DESCRIPTOR_VERDICT = 8; // i32
export const DESCRIPTOR_PEER = 12; // 4 bytes, network order, as in struct in_addr

/** What `configure` was told. */
export const CONFIG_SIZE = 32;
export const CONFIG_LOCAL = 0; // u32, this VM's underlay address
export const CONFIG_KEYED = 4; // u32, 1 if packets carry the key
export const CONFIG_KEY = 8; // u32
export const CONFIG_TTL = 12; // u32
export const CONFIG_MAPPINGS = 16; // u32, mappings in use

/** One mapping, derived once so that a packet needs only masks and one shift. */
export const MAPPING_SIZE = 64;
export const MAPPING_OVERLAY = 0; // 4 x u32, most significant first; IPv4 uses the first
export const MAPPING_OVERLAY_MASK = 16; // 4 x u32
export const MAPPING_UNDERLAY = 32; // u32
export const MAPPING_UNDERLAY_MASK = 36; // u32
export const MAPPING_VM_MASK = 40; // u32, the low k bits: those that vary between VMs
export const MAPPING_CONTAINER_BITS = 44; // u32, c
export const MAPPING_INDEX_MASK = 48; // u32, the low c bits

/** What the core counts in one direction. All f64: exact up to 2^53, and the same in every host language. */
export const COUNTERS_SIZE = 512;
export const COUNTERS_RECEIVED = 0; // f64, packets
export const COUNTERS_FORWARDED = 8; // f64, packets
export const COUNTERS_BYTES = 16; // f64, bytes of the forwarded inner packets
/** The counter of drop reason r is at COUNTERS_DROPS + 8 * -r. */
export const COUNTERS_DROPS = 24; // 60 x f64

/** Which tunnels the last call opened and closed. */
export const CHANGES_TUNNELS = 0; // u32, tunnels open now
export const CHANGES_OPENED = 4; // u32, entries in the list of opened tunnels
export const CHANGES_CLOSED = 8; // u32, entries in the list of closed tunnels
export const CHANGES_OPENED_LIST = 16; // BATCH_SIZE x u32, underlay addresses
export const CHANGES_CLOSED_LIST = 16 + 4 * BATCH_SIZE; // BATCH_SIZE x u32
export const CHANGES_SIZE = 16 + 8 * BATCH_SIZE;

/** One tunnel. Its key, the remote VM's underlay address, is in the array of keys; 0 there means free. */
export const TUNNEL_SIZE = 64;
export const TUNNEL_FIRST_USE = 0; // f64, ms
export const TUNNEL_LAST_USE = 8; // f64, ms
export const TUNNEL_OUTBOUND_PACKETS = 16; // f64
export const TUNNEL_OUTBOUND_BYTES = 24; // f64
export const TUNNEL_INBOUND_PACKETS = 32; // f64
export const TUNNEL_INBOUND_BYTES = 40; // f64

// Addresses. The first page part stays unused, so that no valid address is 0.

export const CONFIG = 1024;
export const MAPPINGS = CONFIG + CONFIG_SIZE;
export const OUTBOUND_COUNTERS = MAPPINGS + MAPPING_SIZE * MAX_MAPPINGS;
export const INBOUND_COUNTERS = OUTBOUND_COUNTERS + COUNTERS_SIZE;
export const CHANGES = INBOUND_COUNTERS + COUNTERS_SIZE;
export const DESCRIPTORS = CHANGES + CHANGES_SIZE;
export const TUNNEL_KEYS = 8192;
export const TUNNELS = TUNNEL_KEYS + 4 * TUNNEL_CAPACITY;
export const SLOTS = TUNNELS + TUNNEL_SIZE * TUNNEL_CAPACITY;
/** 64 KiB pages; the memory never grows, so views of it stay valid. */
export const MEMORY_PAGES = 266;
export const MEMORY_SIZE = MEMORY_PAGES << 16;

// Verdicts: 0 forwards, a negative number is the drop reason. src/core/verdict.ts names and explains them.

export const FORWARD = 0;
export const DROP_BAD_DESCRIPTOR = -1;
export const DROP_TRUNCATED = -2;
export const DROP_NOT_IPV4 = -3;
export const DROP_BAD_HEADER_LENGTH = -4;
export const DROP_BAD_TOTAL_LENGTH = -5;
export const DROP_BAD_HEADER_CHECKSUM = -6;
export const DROP_FOREIGN_SOURCE = -7;
export const DROP_NO_MAPPING = -8;
export const DROP_OWN_SLICE = -9;
export const DROP_RESERVED_ADDRESS = -10;
export const DROP_TOO_LONG = -11;
export const DROP_NOT_GRE = -12;
export const DROP_FRAGMENT = -13;
export const DROP_NOT_FOR_US = -14;
export const DROP_FOREIGN_UNDERLAY = -15;
export const DROP_GRE_VERSION = -16;
export const DROP_GRE_FLAGS = -17;
export const DROP_GRE_CHECKSUM = -18;
export const DROP_GRE_PROTOCOL = -19;
export const DROP_GRE_KEY = -20;
export const DROP_SPOOFED_SOURCE = -21;
export const DROP_FOREIGN_DESTINATION = -22;
/** Given by the host, not by the core: the device or socket did not take the packet. */
export const DROP_NOT_WRITTEN = -23;
/** One more than the number of drop reasons. */
export const VERDICTS = 24;
