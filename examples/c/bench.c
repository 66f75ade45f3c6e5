/**
 * How long the core takes for packets that it forwards: the least of many short rounds, so that
 * what else runs here shows least.
 */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "core.h"
#include "host.h"

enum {
    /* ns of calls before the first round, so that caches are warm. */
    WARM_UP = 1000000000,
    ROUNDS = 50,
    /* ns that a round takes at least, and calls between two looks at the clock. */
    ROUND = 20000000,
    CALLS = 16,

    TCP = 6,
    UDP = 17,
    GRE = 47,

    /* Bytes: a small packet; the headers of IPv4 and TCP; outer IPv4 and GRE. */
    SMALL = 64,
    HEADERS = 40,
    OUTER = 24,
    /* Super-packets of so many segments with so many bytes of payload, so many of them a call. */
    SEGMENTS = 45,
    SEGMENT = 1424,
    SUPER_PACKETS = 8,
};

static const uint32_t HERE = 0xc0a81020;            /* 192.168.16.32 */
static const uint32_t THERE = 0xc0a81021;           /* 192.168.16.33 */
static const uint32_t CONTAINER = 0x0a10205b;       /* 10.16.32.91 */
static const uint32_t OTHER_CONTAINER = 0x0a102107; /* 10.16.33.7 */

static void put16(uint8_t *p, uint32_t value)
{
    p[0] = (uint8_t)(value >> 8);
    p[1] = (uint8_t)value;
}

static void put32(uint8_t *p, uint32_t value)
{
    put16(p, value >> 16);
    put16(p + 2, value);
}

/** Writes an IPv4 header without options. */
static void put_ipv4(uint8_t *p, uint32_t source, uint32_t destination, uint8_t protocol, uint32_t length)
{
    uint32_t sum = 0;
    memset(p, 0, 20);
    p[0] = 0x45;
    put16(p + 2, length);
    p[8] = 64;
    p[9] = protocol;
    put32(p + 12, source);
    put32(p + 16, destination);
    for (int i = 0; i < 20; i += 2)
        sum += (uint32_t)p[i] << 8 | p[i + 1];
    sum = (sum & 0xffff) + (sum >> 16);
    put16(p + 10, ~(sum + (sum >> 16)));
}

static void prepare(struct core *core, uint32_t offloads)
{
    core_open(core);
    core_attach(core, offloads);
    core_configure(core, &(struct config){
                             .local = HERE,
                             .ttl = 64,
                             .encapsulation = CONSTANT(core, ENCAPSULATION_GRE),
                             .mtu = 1476,
                         });
    core_map(core, &(struct mapping){0x0a000000, 8, 0xc0a80000, 16});
}

static double clock_ns(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return 1e9 * (double)time.tv_sec + (double)time.tv_nsec;
}

/** A round of at `least` so many ns: the ns that each of the `count` packets in the slots takes. */
static double ns_in_round(const char *name, struct core *core, enum direction direction, uint32_t count,
                          double least)
{
    double start = clock_ns(), time = 0, packets = 0;
    while (time < least) {
        for (int i = 0; i < CALLS; i++) {
            if (core_call(core, direction, 0, count, 1) != count)
                fail("%s: a call had no room for %u packets", name, count);
        }
        packets += CALLS * count;
        time = clock_ns() - start;
    }
    return time / packets;
}

/** Prints the least ns that a packet takes in any round. */
static void measure(const char *name, struct core *core, enum direction direction, uint32_t count)
{
    double least = ns_in_round(name, core, direction, count, WARM_UP);
    for (int round = 0; round < ROUNDS; round++) {
        double ns = ns_in_round(name, core, direction, count, ROUND);
        if (ns < least)
            least = ns;
    }
    if (core_forwarded(core, direction) != core_received(core, direction))
        fail("%s: packets were dropped", name);
    printf("%s %.1f\n", name, least);
    core_close(core);
}

static void encapsulate_64(struct core *core)
{
    uint8_t packet[SMALL] = {0};
    prepare(core, 0);
    put_ipv4(packet, CONTAINER, OTHER_CONTAINER, UDP, SMALL);
    for (uint32_t i = 0; i < CONSTANT(core, BATCH_SIZE); i++)
        core_put(core, i, packet, SMALL, 0);
    measure("encapsulate-64", core, OUTBOUND, CONSTANT(core, BATCH_SIZE));
}

static void decapsulate_64(struct core *core)
{
    uint8_t packet[OUTER + SMALL] = {0};
    prepare(core, 0);
    put_ipv4(packet, THERE, HERE, GRE, sizeof packet);
    put32(packet + 20, 0x0800); /* the GRE header: no options, IPv4 */
    put_ipv4(packet + OUTER, OTHER_CONTAINER, CONTAINER, UDP, SMALL);
    for (uint32_t i = 0; i < CONSTANT(core, BATCH_SIZE); i++)
        core_put(core, i, packet, sizeof packet, 0);
    measure("decapsulate-64", core, INBOUND, CONSTANT(core, BATCH_SIZE));
}

static void cut_64k(struct core *core)
{
    static uint8_t frame[64 + HEADERS + SEGMENTS * SEGMENT];
    prepare(core, CONSTANT(core, OFFLOAD_VIRTIO));
    /* struct virtio_net_hdr, little-endian; its numbers here fit one byte, but for the segment size. */
    uint8_t *packet = frame + CONSTANT(core, VIRTIO_SIZE);
    frame[CONSTANT(core, VIRTIO_FLAGS)] = 1;    /* VIRTIO_NET_HDR_F_NEEDS_CSUM */
    frame[CONSTANT(core, VIRTIO_GSO_TYPE)] = 1; /* VIRTIO_NET_HDR_GSO_TCPV4 */
    frame[CONSTANT(core, VIRTIO_HEADER_LENGTH)] = HEADERS;
    frame[CONSTANT(core, VIRTIO_GSO_SIZE)] = SEGMENT & 0xff;
    frame[CONSTANT(core, VIRTIO_GSO_SIZE) + 1] = SEGMENT >> 8;
    frame[CONSTANT(core, VIRTIO_CHECKSUM_START)] = 20;
    frame[CONSTANT(core, VIRTIO_CHECKSUM_OFFSET)] = 16;
    put_ipv4(packet, CONTAINER, OTHER_CONTAINER, TCP, HEADERS + SEGMENTS * SEGMENT);
    packet[20 + 12] = 0x50; /* a TCP header of 5 words */
    for (uint32_t i = 0; i < SUPER_PACKETS; i++)
        core_put(core, i, frame, CONSTANT(core, VIRTIO_SIZE) + HEADERS + SEGMENTS * SEGMENT, 0);
    measure("cut-64k", core, OUTBOUND, SUPER_PACKETS);
}

void run_bench(void)
{
    static struct core core;
    encapsulate_64(&core);
    decapsulate_64(&core);
    cut_64k(&core);
}
