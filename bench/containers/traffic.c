/*
 * The traffic that iperf3 and ping do not make: pings whose time is told in ns, requests and responses of one byte,
 * small UDP packets to very many addresses, and raw packets.
 *
 *   traffic ping ADDRESS COUNT          pings once a ms; prints the us of an average round trip
 *   traffic answer PORT                 answers one TCP connection, byte for byte, and ends with it
 *   traffic ask ADDRESS PORT SECONDS    asks it, one request after the other; prints how many a second were answered
 *   traffic flood PORT SECONDS          sends UDP packets of 64 bytes to the addresses that standard input has, four
 *                                       bytes each, over and over; prints how many were sent and how many failed
 *   traffic inject SIZE                 sends the IPv4 packets of SIZE bytes each that standard input has
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/ip_icmp.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

enum { PAYLOAD = 64, BUFFER = 4 << 20, AT_A_TIME = 64, INTERVAL = 1000 };

static void must(int ok, const char *what) {
  if (ok) return;
  perror(what);
  exit(1);
}

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec + time.tv_nsec / 1e9;
}

static struct sockaddr_in place(const char *address, const char *port) {
  struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(atoi(port))};
  must(inet_pton(AF_INET, address, &to.sin_addr) == 1, address);
  return to;
}

static unsigned short checksum(const void *bytes, size_t length) {
  const unsigned short *word = bytes;
  unsigned sum = 0;
  for (; length > 1; length -= 2) sum += *word++;
  sum = (sum >> 16) + (sum & 0xffff);
  return ~(sum + (sum >> 16));
}

/* ns between sending, as this process sees it, and the answer, as the kernel does: no process that wakes up is in it. */
static double round_trip(int fd, const struct sockaddr_in *to, int sequence) {
  struct { struct icmphdr header; char payload[56]; } echo = {.header = {.type = ICMP_ECHO}};
  echo.header.un.echo.sequence = sequence;
  echo.header.checksum = checksum(&echo, sizeof echo);
  struct timespec sent;
  clock_gettime(CLOCK_REALTIME, &sent);
  must(sendto(fd, &echo, sizeof echo, 0, (const struct sockaddr *)to, sizeof *to) == sizeof echo, "sendto");
  for (;;) {
    struct { struct iphdr ip; struct icmphdr header; char rest[64]; } answer;
    char control[128];
    struct iovec part = {.iov_base = &answer, .iov_len = sizeof answer};
    struct msghdr message = {
      .msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    must(recvmsg(fd, &message, 0) > 0, "no answer to a ping");
    if (answer.header.type != ICMP_ECHOREPLY || answer.header.un.echo.sequence != sequence) continue;
    struct timespec came;
    struct cmsghdr *stamp = CMSG_FIRSTHDR(&message);
    must(stamp != NULL, "SO_TIMESTAMPNS");
    memcpy(&came, CMSG_DATA(stamp), sizeof came);
    return (came.tv_sec - sent.tv_sec) * 1e9 + (came.tv_nsec - sent.tv_nsec);
  }
}

static int ping(const char *address, int count) {
  struct sockaddr_in to = place(address, "0");
  struct timeval patience = {.tv_sec = 1};
  int one = 1, fd = socket(AF_INET, SOCK_RAW, IPPROTO_ICMP);
  must(fd >= 0, "socket");
  must(setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPNS, &one, sizeof one) == 0, "SO_TIMESTAMPNS");
  must(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience) == 0, "SO_RCVTIMEO");
  double sum = 0;
  for (int i = 0; i < count; i++) {
    sum += round_trip(fd, &to, i);
    usleep(INTERVAL);
  }
  printf("%.3f\n", sum / count / 1e3);
  return 0;
}

/* Without delay for what comes later: there is nothing to come. */
static void at_once(int fd) {
  int one = 1;
  must(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one) == 0, "TCP_NODELAY");
}

/*
 * Both ends on the first core that they may use. Left to the scheduler they are on one core in one run and on two in the
 * next, where most of the time is that a core wakes up: rates differ by a factor of three then, whatever carries packets.
 */
static void on_one_core(void) {
  cpu_set_t allowed, one;
  must(sched_getaffinity(0, sizeof allowed, &allowed) == 0, "sched_getaffinity");
  int first = 0;
  while (!CPU_ISSET(first, &allowed)) first++;
  CPU_ZERO(&one);
  CPU_SET(first, &one);
  must(sched_setaffinity(0, sizeof one, &one) == 0, "sched_setaffinity");
}

