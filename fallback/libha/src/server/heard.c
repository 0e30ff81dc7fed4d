#include "server/heard.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "host/descriptor.h"

/* The file in which a client process says which connections it has. It is open once, whatever it is passed for. */
struct heard {
    struct heard *next;
    dev_t device;
    ino_t inode;
    int fd;
    unsigned references;
};

static struct heard *files;
static pthread_mutex_t files_lock = PTHREAD_MUTEX_INITIALIZER;

static struct heard *find_file(const struct stat *status)
{
    struct heard *file = files;
    while (file && (file->device != status->st_dev || file->inode != status->st_ino))
        file = file->next;
    return file;
}

int heard_adopt(int fd, struct heard **heard)
{
    struct stat status;
    if (fstat(fd, &status) || !S_ISREG(status.st_mode))
        return EINVAL;
    pthread_mutex_lock(&files_lock);
    struct heard *file = find_file(&status);
    bool is_new = !file;
    if (is_new && (file = calloc(1, sizeof *file))) {
        *file = (struct heard){.next = files, .device = status.st_dev, .inode = status.st_ino, .fd = fd};
        files = file;
    }
    if (file)
        file->references++;
    pthread_mutex_unlock(&files_lock);
    if (!is_new)
        descriptor_close(fd);
    *heard = file;
    return file ? 0 : ENOMEM;
}

void heard_release(struct heard *file)
{
    if (!file)
        return;
    pthread_mutex_lock(&files_lock);
    bool last = --file->references == 0;
    if (last) {
        struct heard **link = &files;
        while (*link != file)
            link = &(*link)->next;
        *link = file->next;
    }
    pthread_mutex_unlock(&files_lock);
    if (last) {
        descriptor_close(file->fd);
        free(file);
    }
}

void heard_after_fork_in_child(void)
{
    pthread_mutex_init(&files_lock, NULL);
    files = NULL; /* The parent's threads may have been changing them. */
}

int heard_file(const struct heard *file)
{
    return file->fd;
}
