/** Golden packets, one a line: how a host shows that it does what the others do. */
#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core.h"
#include "host.h"

/** A line that is read word by word. */
struct line {
    const char *path;
    unsigned long number;
    char *rest;
};

/** Ends the program with what is wrong with a line. */
static _Noreturn void reject(const struct line *line, const char *format, ...)
{
    char problem[200];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(problem, sizeof problem, format, arguments);
    va_end(arguments);
    fail("%s: line %lu: %s", line->path, line->number, problem);
}

static char *next_word(struct line *line)
{
    char *word = strsep(&line->rest, " ");
    if (!word)
        reject(line, "too few words: expected 11, and four for each mapping");
    return word;
}

static uint32_t next_number(struct line *line, uint32_t largest)
{
    const char *word = next_word(line);
    bool is_number = *word != '\0' && word[strspn(word, "0123456789")] == '\0';
    unsigned long long number = is_number ? strtoull(word, NULL, 10) : 0;
    if (!is_number || number > largest)
        reject(line, "\"%s\": expected a whole number from 0 to %u", word, largest);
    return (uint32_t)number;
}

static enum direction next_direction(struct line *line)
{
    const char *word = next_word(line);
    if (strcmp(word, "outbound") == 0)
        return OUTBOUND;
    if (strcmp(word, "inbound") != 0)
        reject(line, "\"%s\": expected outbound or inbound", word);
    return INBOUND;
}

/** The code that a message is refused with, or -1. */
static int32_t next_code(struct line *line)
{
    if (strncmp(line->rest ? line->rest : "", "-1 ", 3) != 0)
        return (int32_t)next_number(line, 255);
    next_word(line);
    return -1;
}

static uint8_t digit_value(char digit)
{
    return (uint8_t)(digit <= '9' ? digit - '0' : (digit | 0x20) - 'a' + 10);
}

/** Makes the bytes of a word in hex, in its place; returns how many they are. */
static size_t next_packet(struct line *line, uint8_t **packet)
{
    char *word = next_word(line);
    size_t digits = strcmp(word, "-") == 0 ? 0 : strlen(word);
    *packet = (uint8_t *)word;
    if (*word == '\0' || digits % 2 != 0 || strspn(word, "0123456789abcdefABCDEF") < digits)
        reject(line, "the packet: expected pairs of hex digits, or - for an empty one");
    for (size_t i = 0; i < digits / 2; i++)
        (*packet)[i] = (uint8_t)(digit_value(word[2 * i]) << 4 | digit_value(word[2 * i + 1]));
    return digits / 2;
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

static void run_vector(struct core *core, struct line *line)
{
    const double now = 1;
    enum direction direction = next_direction(line);
    struct config config;
    config.local = next_number(line, UINT32_MAX);
    config.options = next_number(line, 255);
    config.key = next_number(line, UINT32_MAX);
    config.ttl = next_number(line, 255);
    config.dscp = next_number(line, 63);
    config.encapsulation = next_number(line, 1);
    config.mtu = next_number(line, 65535);
    uint32_t merged = next_number(line, UINT32_MAX);
    int32_t refused = next_code(line);
    uint8_t *packet;
    size_t length = next_packet(line, &packet);
    if (length > core_packet_room(core))
        reject(line, "a packet of %zu bytes: expected at most %zu", length, core_packet_room(core));

    core_configure(core, &config);
    do {
        struct mapping mapping;
        mapping.overlay = next_number(line, UINT32_MAX);
        mapping.overlay_length = next_number(line, 32);
        mapping.underlay = next_number(line, UINT32_MAX);
        mapping.underlay_length = next_number(line, 32);
        if (!core_map(core, &mapping))
            reject(line, "the mapping /%u to /%u does not fit the core", mapping.overlay_length,
                   mapping.underlay_length);
    } while (line->rest);
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
    struct line line = {.path = path};
    char *text = NULL;
    size_t room = 0;
    ssize_t length;
    FILE *file = fopen(path, "r");
    if (!file)
        fail("%s: %s", path, strerror(errno));
    while ((length = getline(&text, &room, file)) > 0) {
        line.number++;
        line.rest = text;
        if (text[length - 1] == '\n')
            text[--length] = '\0';
        if (strlen(text) < (size_t)length)
            reject(&line, "a byte that is 0");
        core_open(&core);
        run_vector(&core, &line);
        core_close(&core);
    }
    if (ferror(file))
        fail("%s: %s", path, strerror(errno));
    free(text);
    fclose(file);
}
