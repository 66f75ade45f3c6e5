/**
 * The core's memory layout, which docs/abi.md describes. Compiled by asc and by tsc: constants only, no imports, no types.
 * Numbers in memory are little-endian; bytes of packets and `peer` are in network order.
 */

/** Changes whenever a host that was written for an older layout would go wrong. */
export const ABI_VERSION = 5;

// Capacities.

/** Most packets that one call handles. */
export const BATCH_SIZE = 128;
/** Bytes kept free before each packet, so that outer headers are written in place. */
export const HEADROOM = 64;
/** Bytes in one packet slot: headroom and 64 KiB. An odd number of cache lines spreads the slots over the cache's sets. */
export const SLOT_SIZE = 66112;
export const MAX_MAPPINGS = 16;
/** Most messages that one call makes, but for replies. */
export const MESSAGES = 1024;
/** GRE-in-UDP: a message belongs to one of up to so many source ports, each of which has the same share of the messages. */
export const MAX_PORTS = 8;
export const MESSAGES_PER_PORT = MESSAGES / MAX_PORTS;
/** Replies, the ICMP messages to containers, are the messages of a port of their own, behind all others. */
export const REPLY_PORT = MESSAGES / MESSAGES_PER_PORT;
export const ALL_MESSAGES = MESSAGES + MESSAGES_PER_PORT;
/** Most packets that one message carries: what Linux takes for UDP_SEGMENT since it has it (UDP_MAX_SEGMENTS, <linux/udp.h>). */
export const PACKETS_PER_MESSAGE = 64;
export const IOVS_PER_MESSAGE = 2 * PACKETS_PER_MESSAGE;

// What a super-packet may be cut into. The smaller its segments, the more packets and bytes it becomes: those that no stack sends are an attack.

/** Bytes; TCP segments are usually of 536 and more (RFC 9293 §3.7.1), of 500 where the path MTU is Linux's least, 552 with time stamps. */
export const LEAST_TCP_SEGMENT = 128;
/** Bytes; what sends UDP super-packets is QUIC, with 1,200 and more (RFC 9000 §14.1). */
export const LEAST_UDP_SEGMENT = 64;
/** What 64 KiB become of the least size. */
export const MAX_SEGMENTS = 512;
/** What Linux takes from an application (UDP_MAX_SEGMENTS, <linux/udp.h>). */
export const MAX_UDP_SEGMENTS = 128;

/** Flows that can be merged side by side. */
export const MERGE_BUCKETS = 64;
/** Headers of cut packets, in one call. */
export const HEADER_BLOCKS = 1024;
/** The tunnel table is set-associative: `TUNNEL_SETS` sets of `TUNNEL_WAYS` tunnels. */
export const TUNNEL_WAYS = 8;
export const TUNNEL_SETS_LOG2 = 14;
export const TUNNEL_SETS = 1 << TUNNEL_SETS_LOG2;
export const TUNNEL_CAPACITY = TUNNEL_SETS * TUNNEL_WAYS;

// Records: size, and the offset of each field in bytes.

/** What the host read: where it is, how long it is, what became of it, the remote VM, how it is divided, and of what it was merged. */
export const DESCRIPTOR_SIZE = 32;
export const DESCRIPTOR_ADDRESS = 0; // u32
export const DESCRIPTOR_LENGTH = 4; // u32, bytes
export const DESCRIPTOR_VERDICT = 8; // i32
export const DESCRIPTOR_PEER = 12; // 4 bytes, network order, as in struct in_addr
export const DESCRIPTOR_SEGMENT = 16; // u32, bytes of each GRE-in-UDP datagram; 0: one packet with its outer IPv4 header
export const DESCRIPTOR_TOS = 20; // u32, type of service of the outer IPv4 header of these datagrams
export const DESCRIPTOR_MERGED = 24; // u32, inbound: bytes of payload of each packet that the inner one was merged from; 0: the host does not know
/** DESCRIPTOR_MERGED of a packet that the host knows to be as it was sent. */
export const NOT_MERGED = 0xffffffff;

