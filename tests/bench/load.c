/* Drives a proxy over kept-alive connections: one thread, epoll.
 *
 *   load PORT CONNECTIONS REQUESTS HEAD_FILE BODY_FILE [RATE [PID]]
 *
 * Each connection sends the same request (HEAD_FILE: request line and headers without content-length, each line
 * ended by CRLF, no empty line) again as soon as its answer is complete, until REQUESTS are answered. With RATE
 * that many are due each second, whoever is free sends the next one, and latency counts from when it was due.
 * RATE 0 is as fast as answered. Of the process PID it tells the most CPU time that it used while a request was
 * under way: so long it was busy itself, whatever else the machine did.
 * As soon as as many answers have begun as there are connections, it says `open` on standard error; no event's
 * lag is counted before, nor before a SIGUSR1. SIGTERM ends it; what is under way then is no failure.
 * Each run of twelve `@` in the body becomes the number of the request, so that no two bodies are the same.
 * Prints one line of JSON: answers, failures, events seen, seconds, latency and event lag percentiles in
 * microseconds. Exits with 1 where any request failed: a cut, a status other than 200, a malformed body.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/perf_event.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define HEAD_BYTES 16384

typedef struct {
    int fd, used, in_body, chunked, chunk_line, trailer;
    long long left;     /* bytes of the body or chunk that are still to come */
    long long sent;     /* of the request */
    long long size;     /* of the chunk whose size line is being read */
    char last[24];      /* end of the previous read: an instant may straddle two */
    int last_used;
    int64_t started;
    int64_t own_started; /* what the target had computed by then */
    char *request;      /* its own where bodies vary */
    char head[HEAD_BYTES];
} Conn;

#define MARK "@@@@@@@@@@@@"
#define MOST_MARKS 16

static char *request;
static long long request_bytes;
static long long marks[MOST_MARKS];
static int marks_used;
static double rate;
#define MOST_THREADS 64
static int threads[MOST_THREADS]; /* a counter for each thread of the target */
static int threads_used;
static int target; /* whose clock is read instead; 0: none */
static clockid_t target_clock;
static int64_t own_max;
static int64_t began;
static long heads, wanted_heads;
static volatile sig_atomic_t stopped, lags_count;
static long numbered, due_count;
static Conn **idle;
static int idle_used;
static long to_send, to_answer, answered, failed;
static long events;
static double *latencies;
static float *lags;
static long lags_room, lags_used;
static struct sockaddr_in address;
static int poller;

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* Counted by the kernel's task clock: what /proc says lacks what a thread has run since the last tick. Where
 * the kernel counts for nobody but root (perf_event_paranoid 3), the process's clock, which lacks it too. */
static int64_t own_ns(void) {
    int64_t sum = 0, one;
    struct timespec t;
    if (target && !clock_gettime(target_clock, &t)) return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
    for (int i = 0; i < threads_used; i++)
        if (read(threads[i], &one, sizeof one) == sizeof one) sum += one;
    return sum;
}

static void count_threads(int pid) {
    struct perf_event_attr what = {
        .type = PERF_TYPE_SOFTWARE,
        .size = sizeof what,
        .config = PERF_COUNT_SW_TASK_CLOCK,
        .exclude_kernel = 1, /* this clock counts it all the same, and so nobody need be root */
    };
    char path[40];
    snprintf(path, sizeof path, "/proc/%d/task", pid);
    DIR *all = opendir(path);
    if (!all) perror(path), exit(2);
    for (struct dirent *one; (one = readdir(all)) && threads_used < MOST_THREADS;) {
        if (*one->d_name == '.') continue;
        int counter = syscall(SYS_perf_event_open, &what, atoi(one->d_name), -1, -1, PERF_FLAG_FD_CLOEXEC);
        if (counter < 0) {
            if (clock_getcpuclockid(pid, &target_clock)) perror(path), exit(2);
            target = pid;
            break;
        }
        threads[threads_used++] = counter;
    }
    closedir(all);
}

static void watch(Conn *c, int how, uint32_t what) {
    struct epoll_event event = {.events = what, .data.ptr = c};
    epoll_ctl(poller, how, c->fd, &event);
}

static void push(Conn *c) {
    while (c->sent < request_bytes) {
        ssize_t n = send(c->fd, c->request + c->sent, request_bytes - c->sent, MSG_NOSIGNAL);
        if (n < 0) break;
        c->sent += n;
    }
    watch(c, EPOLL_CTL_MOD, c->sent < request_bytes ? EPOLLIN | EPOLLOUT : EPOLLIN);
}

static void begin_request(Conn *c, int64_t started) {
    char number[24];
    snprintf(number, sizeof number, "%012ld", ++numbered);
    for (int i = 0; i < marks_used; i++) memcpy(c->request + marks[i], number, 12);
    to_send--;
    c->sent = 0;
    c->started = started;
    c->own_started = own_ns();
    push(c);
}

