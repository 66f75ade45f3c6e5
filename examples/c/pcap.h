/** Classic pcap files: https://www.tcpdump.org/manpages/pcap-savefile.5.html */
#ifndef PCAP_H
#define PCAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/** When a packet was captured. */
struct pcap_time {
    uint32_t seconds, microseconds;
};

/** One IPv4 packet; its bytes stay until the next is read. */
struct pcap_packet {
    struct pcap_time time;
    const uint8_t *bytes;
    size_t length;
};

/** A file that is read. */
struct pcap_reader {
    FILE *file;
    const char *path;
    bool is_big_endian;
    uint32_t link_type;
    uint8_t *record;
    unsigned long packets;
};

/** Opens a file; ends the program if it is not a pcap with microseconds and a link type that has IPv4 packets in it. */
void pcap_open(struct pcap_reader *reader, const char *path);
/** Reads the next IPv4 packet; false at the end of the file. Ends the program if the file ends within a record. */
bool pcap_read(struct pcap_reader *reader, struct pcap_packet *packet);
void pcap_close(struct pcap_reader *reader);

/**
 * Creates a file of IP packets (LINKTYPE_RAW), which has another name until it is finished: what is at `path` stays until
 * then, and nothing is left of it if the program fails. One at a time.
 */
FILE *pcap_create(const char *path);
/** Begins a packet: its `length` bytes are what is written to the file next. */
void pcap_begin(FILE *file, struct pcap_time time, size_t length);
/** Closes a created file, and gives it its name; ends the program if anything of it could not be written. */
void pcap_finish(FILE *file, const char *path);

#endif
