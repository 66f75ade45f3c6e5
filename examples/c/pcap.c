#define _GNU_SOURCE /* asprintf */
#include "pcap.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "host.h"

enum {
    MAGIC_MICROSECONDS = 0xa1b2c3d4,
    FILE_HEADER_SIZE = 24,
    RECORD_HEADER_SIZE = 16,
    /* What libpcap takes for the longest packet (MAXIMUM_SNAPLEN). */
    MOST_BYTES = 262144,
    WRITTEN_SNAPLEN = 65535,

    LINKTYPE_ETHERNET = 1,
    LINKTYPE_RAW = 101,
    LINKTYPE_IPV4 = 228,

    ETHERNET_HEADER_SIZE = 14,
    ETHERTYPE_AT = 12,
    ETHERTYPE_IPV4 = 0x0800,
};

static uint32_t field(const struct pcap_reader *reader, const uint8_t *p)
{
    return reader->is_big_endian ? (uint32_t)p[0] << 24 | p[1] << 16 | p[2] << 8 | p[3]
                                 : (uint32_t)p[3] << 24 | p[2] << 16 | p[1] << 8 | p[0];
}

static _Noreturn void fail_at_end(const struct pcap_reader *reader)
{
    if (reader->packets == 0)
        fail("%s: the file ends in its header", reader->path);
    fail("%s: the file ends in packet %lu", reader->path, reader->packets);
}

/** Reads `length` bytes, or nothing at the end of the file. */
static bool read_bytes(struct pcap_reader *reader, uint8_t *to, size_t length)
{
    size_t got = fread(to, 1, length, reader->file);
    if (ferror(reader->file))
        fail("%s: %s", reader->path, strerror(errno));
    if (got > 0 && got < length)
        fail_at_end(reader);
    return got == length;
}

void pcap_open(struct pcap_reader *reader, const char *path)
{
    uint8_t header[FILE_HEADER_SIZE];
    *reader = (struct pcap_reader){.file = fopen(path, "rb"), .path = path};
    if (!reader->file)
        fail("%s: %s", path, strerror(errno));
    if (!read_bytes(reader, header, sizeof header))
        fail_at_end(reader);
    if (field(reader, header) != MAGIC_MICROSECONDS) {
        reader->is_big_endian = true;
        if (field(reader, header) != MAGIC_MICROSECONDS)
            fail("%s: not a pcap file with microseconds", path);
    }
    reader->link_type = field(reader, header + 20);
    if (reader->link_type != LINKTYPE_RAW && reader->link_type != LINKTYPE_IPV4 &&
        reader->link_type != LINKTYPE_ETHERNET)
        fail("%s: link type %u: expected 1, 101 or 228", path, reader->link_type);
    reader->record = malloc(MOST_BYTES);
    if (!reader->record)
        fail("%s: out of memory", path);
}

/** Takes the Ethernet header off; false if there is no IPv4 packet behind it. */
static bool unwrap(struct pcap_packet *packet)
{
    const uint8_t *type = packet->bytes + ETHERTYPE_AT;
    if (packet->length < ETHERNET_HEADER_SIZE || (type[0] << 8 | type[1]) != ETHERTYPE_IPV4)
        return false;
    packet->bytes += ETHERNET_HEADER_SIZE;
    packet->length -= ETHERNET_HEADER_SIZE;
    return true;
}

bool pcap_read(struct pcap_reader *reader, struct pcap_packet *packet)
{
    uint8_t header[RECORD_HEADER_SIZE];
    do {
        reader->packets++;
        if (!read_bytes(reader, header, sizeof header))
            return false;
        uint32_t length = field(reader, header + 8);
        if (length > MOST_BYTES)
            fail("%s: packet %lu: %u bytes: expected at most %d", reader->path, reader->packets, length,
                 MOST_BYTES);
        if (length > 0 && !read_bytes(reader, reader->record, length))
            fail_at_end(reader);
        packet->time.seconds = field(reader, header);
        packet->time.microseconds = field(reader, header + 4);
        packet->bytes = reader->record;
        packet->length = length;
    } while (reader->link_type == LINKTYPE_ETHERNET && !unwrap(packet));
    return true;
}

void pcap_close(struct pcap_reader *reader)
{
    free(reader->record);
    fclose(reader->file);
}

static void put16(FILE *file, uint32_t value)
{
    putc(value & 0xff, file);
    putc(value >> 8 & 0xff, file);
}

static void put32(FILE *file, uint32_t value)
{
    put16(file, value);
    put16(file, value >> 16);
}

/** The name of the file that is not finished; NULL if there is none. */
static char *part;

static void remove_part(void)
{
    if (part)
        unlink(part);
}

FILE *pcap_create(const char *path)
{
    struct stat status;
    const char *name = path;
    /* A device or a pipe has to be written to itself. */
    if (stat(path, &status) != 0 || S_ISREG(status.st_mode)) {
        if (asprintf(&part, "%s.%ld.part", path, (long)getpid()) < 0 || atexit(remove_part) != 0)
            fail("%s: out of memory", path);
        name = part;
    }
    FILE *file = fopen(name, "wb");
    if (!file)
        fail("%s: %s", name, strerror(errno));
    put32(file, MAGIC_MICROSECONDS);
    put16(file, 2); /* version 2.4 */
    put16(file, 4);
    put32(file, 0); /* time zone and accuracy: always 0 */
    put32(file, 0);
    put32(file, WRITTEN_SNAPLEN);
    put32(file, LINKTYPE_RAW);
    return file;
}

void pcap_begin(FILE *file, struct pcap_time time, size_t length)
{
    put32(file, time.seconds);
    put32(file, time.microseconds);
    put32(file, (uint32_t)length); /* in the file, and as captured */
    put32(file, (uint32_t)length);
}

void pcap_finish(FILE *file, const char *path)
{
    bool is_whole = !ferror(file);
    if (fclose(file) != 0 || !is_whole || (part && rename(part, path) != 0))
        fail("%s: %s", path, strerror(errno));
    free(part);
    part = NULL;
}
