#include "hostile.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "passing.h"
#include "wire.h"

#define FDS_MOST 8

/* The input. */

bool input_is_over(const struct input *input)
{
    return !input->size;
}

uint8_t input_byte(struct input *input)
{
    uint8_t byte = 0;
    input_bytes(input, &byte, 1);
    return byte;
}

unsigned input_below(struct input *input, unsigned limit)
{
    return input_byte(input) % limit;
}

uint64_t input_number(struct input *input)
{
    static const uint64_t numbers[] = {
        0,          1,         7,          0x7f,       0xff,        0x7fff,    0xffff,
        4064,       4096,      32768,      1 << 16,    1 << 20,     INT32_MAX, (1u << 31),
        UINT32_MAX, INT64_MAX, UINT64_MAX, 1ull << 63, 0x40000001u, 64,        UINT64_MAX - 7};
    uint64_t number = 0;
    unsigned kind = input_below(input, 2 * sizeof numbers / sizeof *numbers);
    if (kind < sizeof numbers / sizeof *numbers)
        return numbers[kind];
    input_bytes(input, &number, 1 + kind % 8);
    return number;
}

void input_bytes(struct input *input, void *bytes, size_t size)
{
    size_t there = size < input->size ? size : input->size;
    memset(bytes, 0, size);
    if (there)
        memcpy(bytes, input->data, there);
    input->data += there;
    input->size -= there;
}

void input_mutate(struct input *input, void *frame, size_t size)
{
    if (input_below(input, 4))
        return;
    uint64_t number = input_number(input);
    size_t width = (size_t)1 << input_below(input, 4), place = input_below(input, (unsigned)(size / width));
    memcpy((char *)frame + place * width, &number, width);
}

/* Descriptors. */

int ends_add(struct ends *ends, int fd)
{
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    if (ends->count == ENDS)
        close(ends->fds[--ends->count]);
    ends->fds[ends->count++] = fd;
    return fd;
}

int ends_pick(const struct ends *ends, struct input *input)
{
    if (!ends->count)
        return -1;
    /* The latest of them is the one that is likely to be in use. */
    return ends->fds[ends->count - 1 - input_below(input, (unsigned)ends->count)];
}

void ends_close_one(struct ends *ends, struct input *input)
{
    if (!ends->count)
        return;
    size_t place = ends->count - 1 - input_below(input, (unsigned)ends->count);
    close(ends->fds[place]);
    ends->fds[place] = ends->fds[--ends->count];
}

void ends_close(struct ends *ends)
{
    while (ends->count)
        close(ends->fds[--ends->count]);
}

void ends_drain(const struct ends *ends)
{
    char room[65536];
    for (size_t i = 0; i < ends->count; i++)
        for (int times = 0; times < 4 && read(ends->fds[i], room, sizeof room) > 0; times++)
            ;
}

int hostile_pipe(struct ends *near, bool is_read_by_us)
{
    int fds[2];
    if (pipe(fds))
        return -1;
    ends_add(near, fds[is_read_by_us ? 0 : 1]);
    return fds[is_read_by_us ? 1 : 0];
}

static int memory(struct input *input)
{
    int fd = memfd_create("hostile", MFD_ALLOW_SEALING | MFD_CLOEXEC);
    if (ftruncate(fd, (off_t)(input_number(input) % (1 << 21))))
        return fd;
    fcntl(fd, F_ADD_SEALS, (int)input_below(input, 32) & ~F_SEAL_SEAL);
    return fd;
}

static int full_pipe(struct ends *near)
{
    static const char page[4096];
    int fds[2];
    if (pipe2(fds, O_NONBLOCK))
        return -1;
    fcntl(fds[1], F_SETPIPE_SZ, 4096);
    while (write(fds[1], page, sizeof page) > 0)
        ;
    ends_add(near, fds[0]);
    return fds[1];
}

