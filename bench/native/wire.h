/** What packets are made of: numbers in network order, the Internet checksum (RFC 1071), IPv4 (RFC 791) and the outer headers. */
#include <string.h>
#include "core.h"

enum { IPV4_LENGTH = 20, GRE_LENGTH = 4, UDP_LENGTH = 8, MAX_DATAGRAM = 65535 - IPV4_LENGTH - UDP_LENGTH };
enum { PROTOCOL_TCP = 6, PROTOCOL_UDP = 17, PROTOCOL_GRE = 47 };
static const uint32_t GOLDEN_RATIO = 0x9e3779b1;

static uint16_t get16(const uint8_t *p) { uint16_t v; memcpy(&v, p, 2); return __builtin_bswap16(v); }
static uint32_t get32(const uint8_t *p) { uint32_t v; memcpy(&v, p, 4); return __builtin_bswap32(v); }
static void put16(uint8_t *p, uint16_t v) { v = __builtin_bswap16(v); memcpy(p, &v, 2); }
static void put32(uint8_t *p, uint32_t v) { v = __builtin_bswap32(v); memcpy(p, &v, 4); }
static int min(int a, int b) { return a < b ? a : b; }
static int max(int a, int b) { return a > b ? a : b; }

/* Sums are over words as they lie in memory (RFC 1071 2(B)). */

static uint64_t sum(const uint8_t *p, int length, uint64_t total) {
  uint64_t other = 0;
  for (; length >= 16; p += 16, length -= 16) {
    uint64_t a, b;
    memcpy(&a, p, 8);
    memcpy(&b, p + 8, 8);
    total += a;
    total += total < a;
    other += b;
    other += other < b;
  }
  total += other;
  total += total < other;
  uint64_t rest = 0;
  for (; length >= 4; p += 4, length -= 4) { uint32_t w; memcpy(&w, p, 4); rest += w; }
  if (length >= 2) { uint16_t w; memcpy(&w, p, 2); rest += w; p += 2; length -= 2; }
  if (length) rest += *p;
  total += rest;
  return total + (total < rest);
}

static uint16_t fold(uint64_t total) {
  total = (total & 0xffffffff) + (total >> 32);
  total = (total & 0xffffffff) + (total >> 32);
  total = (total & 0xffff) + (total >> 16);
  return (uint16_t)(total + (total >> 16));
}

static uint16_t never0(uint16_t checksum) { return checksum ? checksum : 0xffff; }

static int header_length(const uint8_t *p) { return (p[0] & 15) * 4; }
static int total_length(const uint8_t *p) { return get16(p + 2); }
static int is_fragment(const uint8_t *p) { return (get16(p + 6) & 0x3fff) != 0; }

static int check_ipv4(const uint8_t *p, int available) {
  if (available < IPV4_LENGTH) return DROP_TRUNCATED;
  if (p[0] >> 4 != 4) return DROP_NOT_IPV4;
  int header = header_length(p);
  if (header < IPV4_LENGTH) return DROP_BAD_HEADER_LENGTH;
  int total = total_length(p);
  if (total < header) return DROP_BAD_TOTAL_LENGTH;
  if (total > available) return DROP_TRUNCATED;
  return fold(sum(p, header, 0)) == 0xffff ? FORWARD : DROP_BAD_HEADER_CHECKSUM;
}

static void put_outer(const struct core *c, uint8_t *h, int length, uint32_t tos, uint32_t ttl, uint32_t vm) {
  if (c->config.encapsulation != ENCAPSULATION_GRE_UDP) {
    h[0] = 0x45;
    h[1] = tos;
    put16(h + 2, IPV4_LENGTH + GRE_LENGTH + length);
    put32(h + 4, 0x4000);
    h[8] = ttl;
    h[9] = PROTOCOL_GRE;
    put16(h + 10, 0);
    put32(h + 12, c->config.local);
    put32(h + 16, vm);
    uint32_t s = (0x4500 | tos) + IPV4_LENGTH + GRE_LENGTH + length + 0x4000 + ((ttl << 8) | PROTOCOL_GRE);
    s += (c->config.local >> 16) + (c->config.local & 0xffff) + (vm >> 16) + (vm & 0xffff);
    s = (s & 0xffff) + (s >> 16);
    put16(h + 10, ~(s + (s >> 16)));
    h += IPV4_LENGTH;
  }
  put32(h, 0x0800);
}
