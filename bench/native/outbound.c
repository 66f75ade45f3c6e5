/**
 * The outbound half of the packet core, written plainly in C over the same memory: a measure for the WebAssembly.
 * It does for each packet what docs/core.md says of packets that go on, in the same order. What the benchmark never meets (fragments,
 * replies, GRE options, clamping, a busy VM's shares) has its tests here, too, and ends in LEFT_OUT.
 */
#include "cut.h"

enum { NO_ROOM = 1, LEFT_OUT = 99 };
enum { NEEDS_MORE = OPTION_CHECKSUM | OPTION_KEY | OPTION_SEQUENCE | OPTION_MAY_FRAGMENT | OPTION_CLAMP_MSS };

static int encapsulate_packet(struct core *c, struct call *call, struct descriptor *d, double now) {
  if (d->address < SLOTS + HEADROOM - VIRTIO_SIZE || d->address > MEMORY_SIZE) return DROP_BAD_DESCRIPTOR;
  if (d->length > MEMORY_SIZE - d->address) return DROP_BAD_DESCRIPTOR;
  struct packet k = {.p = (uint8_t *)c + d->address};
  int available = d->length;
  const uint8_t *virtio = NULL;
  if (c->config.offloads & OFFLOAD_VIRTIO) {
    if (available < VIRTIO_SIZE) return DROP_TRUNCATED;
    virtio = k.p;
    k.p += VIRTIO_SIZE;
    available -= VIRTIO_SIZE;
  }
  uint8_t *p = k.p;
  int bad = check_ipv4(p, available);
  if (bad) return bad;
  uint32_t source = get32(p + 12), destination = get32(p + 16);
  uint32_t sender = sender_of(c, source);
  if (sender == 0 || sender != c->config.local) return DROP_FOREIGN_SOURCE;
  if (c->outbound_shares.level != 0) return LEFT_OUT;
  const struct mapping *m = find_mapping(c, destination);
  uint32_t vm = m ? vm_in(m, destination) : 0;
  if (vm == 0 || vm == c->config.local || is_reserved(m, destination, vm)) return LEFT_OUT;
  if (p[9] == PROTOCOL_GRE) return DROP_NESTED_GRE;
  int segments = virtio ? check_offload(c, virtio, p) : 0;
  if (segments < 0) return segments;
  struct tunnel *t = lease_tunnel(c, vm, source, now);
  if (!t) return DROP_TOO_MANY_TUNNELS;
  if (t->path_mtu) return LEFT_OUT;
  int total = total_length(p), headers = segments ? headers_length(p) : 0;
  int size = segments ? min(virtio16(virtio, VIRTIO_GSO_SIZE), total - headers) : total;
  if (headers + size > c->config.mtu) return LEFT_OUT;
  if (c->config.options & NEEDS_MORE) return LEFT_OUT;

  int is_udp = c->config.encapsulation == ENCAPSULATION_GRE_UDP;
  int capacity = is_udp ? MESSAGES_PER_PORT : MESSAGES, messages = 1;
  int outer = is_udp ? GRE_LENGTH : IPV4_LENGTH + GRE_LENGTH;
  if (segments) {
    messages = segments;
    if (is_udp && (c->config.offloads & OFFLOAD_UDP_SEGMENT)) {
      int each = min(PACKETS_PER_MESSAGE, MAX_DATAGRAM / (outer + headers + size));
      messages = (segments + each - 1) / each;
    }
    if (messages > capacity || segments > HEADER_BLOCKS) return DROP_TOO_LONG;
  }
  k.vm = vm;
  k.port = is_udp ? ((flow_hash(p) >> 16) * c->config.ports) >> 16 : 0;
  k.tos = (c->config.options & OPTION_DSCP_UNIFORM ? p[1] & ~3 : c->config.dscp << 2) |
          (c->config.options & OPTION_ECN_COMPATIBILITY ? 0 : p[1] & 3);
  k.ttl = c->config.options & OPTION_TTL_INHERIT ? p[8] : c->config.ttl;
  k.flags = t->inbound_packets > 0 ? 0 : FLAG_UNHEARD;
  if (messages > capacity - (int)c->message_counts[k.port] || segments > HEADER_BLOCKS - call->blocks) return NO_ROOM;

  int packets = max(segments, 1), length = total + (packets - 1) * headers;
  t->outbound_packets += packets;
  t->outbound_bytes += length;
  c->outbound.received += packets;
  c->outbound.forwarded += packets;
  c->outbound.bytes += length;
  d->peer = __builtin_bswap32(vm);
  if (segments > 1 && (c->config.offloads & OFFLOAD_GRE_SEGMENT)) return LEFT_OUT;
  if (segments) {
    send_cut(c, call, &k, headers, size, segments);
    return FORWARD;
  }
  if (virtio && virtio[VIRTIO_FLAGS] & NEEDS_CHECKSUM) {
    int start = virtio16(virtio, VIRTIO_CHECKSUM_START), field = start + virtio16(virtio, VIRTIO_CHECKSUM_OFFSET);
    uint16_t check = never0(~fold(sum(p + start, total - start, 0)));
    memcpy(p + field, &check, 2);
  }
  put_outer(c, p - outer, total, k.tos, k.ttl, vm);
  add_piece(c, message_for(c, call, &k, outer + total, total), p - outer, outer + total);
  return FORWARD;
}

int encapsulate(struct core *c, int first, int count, double now) {
  struct call call = {0};
  c->changes.opened = c->changes.closed = c->changes.learnt = 0;
  memset(c->message_counts, 0, sizeof c->message_counts);
  for (int i = first; i < count; i++) {
    int verdict = encapsulate_packet(c, &call, &c->descriptors[i], now);
    if (verdict == NO_ROOM) return i;
    if (verdict < 0) {
      c->outbound.received++;
      c->outbound.drops[-verdict]++;
    }
    c->descriptors[i].verdict = verdict;
  }
  c->outbound_shares.level = 0;
  return count;
}
