/** Golden packets, one a line: how a host shows that it does what the others do. */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core.h"
#include "host.h"

/** Takes the next word off a line; it may be empty, as a packet may. */
static const char *next_word(char **rest)
{
    const char *word = strsep(rest, " ");
    if (!word)
        fail("the vector has too few words");
    return word;
}

static uint32_t next_number(char **rest)
{
    const char *word = next_word(rest);
    char *end;
    long long number = strtoll(word, &end, 10);
    if (end == word || *end != '\0')
        fail("\"%s\": expected a number", word);
    return (uint32_t)number;
}

static uint8_t hex_digit(char digit)
{
    const char *digits = "0123456789abcdef";
    const char *found = digit == '\0' ? NULL : strchr(digits, digit);
    if (!found)
        fail("\"%c\": expected a hex digit", digit);
    return (uint8_t)(found - digits);
}

/** Writes the bytes that `hex` stands for to `bytes`, which has room for them; returns how many they are. */
static size_t from_hex(const char *hex, uint8_t *bytes)
{
    size_t length = strlen(hex) / 2;
    for (size_t i = 0; i < length; i++)
        bytes[i] = (uint8_t)(hex_digit(hex[2 * i]) << 4 | hex_digit(hex[2 * i + 1]));
    return length;
}

static void print_hex(const uint8_t *bytes, size_t length)
{
    for (size_t i = 0; i < length; i++)
        printf("%02x", bytes[i]);
}

static void print_message(struct core *core, uint32_t message)
{
    for (uint32_t i = 0; i < core_piece_count(core, message); i++) {
        struct piece piece = core_piece(core, message, i);
        print_hex(piece.bytes, piece.length);
    }
}

/** Prints the messages of the ports `from` to `to` - 1, with commas between them, or - if there are none. */
static void print_messages(struct core *core, uint32_t from, uint32_t to)
{
    bool is_first = true;
    for (uint32_t port = from; port < to; port++) {
        for (uint32_t i = 0; i < core_message_count(core, port); i++) {
            fputs(is_first ? " " : ",", stdout);
            print_message(core, core_message(core, port, i));
            is_first = false;
        }
    }
    if (is_first)
        fputs(" -", stdout);
}

static void refuse_messages(struct core *core, int32_t code, double now)
{
    for (uint32_t port = 0; port < CONSTANT(core, MAX_PORTS); port++) {
        for (uint32_t i = 0; i < core_message_count(core, port); i++)
            core_refuse(core, core_message(core, port, i), code, now);
    }
}

static void run_vector(struct core *core, char *line, uint8_t *packet)
{
    const double now = 1;
    char *rest = line;
    const char *word = next_word(&rest);
    if (strcmp(word, "outbound") != 0 && strcmp(word, "inbound") != 0)
        fail("\"%s\": expected outbound or inbound", word);
    enum direction direction = strcmp(word, "outbound") == 0 ? OUTBOUND : INBOUND;
    struct config config;
    config.local = next_number(&rest);
    config.options = next_number(&rest);
    config.key = next_number(&rest);
    config.ttl = next_number(&rest);
    config.dscp = next_number(&rest);
    config.encapsulation = next_number(&rest);
    config.mtu = next_number(&rest);
    uint32_t merged = next_number(&rest);
    int32_t refused = (int32_t)next_number(&rest);
    size_t length = from_hex(next_word(&rest), packet);
    if (length > core_packet_room(core))
        fail("a packet of %zu bytes, expected at most %zu", length, core_packet_room(core));

    core_configure(core, &config);
    while (rest) {
        struct mapping mapping;
        mapping.overlay = next_number(&rest);
        mapping.overlay_length = next_number(&rest);
        mapping.underlay = next_number(&rest);
        mapping.underlay_length = next_number(&rest);
        core_map(core, &mapping);
    }
    core_put(core, 0, packet, length, merged);
    core_call(core, direction, 0, 1, now);
    if (refused >= 0)
        refuse_messages(core, refused, now);

    printf("%d ", core_verdict(core, 0));
    print_hex(core_peer(core, 0), 4);
    print_messages(core, 0, CONSTANT(core, MAX_PORTS));
    uint32_t replies = CONSTANT(core, REPLY_PORT);
    print_messages(core, replies, replies + 1);
    putchar('\n');
}

void run_vectors(const char *path)
{
    static struct core core;
    char *line = NULL;
    size_t room = 0;
    ssize_t length;
    FILE *file = fopen(path, "r");
    if (!file)
        fail("%s: %s", path, strerror(errno));
    while ((length = getline(&line, &room, file)) > 0) {
        line[strcspn(line, "\n")] = '\0';
        uint8_t *packet = malloc((size_t)length);
        if (!packet)
            fail("out of memory");
        core_open(&core);
        run_vector(&core, line, packet);
        core_close(&core);
        free(packet);
    }
    free(line);
    fclose(file);
}
