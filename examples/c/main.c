/**
 * A host of Inlay's packet core, in C.
 *
 *     inlay-host CORE.wasm encapsulate|decapsulate LOCAL OVERLAY UNDERLAY IN.pcap OUT.pcap
 *     inlay-host CORE.wasm vectors IN.txt
 *     inlay-host CORE.wasm bench
 *
 * The other hosts load CORE.wasm. Here the module is a part of the program already: the file has to be there, but is not read.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core.h"
#include "host.h"
#include "pcap.h"

void fail(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fputs("inlay-host: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(1);
}

/** "192.168.16.32" as the number 0xc0a81020. */
static uint32_t parse_address(const char *text)
{
    struct in_addr address;
    if (inet_pton(AF_INET, text, &address) != 1)
        fail("address \"%s\": expected one such as 192.168.16.32", text);
    return ntohl(address.s_addr);
}

/** "10.0.0.0/8" as an address and a length. */
static void parse_prefix(const char *text, uint32_t *address, uint32_t *length)
{
    char copy[64], *slash, *end = NULL;
    snprintf(copy, sizeof copy, "%s", text);
    slash = strchr(copy, '/');
    if (slash) {
        *slash = '\0';
        *length = (uint32_t)strtoul(slash + 1, &end, 10);
    }
    if (!slash || end == slash + 1 || *end != '\0' || *length > 32)
        fail("prefix \"%s\": expected one such as 10.0.0.0/8", text);
    *address = parse_address(copy);
}

/** Writes the messages of a port: what the last call made, gathered from where it lies. */
static void write_messages(struct core *core, uint32_t port, struct pcap_time time, FILE *out)
{
    for (uint32_t i = 0; i < core_message_count(core, port); i++) {
        uint32_t message = core_message(core, port, i);
        pcap_begin(out, time, core_message_length(core, message));
        for (uint32_t n = 0; n < core_piece_count(core, message); n++) {
            struct piece piece = core_piece(core, message, n);
            fwrite(piece.bytes, 1, piece.length, out);
        }
    }
}

/** Handles the packets in the slots 0 to `count` - 1, which came together. */
static void handle(struct core *core, enum direction direction, uint32_t count, struct pcap_time time,
                   FILE *out)
{
    double now = time.seconds * 1000.0 + time.microseconds / 1000.0;
    uint32_t first = 0;
    /* Where there is no room for more messages the core stops. They are written then, and it goes on. */
    while (first < count) {
        first = core_call(core, direction, first, count, now);
        for (uint32_t port = 0; port < CONSTANT(core, MAX_PORTS); port++)
            write_messages(core, port, time, out);
        /* Replies quote packets where they lie, so they are written before slots are filled anew. */
        write_messages(core, CONSTANT(core, REPLY_PORT), time, out);
    }
}

/** Handles a file in batches. Returns how many packets were left out, since they are longer than a slot. */
static unsigned long handle_file(struct core *core, enum direction direction, const char *in_path,
                                 const char *out_path)
{
    struct pcap_reader in;
    struct pcap_packet packet;
    struct pcap_time time = {0, 0};
    uint32_t count = 0;
    unsigned long skipped = 0;
    pcap_open(&in, in_path);
    FILE *out = pcap_create(out_path);
    while (pcap_read(&in, &packet)) {
        if (packet.length > core_packet_room(core)) {
            skipped++;
            continue;
        }
        if (count == 0)
            time = packet.time;
        /* What a capture shows may have been merged, or not: 0 is that the host does not know. */
        core_put(core, count++, packet.bytes, packet.length, 0);
        if (count == CONSTANT(core, BATCH_SIZE)) {
            handle(core, direction, count, time, out);
            count = 0;
        }
    }
    handle(core, direction, count, time, out);
    pcap_close(&in);
    pcap_finish(out, out_path);
    return skipped;
}

/** Everything is counted: received is forwarded and all drops together. */
static void print_counters(struct core *core, enum direction direction)
{
    printf("received %.0f\n", core_received(core, direction));
    printf("forwarded %.0f\n", core_forwarded(core, direction));
    for (int32_t verdict = -1; verdict > -(int32_t)CONSTANT(core, VERDICTS); verdict--) {
        double drops = core_drops(core, direction, verdict);
        if (drops > 0)
            printf("drop %d %.0f\n", verdict, drops);
    }
}

static void run_file(enum direction direction, char **arguments)
{
    static struct core core;
    struct mapping mapping;
    core_open(&core);
    core_configure(&core, &(struct config){
                              .local = parse_address(arguments[0]),
                              .ttl = 64,
                              .encapsulation = CONSTANT(&core, ENCAPSULATION_GRE),
                              .mtu = 1476, /* of an underlay with 1,500 */
                          });
    parse_prefix(arguments[1], &mapping.overlay, &mapping.overlay_length);
    parse_prefix(arguments[2], &mapping.underlay, &mapping.underlay_length);
    if (!core_map(&core, &mapping))
        fail("the mapping %s to %s does not fit the core", arguments[1], arguments[2]);
    unsigned long skipped = handle_file(&core, direction, arguments[3], arguments[4]);
    print_counters(&core, direction);
    if (skipped > 0)
        printf("skipped %lu\n", skipped);
    core_close(&core);
}

int main(int argc, char **argv)
{
    const char *mode = argc > 2 ? argv[2] : "";
    if (argc > 2 && access(argv[1], R_OK) != 0)
        fail("%s: %s", argv[1], strerror(errno));
    if (argc == 8 && strcmp(mode, "encapsulate") == 0)
        run_file(OUTBOUND, argv + 3);
    else if (argc == 8 && strcmp(mode, "decapsulate") == 0)
        run_file(INBOUND, argv + 3);
    else if (argc == 4 && strcmp(mode, "vectors") == 0)
        run_vectors(argv[3]);
    else if (argc == 3 && strcmp(mode, "bench") == 0)
        run_bench();
    else
        fail("usage: inlay-host CORE.wasm encapsulate|decapsulate LOCAL OVERLAY UNDERLAY IN.pcap OUT.pcap\n"
             "       inlay-host CORE.wasm vectors IN.txt\n"
             "       inlay-host CORE.wasm bench");
    if (fflush(stdout) != 0)
        fail("standard output: not written");
    return 0;
}
