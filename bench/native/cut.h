/** Cutting super-packets, as tcp_gso_segment and __udp_gso_segment of Linux do. */
#include "messages.h"

enum { NEEDS_CHECKSUM = 1, GSO_TCPV4 = 1, GSO_UDP_L4 = 5, GSO_ECN = 0x80 };
enum { FIN = 1, PSH = 8, CWR = 0x80 };

static int headers_length(const uint8_t *p) {
  int ip = header_length(p);
  if (p[9] == PROTOCOL_UDP) return ip + UDP_LENGTH;
  if (total_length(p) < ip + 20) return 0x7fffffff;
  int tcp = (p[ip + 12] >> 4) * 4;
  return tcp < 20 ? 0x7fffffff : ip + tcp;
}

static uint16_t virtio16(const uint8_t *v, int at) { return v[at] | v[at + 1] << 8; }

static int check_offload(const struct core *c, const uint8_t *v, const uint8_t *p) {
  int gso = v[VIRTIO_GSO_TYPE] & ~GSO_ECN;
  if (gso == 0) {
    if (!(v[VIRTIO_FLAGS] & NEEDS_CHECKSUM)) return 0;
    int start = virtio16(v, VIRTIO_CHECKSUM_START), field = start + virtio16(v, VIRTIO_CHECKSUM_OFFSET);
    return start >= header_length(p) && field + 2 <= total_length(p) ? 0 : DROP_BAD_OFFLOAD;
  }
  if (gso != GSO_TCPV4 && gso != GSO_UDP_L4) return DROP_BAD_OFFLOAD;
  if (p[9] != (gso == GSO_TCPV4 ? PROTOCOL_TCP : PROTOCOL_UDP) || is_fragment(p)) return DROP_BAD_OFFLOAD;
  int size = virtio16(v, VIRTIO_GSO_SIZE), headers = headers_length(p), payload = total_length(p) - headers;
  if (size == 0 || payload <= 0) return DROP_BAD_OFFLOAD;
  int segments = (payload + size - 1) / size;
  int least = max(gso == GSO_TCPV4 ? LEAST_TCP_SEGMENT : LEAST_UDP_SEGMENT, headers + c->config.overhead);
  if (segments > 1 && size < least) return DROP_TINY_SEGMENTS;
  return segments > (gso == GSO_TCPV4 ? MAX_SEGMENTS : MAX_UDP_SEGMENTS) ? DROP_BAD_OFFLOAD : segments;
}

static void put_segment(uint8_t *h, const uint8_t *p, int headers, int n, int size, int length, int is_last) {
  int ip = header_length(p), transport = headers - ip + length;
  uint8_t *t = h + ip;
  memcpy(h, p, headers);
  put16(h + 2, headers + length);
  put16(h + 4, get16(p + 4) + n);
  memset(h + 10, 0, 2);
  uint16_t check = ~fold(sum(h, ip, 0));
  memcpy(h + 10, &check, 2);
  int field = 6;
  if (p[9] == PROTOCOL_TCP) {
    field = 16;
    put32(t + 4, get32(t + 4) + n * size);
    if (!is_last) t[13] &= ~(FIN | PSH);
    if (n > 0) t[13] &= ~CWR;
  } else {
    put16(t + 4, transport);
  }
  memset(t + field, 0, 2);
  uint64_t pseudo = sum(h + 12, 8, __builtin_bswap16(p[9]) + __builtin_bswap16(transport));
  check = ~fold(sum(p + headers + n * size, length, sum(t, headers - ip, pseudo)));
  if (p[9] == PROTOCOL_UDP || (n == 0 && is_last)) check = never0(check);
  memcpy(t + field, &check, 2);
}

static void send_cut(struct core *c, struct call *call, const struct packet *k, int headers, int size, int segments) {
  int payload = total_length(k->p) - headers;
  int outer = GRE_LENGTH + (c->config.encapsulation == ENCAPSULATION_GRE_UDP ? 0 : IPV4_LENGTH);
  for (int n = 0; n < segments; n++) {
    int length = min(size, payload - n * size);
    uint8_t *h = c->headers[call->blocks++];
    put_segment(h + outer, k->p, headers, n, size, length, n == segments - 1);
    put_outer(c, h, headers + length, k->tos, k->ttl, k->vm);
    int message = message_for(c, call, k, outer + headers + length, headers + length);
    add_piece(c, message, h, outer + headers);
    add_piece(c, message, k->p + headers + n * size, length);
  }
}
