/* light_sink - an SMTP server that takes everything and keeps nothing, for `midsource bench`.
 *
 *     light_sink <delay in ms>
 *
 * Listens on a free port of 127.0.0.1 and prints it. Offers PIPELINING, 8BITMIME, SMTPUTF8 and CHUNKING. With a delay
 * every answer leaves that much later than what it answers arrived, as over a long line; connections do not wait for
 * each other. The line "XCOUNT" is answered "250 messages=N bytes=N connections=N open=N". One process, one epoll loop, no thread: about a tenth of
 * the CPU of Postfix's smtp-sink, so that the sender is measured and not the sink. Linux only.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { INPUT = 131072, OUTPUT = 16384, EVENTS = 256, MARKS = 512 };
enum phase { COMMANDS, DATA, CHUNK };

typedef struct { size_t upto; long due; } mark; /* answers up to this byte may leave at this time (ms) */

typedef struct conn {
    int fd;
    enum phase phase;
    long chunk_left;
    int chunk_last, quitting;
    size_t in, out;
    int marks;
    struct conn *next, **link; /* all connections: those with a delayed answer are looked at each turn */
    mark mark[MARKS];
    char input[INPUT], output[OUTPUT];
} conn;

static long messages, bytes, connections, open_now, delay;
static conn *all;

static long now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void forget(conn *c) {
    *c->link = c->next;
    if (c->next) c->next->link = c->link;
    close(c->fd);
    free(c);
    open_now--;
}

static void say(conn *c, const char *text) {
    size_t n = strlen(text);
    if (c->out + n <= OUTPUT) memcpy(c->output + c->out, text, n), c->out += n;
}

/* Write what is due; 0 when the connection is gone. Answers are small: a sender that reads none of 16 kB is cut off. */
static int flush(conn *c, long now) {
    size_t due = delay ? 0 : c->out;
    int used = 0;
    while (used < c->marks && c->mark[used].due <= now) due = c->mark[used++].upto;
    if (!due) return 1;
    if (write(c->fd, c->output, due) != (ssize_t)due) return forget(c), 0;
    memmove(c->output, c->output + due, c->out -= due);
    memmove(c->mark, c->mark + used, (size_t)(c->marks -= used) * sizeof(mark));
    for (int i = 0; i < c->marks; i++) c->mark[i].upto -= due;
    if (c->quitting && !c->out) return forget(c), 0;
    return 1;
}

static void command(conn *c, const char *line, const char *end) {
    char text[160];
    if (!strncasecmp(line, "EHLO", 4))
        say(c, "250-sink\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250-ENHANCEDSTATUSCODES\r\n250 CHUNKING\r\n");
    else if (!strncasecmp(line, "DATA", 4))
        say(c, "354 go on\r\n"), c->phase = DATA;
    else if (!strncasecmp(line, "BDAT", 4)) {
        c->chunk_left = strtol(line + 5, 0, 10);
        c->chunk_last = memmem(line, (size_t)(end - line), "LAST", 4) != 0;
        if (c->chunk_left) c->phase = CHUNK;
        else messages += c->chunk_last, say(c, "250 2.0.0 Ok\r\n");
    } else if (!strncasecmp(line, "XCOUNT", 6)) {
        snprintf(text, sizeof text, "250 messages=%ld bytes=%ld connections=%ld open=%ld\r\n", messages, bytes, connections, open_now);
        say(c, text);
    } else if (!strncasecmp(line, "QUIT", 4))
        say(c, "221 2.0.0 Bye\r\n"), c->quitting = 1;
    else
        say(c, "250 2.1.0 Ok\r\n");
}

/* Eat one piece of input: return where the rest begins, or 0 when more must come first. */
static char *eat(conn *c, char *at, char *end) {
    char *found;
    if (c->phase == COMMANDS) {
        if (!(found = memchr(at, '\n', (size_t)(end - at)))) return 0;
        command(c, at, found);
        return found + 1;
    }
    if (c->phase == CHUNK) {
        long taken = end - at < c->chunk_left ? end - at : c->chunk_left;
        if (!(c->chunk_left -= taken)) {
            c->phase = COMMANDS;
            messages += c->chunk_last;
            say(c, "250 2.0.0 Ok\r\n");
        }
        return at + taken;
    }
    if ((found = memmem(at, (size_t)(end - at), "\r\n.\r\n", 5))) {
        c->phase = COMMANDS;
        messages++;
        say(c, "250 2.0.0 Ok\r\n");
        return found + 5;
    }
    return end - at > 4 ? end - 4 : 0; /* the final dot may be cut anywhere: its last four bytes stay */
}

static void hear(conn *c) {
    ssize_t got = read(c->fd, c->input + c->in, INPUT - c->in);
    if (got < 0 && errno == EAGAIN) return;
    if (got <= 0) { forget(c); return; }
    bytes += got;
    c->in += (size_t)got;
    char *at = c->input, *end = c->input + c->in, *next;
    size_t before = c->out;
    while (at < end && (next = eat(c, at, end))) at = next;
    memmove(c->input, at, c->in = (size_t)(end - at));
    if (c->in == INPUT) { forget(c); return; } /* a line without an end */
    if (delay && c->out > before) {
        if (c->marks == MARKS) c->marks--; /* more than fits: the last ones leave together, later */
        c->mark[c->marks++] = (mark){c->out, now_ms() + delay};
    } else if (!delay)
        flush(c, 0);
}

static void take(int listener, int poll) {
    int fd, one = 1;
    while ((fd = accept4(listener, 0, 0, SOCK_NONBLOCK)) >= 0) {
        conn *c = calloc(1, sizeof *c);
        if (!c) { close(fd); return; }
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        c->fd = fd, c->next = all, c->link = &all;
        if (all) all->link = &c->next;
        all = c, connections++, open_now++;
        epoll_ctl(poll, EPOLL_CTL_ADD, fd, &(struct epoll_event){.events = EPOLLIN, .data.ptr = c});
        say(c, "220 sink ESMTP\r\n");
        if (delay) c->mark[c->marks++] = (mark){c->out, now_ms() + delay};
        else flush(c, 0);
    }
}

int main(int argc, char **argv) {
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof here;
    struct epoll_event events[EVENTS];
    delay = argc > 1 ? atol(argv[1]) : 0;
    signal(SIGPIPE, SIG_IGN);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), poll = epoll_create1(0);
    if (bind(listener, (void *)&here, size) || listen(listener, 1024) || getsockname(listener, (void *)&here, &size)) {
        perror("light_sink");
        return 1;
    }
    epoll_ctl(poll, EPOLL_CTL_ADD, listener, &(struct epoll_event){.events = EPOLLIN});
    printf("%d\n", ntohs(here.sin_port));
    fflush(stdout);
    for (;;) {
        int n = epoll_wait(poll, events, EVENTS, delay ? 1 : -1);
        for (int i = 0; i < n; i++) {
            if (events[i].data.ptr) hear(events[i].data.ptr);
            else take(listener, poll);
        }
        if (delay) {
            long now = now_ms();
            for (conn *c = all, *next; c; c = next) next = c->next, flush(c, now);
        }
    }
}
