/** The packet core, as wasm2c has made it: docs/abi.md in C. */
#ifndef CORE_H
#define CORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "module.h"

/** What wasm2c makes of the module named inlay: it has had other names for that before 1.0.33. */
#ifdef WASM2C_Z_NAMES
typedef Z_inlay_instance_t w2c_inlay;
#define EXPORT(name) Z_inlayZ_##name
#define wasm2c_inlay_instantiate Z_inlay_instantiate
#define wasm2c_inlay_free Z_inlay_free
#else
#define EXPORT(name) w2c_inlay_##name
#define Z_inlay_init_module() ((void)0)
#endif

/** A constant of the module: these are globals, and wasm2c makes a function that gives the address of each. */
#define CONSTANT(core, name) (*EXPORT(name)(&(core)->instance))

/** One instance of the module. Its state is its memory, so cores do not share anything. */
struct core {
    w2c_inlay instance;
    /** Linear memory. It never grows, so it stays where it is. */
    uint8_t *memory;
};

/** What `configure` is told; addresses are numbers (10.0.0.1 is 0x0a000001). */
struct config {
    uint32_t local, options, key, ttl, dscp, encapsulation, mtu;
};

struct mapping {
    uint32_t overlay, overlay_length, underlay, underlay_length;
};

/** A part of a message: bytes in the core's memory, which stay until the next call. */
struct piece {
    const uint8_t *bytes;
    size_t length;
};

enum direction { OUTBOUND, INBOUND };

/** Makes a core. Ends the program if it is not of the ABI that this file is written for. */
void core_open(struct core *core);
void core_close(struct core *core);

/** `offloads` are OFFLOAD_ bits. */
void core_attach(struct core *core, uint32_t offloads);
void core_configure(struct core *core, const struct config *config);
/** False if the core does not take such a mapping. */
bool core_map(struct core *core, const struct mapping *mapping);

/** Most bytes that a packet may have. */
size_t core_packet_room(struct core *core);
/**
 * Puts a packet of at most `core_packet_room` bytes into slot `index`. With OFFLOAD_VIRTIO, it begins
 * with the virtio header on the overlay side. Inbound, `merged` is what is known of merging; 0 is nothing.
 */
void core_put(struct core *core, uint32_t index, const void *packet, size_t length, uint32_t merged);
/** Handles packets `first` to `count` - 1; returns the first that there was no room for, or `count`. */
uint32_t core_call(struct core *core, enum direction direction, uint32_t first, uint32_t count, double now);

/** What became of a packet: 0, or a negative drop reason. */
int32_t core_verdict(struct core *core, uint32_t index);
/** The remote VM of a packet: 4 bytes in network order. */
const uint8_t *core_peer(struct core *core, uint32_t index);

/** How many messages the last call made for `port`: below MAX_PORTS, or REPLY_PORT. */
uint32_t core_message_count(struct core *core, uint32_t port);
/** The number of the message `i` of a port. */
uint32_t core_message(struct core *core, uint32_t port, uint32_t i);
size_t core_message_length(struct core *core, uint32_t message);
uint32_t core_piece_count(struct core *core, uint32_t message);
struct piece core_piece(struct core *core, uint32_t message, uint32_t i);
/** Says that a message could not be written; `code` is the ICMP code that tells why, or -1. */
void core_refuse(struct core *core, uint32_t message, int32_t code, double now);

/** Packets of a direction. */
double core_received(struct core *core, enum direction direction);
double core_forwarded(struct core *core, enum direction direction);
double core_drops(struct core *core, enum direction direction, int32_t verdict);

#endif