static int64_t due_ns(void) { return began + (int64_t)(due_count * 1e9 / rate); }

/* Returns when the next request is due; 0 where none is waited for. */
static int64_t send_due(void) {
    if (!rate) return 0;
    while (to_send > 0 && due_ns() <= now_ns() && idle_used) {
        int64_t due = due_ns();
        due_count++;
        begin_request(idle[--idle_used], due);
    }
    return to_send > 0 && idle_used ? due_ns() : 0;
}

/* To the nanosecond: neither late by a millisecond nor awake all the while, as it shares a core. */
static void wake_at(int timer, int64_t due) {
    struct itimerspec when = {.it_value = {.tv_sec = due / 1000000000, .tv_nsec = due % 1000000000}};
    timerfd_settime(timer, TFD_TIMER_ABSTIME, &when, NULL);
}

static void next_request(Conn *c) {
    c->used = c->in_body = c->trailer = c->last_used = 0;
    if (to_send <= 0 || rate) {
        c->sent = request_bytes;
        if (rate) idle[idle_used++] = c;
        return;
    }
    begin_request(c, now_ns());
}

static int dial(Conn *c) {
    int one = 1;
    c->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(c->fd, (struct sockaddr *)&address, sizeof address)) return -1;
    fcntl(c->fd, F_SETFL, O_NONBLOCK);
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    watch(c, EPOLL_CTL_ADD, EPOLLIN);
    return 0;
}

static void finished(Conn *c, int good) {
    int64_t own = own_ns() - c->own_started;
    if (own > own_max) own_max = own;
    if (good)
        latencies[answered++] = (now_ns() - c->started) / 1e3;
    else
        failed++;
    next_request(c);
}

static void broken(Conn *c) {
    close(c->fd);
    if (c->sent < request_bytes || c->started) failed++;
    c->started = 0;
    if (to_send > 0 && dial(c) == 0) next_request(c);
}

static void note_events(Conn *c, const char *data, int n) {
    int64_t now = now_ns();
    char edge[64];
    int head = n < 24 ? n : 24;
    memcpy(edge, c->last, c->last_used);
    memcpy(edge + c->last_used, data, head);
    const char *texts[2] = {edge, data};
    int sizes[2] = {c->last_used + head, n};
    for (int k = 0; k < 2; k++) {
        const char *p = texts[k], *end = p + sizes[k];
        while ((p = memmem(p, end - p, "\"t=", 3)) && p + 22 <= end) {
            int straddles = k || (p < edge + c->last_used && p + 22 > edge + c->last_used);
            if (straddles) {
                events++;
                if (lags_count && lags_used < lags_room) lags[lags_used++] = (now - atoll(p + 3)) / 1e3;
            }
            p += 22;
        }
    }
    int keep = n < 21 ? n : 21;
    c->last_used = keep;
    memcpy(c->last, data + n - keep, keep);
}

/* Returns -1 for a malformed body; calls `finished` at its end. */
static int take_body(Conn *c, const char *data, int n) {
    if (n > 0) note_events(c, data, n);
    if (!c->chunked) {
        c->left -= n;
        if (c->left < 0) return -1;
        if (c->left == 0) finished(c, 1);
        return 0;
    }
    for (int i = 0; i < n;) {
        if (c->left > 0) {
            int take = c->left < n - i ? (int)c->left : n - i;
            c->left -= take;
            i += take;
            continue;
        }
        char byte = data[i++];
        if (byte == '\n') {
            if (!c->chunk_line) { /* the line end after a chunk's data */
                if (c->trailer) {
                    finished(c, 1);
                    return i == n ? 0 : -1;
                }
                c->chunk_line = 1;
                c->size = 0;
            } else {
                c->chunk_line = 0;
                c->trailer = c->size == 0;
                c->left = c->size;
            }
        } else if (byte != '\r') {
            int digit = byte <= '9' ? byte - '0' : (byte | 32) - 'a' + 10;
            if (!c->chunk_line || digit < 0 || digit > 15) return -1;
            c->size = c->size * 16 + digit;
        }
    }
    return 0;
}

static int take(Conn *c, char *data, int n) {
    if (c->in_body) return take_body(c, data, n);
    int before = c->used, room = HEAD_BYTES - 1 - before, copied = n < room ? n : room;
    memcpy(c->head + before, data, copied);
    c->used += copied;
    c->head[c->used] = 0;
    char *end = memmem(c->head, c->used, "\r\n\r\n", 4);
    if (!end) return copied < n ? -1 : 0;
    if (strncmp(c->head, "HTTP/1.1 200", 12)) {
        static int shown;
        if (!shown++) fprintf(stderr, "%.600s\n", c->head);
        return -1;
    }
    int at = (int)(end + 4 - c->head) - before, rest = n - at;
    *end = 0;
    char *length = strcasestr(c->head, "\r\ncontent-length:");
    c->chunked = strcasestr(c->head, "\r\ntransfer-encoding: chunked") != NULL;
    c->chunk_line = 1;
    c->size = 0;
    c->left = c->chunked ? 0 : length ? atoll(length + 17) : -1;
    c->in_body = 1;
    if (++heads == wanted_heads) {
        fputs("open\n", stderr);
        lags_count = 1;
    }
    if (c->left < 0) return -1;
    return rest || c->left == 0 ? take_body(c, data + at, rest) : 0;
}

