#include "client/lane.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "client/trunk.h"
#include "host/descriptor.h"
#include "host/registry.h"

/* The smallest window: it holds the least that needs one, and twice that. */
#define WINDOW_MIN (UINT64_C(1) << 16)

uint64_t lane_window_needed(uint64_t size, uint64_t room)
{
    if (size <= INLINE_SIZE && room <= INLINE_ROOM)
        return 0;
    uint64_t start = reply_start(size);
    return start < size || room > UINT64_MAX - start ? UINT64_MAX : start + room;
}

static uint64_t round_up(uint64_t needed)
{
    uint64_t size = WINDOW_MIN;
    if (needed > WINDOW_KEPT)
        return needed;
    while (size < needed)
        size *= 2;
    return size;
}

int lane_open(struct trunk *trunk, int coid, uint64_t window, int64_t deadline, struct lane **result)
{
    struct lane_frame frame = {.kind = FRAME_LANE, .carries = LANE_MESSAGES, .coid = coid};
    int messages[2] = {-1, -1}, replies[2] = {-1, -1}, file = -1, error = 0;
    struct lane *lane = calloc(1, sizeof *lane);
    if (!lane)
        return ENOMEM;
    descriptor_fill_reserve();
    if (window > INT64_MAX) {
        error = ENOMEM;
        goto out;
    }
    if (descriptor_pipe(messages, 0) || descriptor_pipe(replies, 0)) {
        error = errno;
        goto out;
    }
    if (window) {
        lane->window_size = frame.window = round_up(window);
        file = descriptor_window(lane->window_size);
        if (file >= 0)
            lane->window = mmap(NULL, lane->window_size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
        if (file < 0 || lane->window == MAP_FAILED) {
            error = errno;
            lane->window = NULL;
            goto out;
        }
    }
    const int ends[3] = {messages[0], replies[1], file};
    error = trunk_pass(trunk, &frame, ends, window ? 3 : 2, deadline);
    if (error == EBADF) {
        int reason = trunk_refusal(trunk);
        error = reason ? reason : EBADF;
    }
out:
    /* What was passed is the server's now: its end must be the only one. */
    descriptor_close(messages[0]);
    descriptor_close(replies[1]);
    descriptor_close(file);
    lane->out = messages[1];
    lane->in = replies[0];
    if (error)
        lane_close(lane);
    else
        *result = lane;
    return error;
}

void lane_close(struct lane *lane)
{
    descriptor_close(lane->out);
    descriptor_close(lane->in);
    if (lane->window)
        munmap(lane->window, lane->window_size);
    free(lane);
}

bool lane_take_back(const struct lane *lane)
{
    char path[32], message[2 * FRAME_MAX];
    int unread = 0;
    if (!ioctl(lane->out, FIONREAD, &unread) && unread == 0)
        return false;
    format_descriptor_path(path, sizeof path, lane->out);
    int fd = descriptor_open_surely(path, O_RDONLY | O_NONBLOCK);
    if (fd < 0)
        return true;
    bool was_received = read(fd, message, sizeof message) < 0 && errno == EAGAIN;
    descriptor_close(fd);
    descriptor_fill_reserve();
    return !was_received;
}

void lane_poke(const struct lane *lane, enum frame_kind kind)
{
    const struct answer_frame frame = {.kind = (uint16_t)kind};
    char path[32];
    format_descriptor_path(path, sizeof path, lane->in);
    int fd = descriptor_is_still(lane->in) ? descriptor_open_surely(path, O_WRONLY | O_NONBLOCK) : -1;
    if (fd < 0)
        return;
    descriptor_write(fd, &frame, sizeof frame); /* If the pipe is full, the thread is awake anyway. */
    descriptor_close(fd);
    descriptor_fill_reserve();
}