static int one_of_a_pair(struct ends *near, int type)
{
    int fds[2];
    if (socketpair(AF_UNIX, type, 0, fds))
        return -1;
    ends_add(near, fds[0]);
    return fds[1];
}

static int listener(void)
{
    int sock = socket(AF_UNIX, SOCK_STREAM, 0);
    listen(sock, 1);
    return sock;
}

int hostile_descriptor(struct input *input, struct ends *near)
{
    int own;
    switch (input_below(input, 16)) {
    case 0:
    case 1:
        return hostile_pipe(near, false);
    case 2:
    case 3:
        return hostile_pipe(near, true);
    case 4:
    case 5:
        return memory(input);
    case 6:
        return one_of_a_pair(near, SOCK_STREAM);
    case 7:
        return one_of_a_pair(near, SOCK_SEQPACKET);
    case 8:
        return one_of_a_pair(near, SOCK_DGRAM);
    case 9:
        return listener();
    case 10:
        return open("/dev/zero", O_RDWR);
    case 11:
        return open("/dev/null", input_below(input, 2) ? O_RDWR : O_PATH);
    case 12:
        return open("/", O_RDONLY | O_DIRECTORY);
    case 13:
        return epoll_create1(0);
    case 14:
        own = ends_pick(near, input);
        return own < 0 ? eventfd(0, 0) : dup(own);
    default:
        return input_below(input, 8) ? eventfd(0, 0) : full_pipe(near); /* Full ones take the other side a second. */
    }
}

/* Frames. */

static void abort_at(int signal)
{
    (void)signal;
    abort();
}

void hostile_write(int fd, const void *bytes, size_t size)
{
    signal(SIGPIPE, SIG_IGN);
    if (write(fd, bytes, size) < 0)
        errno = 0; /* Nobody reads, or it is full. */
    signal(SIGPIPE, abort_at);
}

void hostile_send(int sock, const void *bytes, size_t size, const int *fds, size_t count)
{
    send_passing(sock, bytes, size, fds, count, MSG_NOSIGNAL | MSG_DONTWAIT);
}

void hostile_trunk_frame(struct input *input, int sock, struct ends *near)
{
    uint8_t frame[TRUNK_FRAME + 64];
    int fds[FDS_MOST] = {-1};
    size_t count = input_below(input, 4), size = TRUNK_FRAME;
    input_bytes(input, frame, sizeof frame);
    frame[0] = (uint8_t)(frame[0] % 8);
    frame[1] = 0;
    if (!input_below(input, 4))
        size = 1 + input_below(input, sizeof frame - 1);
    if (!input_below(input, 16))
        count = FDS_MOST;
    for (size_t i = 0; i < count; i++) {
        if ((fds[i] = hostile_descriptor(input, near)) < 0)
            fds[i] = open("/dev/null", O_RDONLY);
    }
    hostile_send(sock, frame, size, fds, count);
    for (size_t i = 0; i < count; i++)
        close(fds[i]);
}

/* The process. */

void must(bool holds, const char *what)
{
    if (holds)
        return;
    fprintf(stderr, "fuzz: %s (%s)\n", what, strerror(errno));
    abort();
}

static size_t count_descriptors(void)
{
    size_t count = 0;
    DIR *directory = opendir("/proc/self/fd");
    must(directory, "opendir");
    while (readdir(directory))
        count++;
    closedir(directory);
    return count;
}

int hostile_leaks(void (*play)(const uint8_t *data, size_t size), const uint8_t *data, size_t size)
{
    for (int i = 0; i < 8; i++) {
        size_t before = count_descriptors();
        play(data, size);
        if (count_descriptors() <= before)
            return 0;
    }
    must(false, "no descriptor is left open");
    return 0;
}

void hostile_entry(char path[512], const char *room, const char *name)
{
    snprintf(path, 512, "%s/wire-%d/%s/%s", getenv("HA_QNX_RUNTIME"), WIRE_VERSION, room, name);
}
