#include "host/plain_path.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#define NAME_ROOT "/dev/name"

/* Takes the last component off; the root has none. */
static size_t go_up(const char *text, size_t used)
{
    while (used && text[--used] != '/')
        ;
    return used;
}

int plain_path(struct plain_path *plain, const char *path)
{
    char *text = plain->text;
    size_t used = 0;
    if (strlen(path) >= PATH_MAX)
        return ENAMETOOLONG;
    if (*path != '/') {
        if (!getcwd(text, PATH_MAX))
            return errno;
        used = strcmp(text, "/") ? strlen(text) : 0;
    }
    plain->ending = ENDING_NONE;
    while (*path) {
        size_t length = strcspn(path, "/");
        if (length == 2 && !memcmp(path, "..", 2)) {
            plain->ending = ENDING_DOTS;
            used = go_up(text, used);
        } else if (length == 1 && *path == '.') {
            plain->ending = ENDING_DOT;
        } else if (length) {
            plain->ending = ENDING_NONE;
            text[used++] = '/';
            memcpy(text + used, path, length);
            used += length;
        }
        path += length;
        if (*path == '/') {
            plain->ending = ENDING_SLASH;
            path++;
        }
    }
    if (!used) {
        text[used++] = '/';
        if (!plain->ending)
            plain->ending = ENDING_SLASH;
    }
    text[used] = '\0';
    return 0;
}

bool plain_path_is_of_names(const struct plain_path *plain)
{
    const size_t length = sizeof NAME_ROOT - 1;
    return !strncmp(plain->text, NAME_ROOT, length) && (!plain->text[length] || plain->text[length] == '/');
}