static int answer(const char *port) {
  on_one_core();
  struct sockaddr_in here = place("0.0.0.0", port);
  int listener = socket(AF_INET, SOCK_STREAM, 0);
  must(bind(listener, (struct sockaddr *)&here, sizeof here) == 0, "bind");
  must(listen(listener, 1) == 0, "listen");
  puts("ready");
  fflush(stdout);
  int fd = accept(listener, NULL, NULL);
  must(fd >= 0, "accept");
  at_once(fd);
  for (char byte; read(fd, &byte, 1) == 1;) must(write(fd, &byte, 1) == 1, "write");
  return 0;
}

static int ask(const char *address, const char *port, double seconds) {
  on_one_core();
  struct sockaddr_in to = place(address, port);
  int fd = socket(AF_INET, SOCK_STREAM, 0);
  must(connect(fd, (struct sockaddr *)&to, sizeof to) == 0, "connect");
  at_once(fd);
  char byte = 0;
  long count = 0;
  double start = now(), end = start + seconds, time;
  do {
    must(write(fd, &byte, 1) == 1, "write");
    must(read(fd, &byte, 1) == 1, "read");
    count++;
  } while ((time = now()) < end);
  printf("%.1f\n", count / (time - start));
  return 0;
}

/* All that standard input has. */
static size_t input(char *bytes, size_t room) {
  size_t length = 0;
  for (ssize_t got; length < room && (got = read(0, bytes + length, room - length)) > 0;) length += got;
  return length;
}

static char buffer[BUFFER];

/*
 * As QUIC sends. Else the sender's kernel would look for the last identification of each address, which it does not
 * have in its cache for each of many.
 */
static void never_in_fragments(int fd) {
  int discover = IP_PMTUDISC_DO;
  must(setsockopt(fd, IPPROTO_IP, IP_MTU_DISCOVER, &discover, sizeof discover) == 0, "IP_MTU_DISCOVER");
}

static int flood(const char *port, double seconds) {
  size_t count = input(buffer, sizeof buffer) / 4;
  if (count == 0) return 1;
  char payload[PAYLOAD] = {0};
  struct sockaddr_in to = place("0.0.0.0", port);
  int fd = socket(AF_INET, SOCK_DGRAM, 0);
  must(fd >= 0, "socket");
  never_in_fragments(fd);
  long sent = 0, failed = 0;
  size_t next = 0;
  double start = now(), time;
  do {
    for (int i = 0; i < AT_A_TIME; i++) {
      memcpy(&to.sin_addr, buffer + 4 * next, 4);
      next = next + 1 < count ? next + 1 : 0;
      if (sendto(fd, payload, sizeof payload, 0, (struct sockaddr *)&to, sizeof to) < 0) failed++;
      else sent++;
    }
  } while ((time = now()) < start + seconds);
  printf("%ld %ld %.6f\n", sent, failed, time - start);
  return 0;
}

static int inject(size_t size) {
  size_t length = input(buffer, sizeof buffer);
  int fd = socket(AF_INET, SOCK_RAW, IPPROTO_RAW);
  must(fd >= 0, "socket");
  for (size_t at = 0; at + size <= length; at += size) {
    struct sockaddr_in to = {.sin_family = AF_INET};
    memcpy(&to.sin_addr, buffer + at + 16, 4);
    must(sendto(fd, buffer + at, size, 0, (struct sockaddr *)&to, sizeof to) == (ssize_t)size, "sendto");
  }
  return 0;
}

int main(int count, char **words) {
  const char *command = count > 1 ? words[1] : "";
  if (!strcmp(command, "ping") && count == 4 && atoi(words[3]) > 0) return ping(words[2], atoi(words[3]));
  if (!strcmp(command, "answer") && count == 3) return answer(words[2]);
  if (!strcmp(command, "ask") && count == 5) return ask(words[2], words[3], atof(words[4]));
  if (!strcmp(command, "flood") && count == 4) return flood(words[2], atof(words[3]));
  if (!strcmp(command, "inject") && count == 3 && atoi(words[2]) >= 20) return inject(atoi(words[2]));
  fprintf(stderr, "usage: see the beginning of traffic.c\n");
  return 2;
}