/** What `configure` and `attach` were told. */
export const CONFIG_SIZE = 64;
export const CONFIG_LOCAL = 0; // u32, this VM's underlay address
export const CONFIG_OPTIONS = 4; // u32, OPTION_ bits
export const CONFIG_KEY = 8; // u32
export const CONFIG_TTL = 12; // u32
export const CONFIG_MAPPINGS = 16; // u32, mappings in use
export const CONFIG_ENCAPSULATION = 20; // u32
export const CONFIG_OFFLOADS = 24; // u32, OFFLOAD_ bits
export const CONFIG_PORTS = 28; // u32, source ports in use
export const CONFIG_BASE = 32; // u64, address of this memory in the host's process
export const CONFIG_MTU = 40; // i32, bytes of the longest inner packet that fits the underlay
export const CONFIG_DSCP = 44; // u32
export const CONFIG_OVERHEAD = 48; // u32, bytes that the outer headers add to a packet on the wire

/** One mapping, derived once so that a packet needs only masks and one shift. */
export const MAPPING_SIZE = 64;
export const MAPPING_OVERLAY = 0; // 4 x u32, most significant first; IPv4 uses the first
export const MAPPING_OVERLAY_MASK = 16; // 4 x u32
export const MAPPING_UNDERLAY = 32; // u32
export const MAPPING_FIRST_VM = 36; // u32, the lowest underlay address that a VM can have
export const MAPPING_VM_MASK = 40; // u32, the low k bits: those that vary between VMs
export const MAPPING_CONTAINER_BITS = 44; // u32, c
export const MAPPING_INDEX_MASK = 48; // u32, the low c bits
export const MAPPING_VMS = 52; // u32, how many underlay addresses from the first on a VM can have

/** What the core counts in one direction. All f64: exact up to 2^53, and the same in every host language. */
export const COUNTERS_SIZE = 512;
export const COUNTERS_RECEIVED = 0; // f64, packets
export const COUNTERS_FORWARDED = 8; // f64, packets
export const COUNTERS_BYTES = 16; // f64, bytes of the forwarded inner packets
/** The counter of drop reason r is at COUNTERS_DROPS + 8 * -r. */
export const COUNTERS_DROPS = 24; // 53 x f64
export const COUNTERS_REPLIES = 448; // f64, ICMP messages made
export const COUNTERS_SUPPRESSED = 456; // f64, ICMP messages not made because there were too many
export const COUNTERS_ANOMALIES = 464; // f64, forwarded packets with a combination of ECN fields that should not occur

/** Which tunnels the last call opened, closed, and learnt something about. */
export const CHANGES_TUNNELS = 0; // u32, tunnels open now
export const CHANGES_OPENED = 4; // u32, entries in the list of opened tunnels
export const CHANGES_CLOSED = 8; // u32, entries in the list of closed tunnels
export const CHANGES_LEARNT = 12; // u32, entries in the list of tunnels whose path MTU or reachability has changed
export const CHANGES_OPENED_LIST = 16; // BATCH_SIZE x u32, underlay addresses
export const CHANGES_CLOSED_LIST = 16 + 4 * BATCH_SIZE; // BATCH_SIZE x u32
export const CHANGES_LEARNT_LIST = 16 + 8 * BATCH_SIZE; // BATCH_SIZE x { u32 underlay address, u16 path MTU, u16 unreachable }
export const CHANGES_SIZE = 16 + 16 * BATCH_SIZE;

/** One tunnel. Its key, the remote VM's underlay address, is in the array of keys; 0 there means free. */
export const TUNNEL_SIZE = 64;
export const TUNNEL_PATH_MTU_UNTIL = 0; // u32, s
export const TUNNEL_UNREACHABLE_UNTIL = 4; // u32, s
export const TUNNEL_LAST_USE = 8; // f64, ms
export const TUNNEL_OUTBOUND_PACKETS = 16; // f64
export const TUNNEL_OUTBOUND_BYTES = 24; // f64
export const TUNNEL_INBOUND_PACKETS = 32; // f64
export const TUNNEL_INBOUND_BYTES = 40; // f64
export const TUNNEL_PATH_MTU = 48; // u16, bytes that an outer packet may have; 0: as many as the underlay
export const TUNNEL_UNREACHABLE = 50; // u16, 1 + the code of the ICMP message that said so; 0: nothing is known against it
export const TUNNEL_IDENTIFICATION = 52; // u16, that of the last outer packet, where packets may be fragmented
export const TUNNEL_LEASE = 54; // u16, the low bits of the second at which the lease ends, where nothing was heard of the VM
export const TUNNEL_SEQUENCE_OUT = 56; // u32, that of the next packet
export const TUNNEL_SEQUENCE_IN = 60; // u32, the lowest that the next packet may have; 0: any

