#include "core.h"

#include <string.h>

#include "host.h"

/** The ABI that this file is written for: the only number in it that the module has a name for. */
static const uint32_t EXPECTED_ABI_VERSION = 5;

/** Memory is little-endian, whatever this machine is. Compilers make one load or store of these. */
static uint32_t load32(const struct core *core, uint32_t at)
{
    const uint8_t *p = core->memory + at;
    return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static void store32(struct core *core, uint32_t at, uint32_t value)
{
    for (int i = 0; i < 4; i++)
        core->memory[at + i] = (uint8_t)(value >> 8 * i);
}

static double load_double(const struct core *core, uint32_t at)
{
    uint64_t bits = (uint64_t)load32(core, at + 4) << 32 | load32(core, at);
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

void core_open(struct core *core)
{
    if (!wasm_rt_is_initialized()) {
        wasm_rt_init();
        Z_inlay_init_module();
    }
    wasm2c_inlay_instantiate(&core->instance);
    if (CONSTANT(core, ABI_VERSION) != EXPECTED_ABI_VERSION)
        fail("the core has ABI version %u, expected %u", CONSTANT(core, ABI_VERSION),
             EXPECTED_ABI_VERSION);
    core->memory = EXPORT(memory)(&core->instance)->data;
    core_attach(core, 0);
}

void core_close(struct core *core)
{
    wasm2c_inlay_free(&core->instance);
}

void core_attach(struct core *core, uint32_t offloads)
{
    /* Base 0: pointers in messages are places in memory. */
    EXPORT(attach)(&core->instance, 0, offloads, 1);
}

void core_configure(struct core *core, const struct config *c)
{
    EXPORT(configure)(&core->instance, c->local, c->options, c->key, c->ttl, c->dscp,
                      c->encapsulation, c->mtu);
}

bool core_map(struct core *core, const struct mapping *m)
{
    return (int32_t)EXPORT(addMapping)(&core->instance, m->overlay, m->overlay_length, m->underlay,
                                       m->underlay_length) >= 0;
}

size_t core_packet_room(struct core *core)
{
    return CONSTANT(core, SLOT_SIZE) - CONSTANT(core, HEADROOM);
}

static uint32_t descriptor(struct core *core, uint32_t index)
{
    return CONSTANT(core, DESCRIPTORS) + index * CONSTANT(core, DESCRIPTOR_SIZE);
}

void core_put(struct core *core, uint32_t index, const void *packet, size_t length, uint32_t merged)
{
    uint32_t d = descriptor(core, index);
    uint32_t at = CONSTANT(core, SLOTS) + index * CONSTANT(core, SLOT_SIZE) + CONSTANT(core, HEADROOM);
    memcpy(core->memory + at, packet, length);
    store32(core, d + CONSTANT(core, DESCRIPTOR_ADDRESS), at);
    store32(core, d + CONSTANT(core, DESCRIPTOR_LENGTH), (uint32_t)length);
    store32(core, d + CONSTANT(core, DESCRIPTOR_SEGMENT), 0);
    store32(core, d + CONSTANT(core, DESCRIPTOR_MERGED), merged);
}

uint32_t core_call(struct core *core, enum direction direction, uint32_t first, uint32_t count,
                   double now)
{
    return direction == OUTBOUND ? EXPORT(encapsulate)(&core->instance, first, count, now)
                                 : EXPORT(decapsulate)(&core->instance, first, count, now);
}

int32_t core_verdict(struct core *core, uint32_t index)
{
    return (int32_t)load32(core, descriptor(core, index) + CONSTANT(core, DESCRIPTOR_VERDICT));
}

const uint8_t *core_peer(struct core *core, uint32_t index)
{
    return core->memory + descriptor(core, index) + CONSTANT(core, DESCRIPTOR_PEER);
}

uint32_t core_message_count(struct core *core, uint32_t port)
{
    return load32(core, CONSTANT(core, MESSAGE_COUNTS) + 4 * port);
}

uint32_t core_message(struct core *core, uint32_t port, uint32_t i)
{
    return port * CONSTANT(core, MESSAGES_PER_PORT) + i;
}

static uint32_t message_field(struct core *core, uint32_t message, uint32_t field)
{
    uint32_t table = CONSTANT(core, MESSAGE_TABLE);
    return load32(core, table + message * CONSTANT(core, MESSAGE_SIZE) + field);
}

size_t core_message_length(struct core *core, uint32_t message)
{
    return message_field(core, message, CONSTANT(core, MESSAGE_LENGTH));
}

uint32_t core_piece_count(struct core *core, uint32_t message)
{
    return message_field(core, message, CONSTANT(core, MESSAGE_IOV_COUNT));
}

struct piece core_piece(struct core *core, uint32_t message, uint32_t i)
{
    /* Pointers and lengths are u64; as places in memory they fit the low half. */
    uint32_t iov = message_field(core, message, CONSTANT(core, MESSAGE_IOV)) + i * CONSTANT(core, IOV_SIZE);
    return (struct piece){
        .bytes = core->memory + load32(core, iov + CONSTANT(core, IOV_BASE)),
        .length = load32(core, iov + CONSTANT(core, IOV_LENGTH)),
    };
}

void core_refuse(struct core *core, uint32_t message, int32_t code, double now)
{
    EXPORT(refuse)(&core->instance, message, (uint32_t)code, now);
}

static double counter(struct core *core, enum direction direction, uint32_t field)
{
    return load_double(core, field + (direction == OUTBOUND ? CONSTANT(core, OUTBOUND_COUNTERS)
                                                            : CONSTANT(core, INBOUND_COUNTERS)));
}

double core_received(struct core *core, enum direction direction)
{
    return counter(core, direction, CONSTANT(core, COUNTERS_RECEIVED));
}

double core_forwarded(struct core *core, enum direction direction)
{
    return counter(core, direction, CONSTANT(core, COUNTERS_FORWARDED));
}

double core_drops(struct core *core, enum direction direction, int32_t verdict)
{
    return counter(core, direction, CONSTANT(core, COUNTERS_DROPS) + 8 * (uint32_t)-verdict);
}
