/** Messages, as sendmmsg(2) takes them. */
#include "tunnels.h"

/** What all have in common that the packet at hand becomes. */
struct packet {
  uint8_t *p;
  uint32_t vm, tos, ttl, flags;
  int port;
};

/** During one call: header blocks in use, and where the last message of each port goes. */
struct call {
  int blocks;
  uint64_t ways[MAX_PORTS];
};

static uint32_t flow_hash(const uint8_t *p) {
  uint32_t protocol = p[9], ports = 0;
  int known = protocol == 6 || protocol == 17 || protocol == 33 || protocol == 132 || protocol == 136;
  if (known && !is_fragment(p) && total_length(p) >= header_length(p) + 4) ports = get32(p + header_length(p));
  uint32_t h = ((get32(p + 12) * GOLDEN_RATIO + get32(p + 16)) * GOLDEN_RATIO + ports) * GOLDEN_RATIO + protocol;
  return (h ^ (h >> 15)) * GOLDEN_RATIO;
}

static int open_message(struct core *c, struct call *call, const struct packet *k, int inner) {
  int i = k->port * MESSAGES_PER_PORT + c->message_counts[k->port]++;
  struct message *m = &c->messages[i];
  struct name *name = &c->names[i];
  int is_udp = c->config.encapsulation == ENCAPSULATION_GRE_UDP;
  m->iov_count = 0;
  m->control_length = 0;
  m->length = 0;
  name->port = __builtin_bswap16(is_udp ? GRE_UDP_PORT : 0);
  name->address = __builtin_bswap32(k->vm);
  if (is_udp) {
    int inherits = (c->config.options & OPTION_TTL_INHERIT) != 0;
    c->controls[i].segment = 0;
    c->controls[i].tos = k->tos;
    c->controls[i].ttl = k->ttl;
    m->control_length = (inherits ? 3 : k->tos ? 2 : 0) * CONTROL_ITEM_SIZE;
    call->ways[k->port] = k->vm | (uint64_t)(k->tos << 8 | k->ttl) << 32;
  }
  c->contents[i] = (struct content){1, inner, k->flags, (uint32_t)(k->p - (uint8_t *)c)};
  return i;
}

static int message_for(struct core *c, struct call *call, const struct packet *k, int length, int inner) {
  int count = c->message_counts[k->port];
  if (c->config.encapsulation == ENCAPSULATION_GRE_UDP && (c->config.offloads & OFFLOAD_UDP_SEGMENT) && count > 0) {
    int i = k->port * MESSAGES_PER_PORT + count - 1;
    int packets = c->contents[i].packets, total = c->messages[i].length;
    int size = packets == 1 ? total : c->controls[i].segment;
    if (call->ways[k->port] == (k->vm | (uint64_t)(k->tos << 8 | k->ttl) << 32) && packets < PACKETS_PER_MESSAGE &&
        length <= size && total == packets * size && total + length <= MAX_DATAGRAM) {
      if (packets == 1) {
        c->controls[i].segment = total;
        if (c->messages[i].control_length == 0) c->messages[i].control_length = CONTROL_ITEM_SIZE;
      }
      c->contents[i].packets++;
      c->contents[i].bytes += inner;
      return i;
    }
  }
  return open_message(c, call, k, inner);
}

static void add_piece(struct core *c, int message, const uint8_t *p, int length) {
  struct message *m = &c->messages[message];
  struct iov *iov = &c->iovs[message][m->iov_count++];
  iov->base = c->config.base + (uint64_t)(p - (uint8_t *)c);
  iov->length = length;
  m->length += length;
}