/**
 * One message: `struct mmsghdr` of 64-bit Linux (<linux/socket.h>, sendmmsg(2)). Its pointers are CONFIG_BASE plus a place in this memory, and stay the same:
 * message i has name i, control i, and iovecs from IOVS_PER_MESSAGE * i on.
 */
export const MESSAGE_SIZE = 64;
export const MESSAGE_NAME = 0; // u64, pointer to a name
export const MESSAGE_NAME_LENGTH = 8; // u32
export const MESSAGE_IOV = 16; // u64, pointer to the first iovec
export const MESSAGE_IOV_COUNT = 24; // u64
export const MESSAGE_CONTROL = 32; // u64, pointer to a control
export const MESSAGE_CONTROL_LENGTH = 40; // u64, bytes; 0 if the message is one datagram or packet
export const MESSAGE_LENGTH = 56; // u32, bytes in all iovecs

/** `struct iovec` (<linux/uio.h>). */
export const IOV_SIZE = 16;
export const IOV_BASE = 0; // u64, pointer
export const IOV_LENGTH = 8; // u64, bytes

/** `struct sockaddr_in` (<linux/in.h>). */
export const NAME_SIZE = 16;
export const NAME_FAMILY = 0; // u16, AF_INET
export const NAME_PORT = 2; // u16, network order
export const NAME_ADDRESS = 4; // 4 bytes, network order

/**
 * Three control messages, each a `struct cmsghdr` (<linux/socket.h>), its value and padding: UDP_SEGMENT (<linux/udp.h>), IP_TOS and IP_TTL
 * (<linux/in.h>). A message takes the first, the first two, or all.
 */
export const CONTROL_SIZE = 80;
export const CONTROL_ITEM_SIZE = 24;
export const CONTROL_LENGTH = 0; // u64
export const CONTROL_LEVEL = 8; // i32
export const CONTROL_TYPE = 12; // i32
export const CONTROL_SEGMENT = 16; // u16, bytes of each datagram; 0 if there is one
export const CONTROL_TOS = 40; // i32
export const CONTROL_TTL = 64; // i32

/** What a message carries, for `refuse` if it cannot be sent, and where it goes. */
export const CONTENT_SIZE = 16;
export const CONTENT_PACKETS = 0; // u32, inner packets
export const CONTENT_BYTES = 4; // u32, bytes of the inner packets
export const CONTENT_FLAGS = 8; // u32, FLAG_ bits
export const CONTENT_PACKET = 12; // u32, outbound: where the container's packet lies that the message is made of, or begins with; else 0
/** An outbound super-packet that is to be written to the overlay device. */
export const FLAG_WHOLE = 1;
/** Outbound: it goes to a VM that nothing was ever heard of. */
export const FLAG_UNHEARD = 2;

/** `struct virtio_net_hdr` (<linux/virtio_net.h>), little-endian, which a TUN device with IFF_VNET_HDR puts before each packet. */
export const VIRTIO_SIZE = 10;
export const VIRTIO_FLAGS = 0; // u8
export const VIRTIO_GSO_TYPE = 1; // u8
export const VIRTIO_HEADER_LENGTH = 2; // u16
export const VIRTIO_GSO_SIZE = 4; // u16
export const VIRTIO_CHECKSUM_START = 6; // u16
export const VIRTIO_CHECKSUM_OFFSET = 8; // u16

/** Room for the outer headers and the inner IPv4 and TCP headers of one packet: 20 + 16 + 60 + 60 bytes, in whole cache lines. */
export const HEADER_BLOCK_SIZE = 192;

/** One reply but for what it quotes: virtio header, IPv4 header and ICMP header. */
export const REPLY_SIZE = 64;
export const REPLY_VIRTIO = 6; // 10 bytes
export const REPLY_IPV4 = 16; // 20 bytes
export const REPLY_ICMP = 36; // 8 bytes

