/** Which VM an overlay address lives on, and what is kept about the VMs that this one talks to: a set-associative table. */
#include "wire.h"

static const struct mapping *find_mapping(const struct core *c, uint32_t address) {
  for (uint32_t i = 0; i < c->config.mappings; i++) {
    const struct mapping *m = &c->mappings[i];
    if ((address & m->overlay_mask[0]) == m->overlay[0]) return m;
  }
  return NULL;
}

static uint32_t vm_in(const struct mapping *m, uint32_t address) {
  return m->underlay | ((address >> m->container_bits) & m->vm_mask);
}

static int is_reserved(const struct mapping *m, uint32_t address, uint32_t vm) {
  return ((address + 1) & m->index_mask) <= 1 || vm - m->first_vm >= m->vms;
}

static uint32_t sender_of(const struct core *c, uint32_t address) {
  const struct mapping *m = find_mapping(c, address);
  if (!m) return 0;
  uint32_t vm = vm_in(m, address);
  return is_reserved(m, address, vm) ? 0 : vm;
}

static uint32_t seconds(double now) { return now >= 0 && now < 4e12 ? (uint32_t)(now / 1000) : 0; }

static uint32_t set_of(uint32_t vm) { return (vm * GOLDEN_RATIO >> (32 - TUNNEL_SETS_LOG2)) * TUNNEL_WAYS; }

static struct tunnel *find_tunnel(struct core *c, uint32_t vm) {
  uint32_t set = set_of(vm);
  for (uint32_t i = set; i < set + TUNNEL_WAYS; i++) {
    if (c->tunnel_keys[i] == vm) return &c->tunnels[i];
  }
  return NULL;
}

static struct tunnel *open_tunnel(struct core *c, uint32_t vm) {
  uint32_t set = set_of(vm), way = set;
  for (uint32_t i = set; i < set + TUNNEL_WAYS; i++) {
    if (c->tunnel_keys[i] == 0) { way = i; break; }
    if (c->tunnels[i].last_use < c->tunnels[way].last_use) way = i;
  }
  if (c->tunnel_keys[way]) {
    c->changes.closed_list[c->changes.closed++] = c->tunnel_keys[way];
    c->changes.tunnels--;
  }
  memset(&c->tunnels[way], 0, sizeof c->tunnels[way]);
  c->tunnel_keys[way] = vm;
  c->changes.opened_list[c->changes.opened++] = vm;
  c->changes.tunnels++;
  return &c->tunnels[way];
}

static struct tunnel *lease_tunnel(struct core *c, uint32_t vm, uint32_t from, double now) {
  struct tunnel *t = find_tunnel(c, vm);
  int leased = t && (uint16_t)(t->lease - seconds(now) - 1) < LEASE_LIFETIME;
  if (!(t && (t->inbound_packets > 0 || leased))) {
    double *bucket = &c->lease_buckets[from & ((1 << SOURCES_LOG2) - 1)];
    if (!(*bucket - now <= (LEASE_BURST - 1) * LEASE_INTERVAL)) return NULL;
    *bucket = (*bucket > now ? *bucket : now) + LEASE_INTERVAL;
    if (!t) t = open_tunnel(c, vm);
    t->lease = (uint16_t)(seconds(now) + LEASE_LIFETIME);
  }
  t->last_use = now;
  return t;
}
