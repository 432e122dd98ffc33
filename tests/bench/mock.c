/* A Messages API that costs next to nothing: one thread, epoll, answers made once.
 *
 *   mock PORT        (0: any free port; the port is printed on standard output)
 *
 * The answer is chosen by the query: `?events=N` streams N text deltas between the usual opening and closing
 * events, `&gap_us=G` spaces them, each event one chunk and one write; without `events` a JSON message of about
 * 1 kB. `&hold_ms=H` waits before the answer's head. Every delta carries the instant at which it was due
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
    long long body_left; /* >= 0: bytes; -1: no request yet; -2: chunked */
    char tail[5];        /* last bytes of a chunked body */
    int events_left, gap_us, closing;
    int64_t due;
} Conn;

static Conn *conns[MAX_FD];
static int queue[MAX_FD * 4]; /* streams in the order in which their next event is due */
static unsigned queue_head, queue_tail;
#define QUEUE_MASK (MAX_FD * 4 - 1)

static char json_answer[2048], opening[2048], closing_events[1024];
static int json_bytes, opening_bytes, closing_bytes;

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static int add_chunk(char *out, const char *data) {
    return sprintf(out, "%zx\r\n%s\r\n", strlen(data), data);
}

static void make_answers(void) {
    static char text[600];
    memset(text, 'w', sizeof text - 1);
    const char *usage = "{\"input_tokens\":12,\"cache_creation_input_tokens\":0,"
                        "\"cache_read_input_tokens\":0,\"output_tokens\":90}";
    char body[1500];
    int n = sprintf(body,
                    "{\"id\":\"msg_mock\",\"type\":\"message\",\"role\":\"assistant\",\"model\":\"claude-sonnet-4-5\","
                    "\"content\":[{\"type\":\"text\",\"text\":\"%s\"}],\"stop_reason\":\"end_turn\","
                    "\"stop_sequence\":null,\"usage\":%s}",
                    text, usage);
    json_bytes = sprintf(json_answer,
                         "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nrequest-id: req_mock\r\n"
                         "content-length: %d\r\n\r\n%s",
                         n, body);
    char *p = opening;
    p += sprintf(p, "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\nrequest-id: req_mock\r\n"
                    "cache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n");
    char event[800];
    sprintf(event,
            "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"msg_mock\","
            "\"type\":\"message\",\"role\":\"assistant\",\"model\":\"claude-sonnet-4-5\",\"content\":[],"
            "\"stop_reason\":null,\"stop_sequence\":null,\"usage\":%s}}\n\n",
            usage);
    p += add_chunk(p, event);
    p += add_chunk(p, "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,"
                      "\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n");
    opening_bytes = (int)(p - opening);
    p = closing_events;
    p += add_chunk(p, "event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":0}\n\n");
    p += add_chunk(p, "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\","
                      "\"stop_sequence\":null},\"usage\":{\"output_tokens\":90}}\n\n");
    p += add_chunk(p, "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n");
    p += sprintf(p, "0\r\n\r\n");
    closing_bytes = (int)(p - closing_events);
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

static int answer(int fd, Conn *c) {
    long events = query_number(c->head, "events="), gap = query_number(c->head, "gap_us=");
    long hold = query_number(c->head, "hold_ms=");
    c->used = 0;
    c->body_left = -1;
    if (hold) usleep(hold * 1000);
    if (!events) return put(fd, json_answer, json_bytes);
    if (put(fd, opening, opening_bytes)) return -1;
    if (gap) {
        c->events_left = events;
        c->gap_us = gap;
        c->due = now_ns() + (int64_t)gap * 1000;
        queue[queue_tail++ & QUEUE_MASK] = fd;
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
    c->body_left = strcasestr(c->head, "\r\ntransfer-encoding:") ? -2 : length ? atoll(length + 17) : 0;
    strcat(c->head, "\r\n");
    memset(c->tail, 0, sizeof c->tail);
    if (strcasestr(c->head, "\r\nexpect:") && put(fd, "HTTP/1.1 100 Continue\r\n\r\n", 25)) return -1;
    if (c->body_left == 0) return answer(fd, c);
    return n > rest_at ? take_body(fd, c, buffer + rest_at, (int)n - rest_at) : 0;
}

/* Sends what is due; returns when more is, 0 where nothing is waited for. */
static int64_t run_streams(void) {
    while (queue_head != queue_tail) {
        int fd = queue[queue_head & QUEUE_MASK];
        Conn *c = conns[fd];
        if (!c || !c->events_left) {
            queue_head++;
            continue;
        }
        if (c->due > now_ns()) return c->due;
        queue_head++;
        int failed = put_event(fd, c->due);
        if (!failed && --c->events_left == 0)
            failed = put(fd, closing_events, closing_bytes);
        else
            queue[queue_tail++ & QUEUE_MASK] = fd;
        c->due += (int64_t)c->gap_us * 1000;
        if (failed) drop(fd);
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
