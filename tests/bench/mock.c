/* A Messages API that costs next to nothing: one thread, epoll, answers made once.
 *
 *   mock PORT        (0: any free port; the port is printed on standard output)
 *
 * The answer is chosen by the query: `?events=N` streams N text deltas between the usual opening and closing
 * events, `&gap_us=G` spaces them, each event one chunk and one write, and the streams lie evenly in that gap however
 * quickly they were opened: events that come together cost a proxy less. Without `events`: a JSON message of about
 * 1 kB. `&read=P` and `&write=Q` are the per cent of the prompt that its usage reports as read from the cache and as
 * written to it: who is told that nothing was read of what it had cached takes that for lost, and begins anew.
 * `&hold_ms=H` waits before the answer's head. Every delta carries the instant at which it was due
 * (CLOCK_MONOTONIC, ns) as `t=...`, so that the load generator can tell the lag.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define MAX_FD 16384
#define HEAD_BYTES 32768

typedef struct {
    char head[HEAD_BYTES];
    int used;
    long long body_bytes;
    long long body_left; /* >= 0: bytes; -1: no request yet; -2: chunked */
    char tail[5];        /* last bytes of a chunked body */
    int events_left, gap_us, closing;
    unsigned stream; /* its number: a connection may carry another by the time an entry of the queue is looked at */
    int64_t due;
} Conn;

typedef struct {
    int fd;
    unsigned stream;
} Entry;

static Conn *conns[MAX_FD];
static Entry queue[MAX_FD * 4]; /* streams in the order in which their next event is due */
static unsigned queue_head, queue_tail, streams_begun;
#define PROBED "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
#define QUEUE_MASK (MAX_FD * 4 - 1)
#define GOLDEN 2654435769u /* of 2^32: its multiples lie evenly, however many there are */

static char text[600], closing_events[1024];
static int closing_bytes;

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static int add_chunk(char *out, const char *data) {
    return sprintf(out, "%zx\r\n%s\r\n", strlen(data), data);
}

static void make_answers(void) {
    memset(text, 'w', sizeof text - 1);
    char *p = closing_events;
    p += add_chunk(p, "event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":0}\n\n");
    p += add_chunk(p, "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\","
                      "\"stop_sequence\":null},\"usage\":{\"output_tokens\":90}}\n\n");
    p += add_chunk(p, "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n");
    p += sprintf(p, "0\r\n\r\n");
    closing_bytes = (int)(p - closing_events);
}

static int message(char *out, const char *content, const char *stop, const char *usage) {
    return sprintf(out,
                   "{\"id\":\"msg_mock\",\"type\":\"message\",\"role\":\"assistant\",\"model\":\"claude-sonnet-4-5\","
                   "\"content\":[%s],\"stop_reason\":%s,\"stop_sequence\":null,\"usage\":%s}",
                   content, stop, usage);
}

static int json_answer(char *out, const char *usage) {
    char content[700], body[1500];
    sprintf(content, "{\"type\":\"text\",\"text\":\"%s\"}", text);
    int n = message(body, content, "\"end_turn\"", usage);
    return sprintf(out,
                   "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nrequest-id: req_mock\r\n"
                   "content-length: %d\r\n\r\n%s",
                   n, body);
}

static int opening(char *out, const char *usage) {
    char begun[600], event[800];
    message(begun, "", "null", usage);
    sprintf(event, "event: message_start\ndata: {\"type\":\"message_start\",\"message\":%s}\n\n", begun);
    char *p = out;
    p += sprintf(p, "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\nrequest-id: req_mock\r\n"
                    "cache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n");
    p += add_chunk(p, event);
    p += add_chunk(p, "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,"
                      "\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n");
    return (int)(p - out);
}

static void drop(int fd) {
    free(conns[fd]); /* a queued stream is skipped when its turn comes */
    conns[fd] = NULL;
    close(fd);
}

/* Answers are smaller than a socket's buffer; a client too slow for that is cut. */
static int put(int fd, const char *data, int n) {
    return send(fd, data, n, MSG_NOSIGNAL) == n ? 0 : -1;
}

static int put_event(int fd, int64_t due) {
    char event[400], chunk[450];
    sprintf(event,
            "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,"
            "\"delta\":{\"type\":\"text_delta\",\"text\":\"t=%019lld and some words\"}}\n\n",
            (long long)due);
    return put(fd, chunk, add_chunk(chunk, event));
}

static long query_number(const char *head, const char *name) {
    const char *end = strstr(head, "\r\n"), *at = strstr(head, name);
    return at && at < end ? atol(at + strlen(name)) : 0;
}

/* At four bytes a token. */
static void usage_of(const Conn *c, char *out) {
    long long tokens = c->body_bytes / 4 + 12;
    long long read = tokens * query_number(c->head, "read=") / 100, write = tokens * query_number(c->head, "write=") / 100;
    sprintf(out,
            "{\"input_tokens\":%lld,\"cache_creation_input_tokens\":%lld,\"cache_read_input_tokens\":%lld,"
            "\"output_tokens\":90}",
            tokens - read - write, write, read);
}

static Conn *stream_of(Entry entry) {
    Conn *c = conns[entry.fd];
    return c && c->events_left && c->stream == entry.stream ? c : NULL;
}

/* Streams have one gap, so only those that begin find others that are due later. */
static void enqueue(int fd, Conn *c) {
    unsigned at = queue_tail++;
    for (; at != queue_head; at--) {
        Entry before = queue[(at - 1) & QUEUE_MASK];
        Conn *other = stream_of(before);
        if (other && other->due <= c->due) break;
        queue[at & QUEUE_MASK] = before;
    }
    queue[at & QUEUE_MASK] = (Entry){fd, c->stream};
}