// How many replies are made: a token bucket for all, and one for each source, or rather for those that have the same low bits.

export const REPLY_INTERVAL = 1; // ms
export const REPLY_BURST = 50;
export const REPLY_SOURCE_INTERVAL = 100; // ms
export const REPLY_SOURCE_BURST = 10;

// What one source may take from the others: of replies, tunnels and work. Sources are told apart by the low bits of their addresses: in slices of up to 13
// container bits, no container shares those with another.

export const SOURCES_LOG2 = 13;

// How many tunnels a source opens to VMs that were never heard from: each is leased, and each lease takes a token.

export const LEASE_LIFETIME = 4; // s
export const LEASE_INTERVAL = 15.625; // ms
export const LEASE_BURST = 256;

/** What one source has had of the VM's work while it was busy. */
export const SHARE_SIZE = 16;
export const SHARE_HEIGHT = 0; // f64, units of work
export const SHARE_DEMAND = 8; // u32, units that wait, during `share`
export const SHARE_NEXT = 12; // u32, 1 + the next source that was met, during `share`
/** What all sources of one direction have had, and behind them what is common to them. */
export const SHARES_LEVEL = SHARE_SIZE << SOURCES_LOG2; // f64, the height up to which packets go on; 0: any
export const SHARES_TOP = SHARES_LEVEL + 8; // f64, the greatest height
export const SHARES_FIRST = SHARES_LEVEL + 16; // u32, 1 + the source that was met last, during `share`
export const SHARES_SOURCES = SHARES_LEVEL + 20; // u32, how many were met, during `share`
export const SHARES_WORK = SHARES_LEVEL + 24; // u32, what they want together, during `share`
export const SHARES_SIZE = SHARES_LEVEL + 64;
/** A source that has had less is at most so many units behind the greatest height: what it may send at once after a pause. */
export const SHARE_WINDOW = 4096;
/** A batch of so little work is never cut down. */
export const LEAST_WORK = 32;
/** Bytes, and segments, that are as much work as a packet is by itself. */
export const WORK_BYTES_LOG2 = 15;
export const WORK_SEGMENTS_LOG2 = 6;
/** Most segments that count as work. */
export const MAX_WORK_SEGMENTS = 512;

/** s; to look for a larger one no sooner than after "10 minutes" is what RFC 1191 §6.3 recommends; and one more, since seconds are cut off. */
export const PATH_MTU_LIFETIME = 601;
/** Bytes; a path MTU is never taken for less. Anybody can forge what says so, so Linux has the same floor (net.ipv4.route.min_pmtu). */
export const LEAST_PATH_MTU = 552;
/** s that an ICMP message which says that a VM is unreachable is believed. */
export const UNREACHABLE_LIFETIME = 30;

// What packets look like on the underlay.

export const ENCAPSULATION_GRE = 0;
export const ENCAPSULATION_GRE_UDP = 1;
/** Destination port of GRE-in-UDP (RFC 8086 §3.2.2; IANA: gre-in-udp). */
export const GRE_UDP_PORT = 4754;

// What `configure` is told.

/** Packets carry a GRE key (RFC 2890 §2.1). */
export const OPTION_KEY = 1;
/** Outbound packets carry a GRE checksum (RFC 2784 §2.5). */
export const OPTION_CHECKSUM = 2;
/** Packets carry sequence numbers; those that do not, or come out of order, are dropped (RFC 2890 §2.2). */
export const OPTION_SEQUENCE = 4;
/** The outer time to live is the inner one. */
export const OPTION_TTL_INHERIT = 8;
/** The outer ECN field is Not-ECT (RFC 6040 §4.1, compatibility mode), not the inner one. */
export const OPTION_ECN_COMPATIBILITY = 16;
/** The inner DSCP is copied to the outer header and back (RFC 2983 §3.1, uniform model). */
export const OPTION_DSCP_UNIFORM = 32;
/** Routers may fragment outer packets: don't-fragment is not set. */
export const OPTION_MAY_FRAGMENT = 64;
/** The maximum segment size that TCP announces is lowered to what fits the tunnel. */
export const OPTION_CLAMP_MSS = 128;

// What the host's devices can do.