static int by_double(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}
static int by_float(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static char *slurp(const char *path, long *size) {
    FILE *f = fopen(path, "rb");
    if (!f) {
        perror(path);
        exit(2);
    }
    fseek(f, 0, SEEK_END);
    *size = ftell(f);
    rewind(f);
    char *data = malloc(*size + 1);
    if (fread(data, 1, *size, f) != (size_t)*size) exit(2);
    fclose(f);
    return data;
}

static void make_request(const char *head_path, const char *body_path) {
    long head_bytes, body_bytes;
    char *head = slurp(head_path, &head_bytes), *body = slurp(body_path, &body_bytes);
    request = malloc(head_bytes + body_bytes + 64);
    memcpy(request, head, head_bytes);
    request_bytes = head_bytes + sprintf(request + head_bytes, "content-length: %ld\r\n\r\n", body_bytes);
    memcpy(request + request_bytes, body, body_bytes);
    for (char *p = request + request_bytes, *end = p + body_bytes; marks_used < MOST_MARKS;) {
        if (!(p = memmem(p, end - p, MARK, 12))) break;
        marks[marks_used++] = p - request;
        p += 12;
    }
    request_bytes += body_bytes;
}

static char *own_request(void) {
    if (!marks_used) return request;
    return memcpy(malloc(request_bytes), request, request_bytes);
}

static void stop(int number) { stopped = number; }
static void forget_lags(int number) { lags_used = 0 * number; }

int main(int argc, char **argv) {
    if (argc < 6 || argc > 8)
        return fprintf(stderr, "load PORT CONNECTIONS REQUESTS HEAD_FILE BODY_FILE [RATE [PID]]\n"), 2;
    rate = argc > 6 ? atof(argv[6]) : 0;
    if (argc > 7 && atoi(argv[7])) count_threads(atoi(argv[7]));
    int connections = atoi(argv[2]);
    wanted_heads = connections;
    to_send = to_answer = atol(argv[3]);
    make_request(argv[4], argv[5]);
    latencies = calloc(to_answer + 1, sizeof *latencies);
    lags_room = 4000000;
    lags = malloc(lags_room * sizeof *lags);
    address = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(atoi(argv[1]))};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    poller = epoll_create1(0);
    int timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    struct epoll_event event = {.events = EPOLLIN | EPOLLET, .data.ptr = NULL};
    epoll_ctl(poller, EPOLL_CTL_ADD, timer, &event);
    began = now_ns();
    signal(SIGTERM, stop);
    signal(SIGUSR1, forget_lags);
    idle = calloc(connections * 2, sizeof *idle);
    Conn *all = calloc(connections, sizeof *all);
    for (int i = 0; i < connections; i++) {
        all[i].request = own_request();
        if (dial(&all[i])) return perror("connect"), 1;
        next_request(&all[i]);
    }
    static char buffer[262144];
    struct epoll_event ready[512];
    while (!stopped && answered + failed < to_answer) {
        wake_at(timer, send_due());
        int n = epoll_wait(poller, ready, 512, 30000);
        if (n == 0) break; /* nothing for half a minute */
        for (int i = 0; i < n; i++) {
            Conn *c = ready[i].data.ptr;
            if (!c) continue;
            if (ready[i].events & EPOLLOUT) push(c);
            if (!(ready[i].events & ~EPOLLOUT)) continue;
            ssize_t got = recv(c->fd, buffer, sizeof buffer, 0);
            if (got < 0 && errno == EAGAIN) continue;
            if (got <= 0 || take(c, buffer, (int)got) < 0) broken(c);
        }
    }
    double seconds = (now_ns() - began) / 1e9;
    long missing = stopped ? failed : to_answer - answered;
    qsort(latencies, answered, sizeof *latencies, by_double);
    qsort(lags, lags_used, sizeof *lags, by_float);
    printf("{\"answered\":%ld,\"failed\":%ld,\"events\":%ld,\"seconds\":%.4f,\"p50_us\":%.1f,\"p99_us\":%.1f,"
           "\"max_us\":%.1f,\"own_max_us\":%.1f,\"lag_p50_us\":%.1f,\"lag_p99_us\":%.1f}\n",
           answered, missing, events, seconds, answered ? latencies[answered / 2] : 0,
           answered ? latencies[answered * 99 / 100] : 0, answered ? latencies[answered - 1] : 0,
           own_max / 1e3, lags_used ? lags[lags_used / 2] : 0,
           lags_used ? lags[lags_used * 99 / 100] : 0);
    return missing != 0;
}
