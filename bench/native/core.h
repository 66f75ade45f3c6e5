/**
 * The core's memory as C sees it: docs/abi.md, field for field. abi.h has the constants of src/core/abi.ts; bench/core/native.mjs makes it.
 */
#include <stddef.h>
#include <stdint.h>
#include "abi.h"

struct config {
  uint32_t local, options, key, ttl, mappings, encapsulation, offloads, ports;
  uint64_t base;
  int32_t mtu;
  uint32_t dscp;
  int32_t overhead;
  uint32_t unused[3];
};

struct mapping {
  uint32_t overlay[4], overlay_mask[4], underlay, first_vm, vm_mask, container_bits, index_mask, vms, unused[2];
};

struct counters {
  double received, forwarded, bytes, drops[53], replies, suppressed, anomalies, unused[5];
};

struct changes {
  uint32_t tunnels, opened, closed, learnt, opened_list[BATCH_SIZE], closed_list[BATCH_SIZE];
  struct { uint32_t vm; uint16_t path_mtu, unreachable; } learnt_list[BATCH_SIZE];
};

struct descriptor {
  uint32_t address, length;
  int32_t verdict;
  uint32_t peer, segment, tos, merged, unused;
};

struct content { uint32_t packets, bytes, flags, packet; };

struct name { uint16_t family, port; uint32_t address; uint64_t unused; };

struct control {
  uint64_t segment_length; int32_t segment_level, segment_type; uint16_t segment, unused[3];
  uint64_t tos_length; int32_t tos_level, tos_type; uint32_t tos, unused_tos;
  uint64_t ttl_length; int32_t ttl_level, ttl_type; uint32_t ttl, unused_ttl;
  uint64_t end;
};

struct message {
  uint64_t name, name_length, iov, iov_count, control, control_length;
  uint32_t flags, unused, length, end;
};

struct iov { uint64_t base, length; };

struct shares {
  struct { double height; uint32_t demand, next; } of[1 << SOURCES_LOG2];
  double level, top;
  uint32_t first, sources, work, unused[9];
};

struct tunnel {
  uint32_t path_mtu_until, unreachable_until;
  double last_use, outbound_packets, outbound_bytes, inbound_packets, inbound_bytes;
  uint16_t path_mtu, unreachable, identification, lease;
  uint32_t sequence_out, sequence_in;
};

struct core {
  uint8_t before[CONFIG];
  struct config config;
  struct mapping mappings[MAX_MAPPINGS];
  struct counters outbound, inbound, icmp;
  struct changes changes;
  uint32_t message_counts[MAX_PORTS + 1];
  uint8_t to_scratch[SCRATCH - MESSAGE_COUNTS - 4 * (MAX_PORTS + 1)];
  uint8_t scratch[DESCRIPTORS - SCRATCH]; /* and replies, which this program does not make */
  struct descriptor descriptors[BATCH_SIZE];
  struct content contents[ALL_MESSAGES];
  struct name names[ALL_MESSAGES];
  struct control controls[ALL_MESSAGES];
  struct message messages[ALL_MESSAGES];
  struct iov iovs[ALL_MESSAGES][IOVS_PER_MESSAGE];
  uint8_t headers[HEADER_BLOCKS][HEADER_BLOCK_SIZE];
  double lease_buckets[1 << SOURCES_LOG2];
  struct shares outbound_shares, inbound_shares;
  uint32_t tunnel_keys[TUNNEL_CAPACITY];
  struct tunnel tunnels[TUNNEL_CAPACITY];
  uint8_t slots[MEMORY_SIZE - SLOTS];
};

#define IS_AT(field, place) _Static_assert(offsetof(struct core, field) == (place), #field)
IS_AT(mappings, MAPPINGS);
IS_AT(inbound, INBOUND_COUNTERS);
IS_AT(changes, CHANGES);
IS_AT(message_counts, MESSAGE_COUNTS);
IS_AT(descriptors, DESCRIPTORS);
IS_AT(controls, CONTROLS);
IS_AT(messages, MESSAGE_TABLE);
IS_AT(headers, HEADERS);
IS_AT(inbound_shares, INBOUND_SHARES);
IS_AT(tunnel_keys, TUNNEL_KEYS);
IS_AT(slots, SLOTS);