/** Overlay packets begin with a virtio header: super-packets come in and go out. */
export const OFFLOAD_VIRTIO = 1;
/** A message may carry several GRE-in-UDP datagrams. */
export const OFFLOAD_UDP_SEGMENT = 2;
/** Super-packets may be UDP (VIRTIO_NET_HDR_GSO_UDP_L4). */
export const OFFLOAD_UDP_MERGE = 4;
/** The kernel takes a super-packet of GRE, written to the overlay device, and cuts it where it has to. */
export const OFFLOAD_GRE_SEGMENT = 8;

// Addresses. The first page part stays unused, so that no valid address is 0.

export const CONFIG = 1024;
export const MAPPINGS = CONFIG + CONFIG_SIZE;
export const OUTBOUND_COUNTERS = MAPPINGS + MAPPING_SIZE * MAX_MAPPINGS;
export const INBOUND_COUNTERS = OUTBOUND_COUNTERS + COUNTERS_SIZE;
/** Counters of ICMP messages from the underlay. */
export const ICMP_COUNTERS = INBOUND_COUNTERS + COUNTERS_SIZE;
export const CHANGES = ICMP_COUNTERS + COUNTERS_SIZE;
/** One u32 for each port and one for replies: how many messages the last call made. */
export const MESSAGE_COUNTS = CHANGES + CHANGES_SIZE;
/** What the core notes during one call: of no use to a host. */
export const SCRATCH = 8192;
export const SCRATCH_SIZE = 8192;
/** f64, ms: when the bucket is full again. One for the low bits of a source, and the last for all; once for what the core finds itself, once for what it passes on. */
export const REPLY_BUCKETS = SCRATCH + SCRATCH_SIZE;
export const BUCKET_OF_ALL = 8 * (1 << SOURCES_LOG2);
export const RELAY_BUCKETS = REPLY_BUCKETS + BUCKET_OF_ALL + 64;
export const REPLIES = RELAY_BUCKETS + BUCKET_OF_ALL + 64;
export const DESCRIPTORS = REPLIES + REPLY_SIZE * MESSAGES_PER_PORT;
export const CONTENTS = DESCRIPTORS + DESCRIPTOR_SIZE * BATCH_SIZE;
export const NAMES = CONTENTS + CONTENT_SIZE * ALL_MESSAGES;
export const CONTROLS = NAMES + NAME_SIZE * ALL_MESSAGES;
export const MESSAGE_TABLE = CONTROLS + CONTROL_SIZE * ALL_MESSAGES;
export const IOVS = MESSAGE_TABLE + MESSAGE_SIZE * ALL_MESSAGES;
export const HEADERS = IOVS + IOV_SIZE * IOVS_PER_MESSAGE * ALL_MESSAGES;
/** f64, ms, as REPLY_BUCKETS: one for each source. */
export const LEASE_BUCKETS = HEADERS + HEADER_BLOCK_SIZE * HEADER_BLOCKS;
export const OUTBOUND_SHARES = LEASE_BUCKETS + (8 << SOURCES_LOG2);
export const INBOUND_SHARES = OUTBOUND_SHARES + SHARES_SIZE;
export const TUNNEL_KEYS = INBOUND_SHARES + SHARES_SIZE;
export const TUNNELS = TUNNEL_KEYS + 4 * TUNNEL_CAPACITY;
export const SLOTS = TUNNELS + TUNNEL_SIZE * TUNNEL_CAPACITY;
/** 64 KiB pages; the memory never grows, so views of it stay valid. */
export const MEMORY_PAGES = 315;
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
export const DROP_BAD_OFFLOAD = -24;
export const DROP_TOO_BIG = -25;
export const DROP_NESTED_GRE = -26;
export const DROP_GRE_SEQUENCE = -27;
export const DROP_ECN = -28;
export const DROP_ICMP_CHECKSUM = -29;
export const DROP_FOREIGN_ICMP = -30;
export const DROP_MERGED = -31;
export const DROP_TINY_SEGMENTS = -32;
export const DROP_TOO_MANY_TUNNELS = -33;
export const DROP_OVER_SHARE = -34;
/** Given by the kernel data plane's programs, not by the core. */
export const DROP_DIVERTED = -35;
/** One more than the number of drop reasons. */
export const VERDICTS = 36;