static int answer(int fd, Conn *c) {
    long events = query_number(c->head, "events="), gap = query_number(c->head, "gap_us=");
    long hold = query_number(c->head, "hold_ms=");
    int is_probe = !strncmp(c->head, "HEAD ", 5);
    char usage[200], out[2500];
    usage_of(c, usage);
    c->used = 0;
    c->body_left = -1;
    if (hold) usleep(hold * 1000);
    if (is_probe) return put(fd, PROBED, sizeof PROBED - 1);
    if (!events) return put(fd, out, json_answer(out, usage));
    if (put(fd, out, opening(out, usage))) return -1;
    if (gap) {
        c->events_left = events;
        c->gap_us = gap;
        c->stream = ++streams_begun;
        c->due = now_ns() + (gap * 1000 >> 8) * (c->stream * GOLDEN >> 16) / 256;
        enqueue(fd, c);
        return 0;
    }
    for (long i = 0; i < events; i++)
        if (put_event(fd, now_ns())) return -1;
    return put(fd, closing_events, closing_bytes);
}

static int take_body(int fd, Conn *c, const char *data, int n) {
    if (c->body_left >= 0) {
        c->body_left -= n;
        return c->body_left <= 0 ? answer(fd, c) : 0;
    }
    int keep = n < 5 ? 5 - n : 0; /* of a chunked body only the end matters */
    memmove(c->tail, c->tail + 5 - keep, keep);
    memcpy(c->tail + keep, data + (n - (5 - keep)), 5 - keep);
    return memcmp(c->tail, "0\r\n\r\n", 5) == 0 ? answer(fd, c) : 0;
}

static int readable(int fd, Conn *c) {
    static char buffer[262144];
    ssize_t n = recv(fd, buffer, sizeof buffer, 0);
    if (n <= 0) return n < 0 && errno == EAGAIN ? 0 : -1;
    if (c->body_left != -1) return take_body(fd, c, buffer, n);
    int room = HEAD_BYTES - 1 - c->used, take = n < room ? n : room, before = c->used;
    memcpy(c->head + c->used, buffer, take);
    c->used += take;
    c->head[c->used] = 0;
    char *end = memmem(c->head, c->used, "\r\n\r\n", 4);
    if (!end) return c->used == HEAD_BYTES - 1 ? -1 : 0;
    *end = 0;
    int rest_at = (int)(end + 4 - c->head) - before;
    char *length = strcasestr(c->head, "\r\ncontent-length:");
    c->body_bytes = length ? atoll(length + 17) : 0;
    c->body_left = strcasestr(c->head, "\r\ntransfer-encoding:") ? -2 : c->body_bytes;
    strcat(c->head, "\r\n");
    memset(c->tail, 0, sizeof c->tail);
    if (strcasestr(c->head, "\r\nexpect:") && put(fd, "HTTP/1.1 100 Continue\r\n\r\n", 25)) return -1;
    if (c->body_left == 0) return answer(fd, c);
    return n > rest_at ? take_body(fd, c, buffer + rest_at, (int)n - rest_at) : 0;
}

/* Sends what is due; returns when more is, 0 where nothing is waited for. */
static int64_t run_streams(void) {
    while (queue_head != queue_tail) {
        Entry first = queue[queue_head & QUEUE_MASK];
        Conn *c = stream_of(first);
        if (!c) {
            queue_head++;
            continue;
        }
        if (c->due > now_ns()) return c->due;
        queue_head++;
        int failed = put_event(first.fd, c->due);
        c->due += (int64_t)c->gap_us * 1000;
        if (!failed && --c->events_left == 0)
            failed = put(first.fd, closing_events, closing_bytes);
        else if (!failed)
            enqueue(first.fd, c);
        if (failed) drop(first.fd);
    }
    return 0;
}

/* To the nanosecond: neither late by a millisecond nor awake all the while, as it shares a core. */
static void wake_at(int timer, int64_t due) {
    struct itimerspec when = {.it_value = {.tv_sec = due / 1000000000, .tv_nsec = due % 1000000000}};
    timerfd_settime(timer, TFD_TIMER_ABSTIME, &when, NULL);
}

int main(int argc, char **argv) {
    signal(SIGPIPE, SIG_IGN);
    make_answers();
    int one = 1, server = socket(AF_INET, SOCK_STREAM, 0), poller = epoll_create1(0);
    setsockopt(server, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(argc > 1 ? atoi(argv[1]) : 0)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    if (bind(server, (struct sockaddr *)&address, size) || listen(server, 4096)) return perror("mock"), 1;
    getsockname(server, (struct sockaddr *)&address, &size);
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    int timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    struct epoll_event event = {.events = EPOLLIN, .data.fd = server}, ready[512];
    epoll_ctl(poller, EPOLL_CTL_ADD, server, &event);
    event = (struct epoll_event){.events = EPOLLIN | EPOLLET, .data.fd = timer};
    epoll_ctl(poller, EPOLL_CTL_ADD, timer, &event);
    for (;;) {
        wake_at(timer, run_streams());
        int n = epoll_wait(poller, ready, 512, -1);
        for (int i = 0; i < n; i++) {
            int fd = ready[i].data.fd;
            if (fd == timer) continue;
            if (fd == server) {
                int client = accept4(server, NULL, NULL, SOCK_NONBLOCK);
                if (client < 0) continue;
                if (client >= MAX_FD) {
                    close(client);
                    continue;
                }
                setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
                conns[client] = calloc(1, sizeof(Conn));
                conns[client]->body_left = -1;
                event = (struct epoll_event){.events = EPOLLIN, .data.fd = client};
                epoll_ctl(poller, EPOLL_CTL_ADD, client, &event);
            } else if (conns[fd] && readable(fd, conns[fd])) {
                drop(fd);
            }
        }
    }
}
