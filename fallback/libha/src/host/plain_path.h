/* Paths as they are compared: absolute, without ".", ".." and double slashes. */
#ifndef PLAIN_PATH_H
#define PLAIN_PATH_H

#include <limits.h>
#include <stdbool.h>

/* What stood at the end of a path, in the numbers of an _IO_CONNECT message's eflag. */
enum path_ending { ENDING_NONE = 0, ENDING_SLASH = 1, ENDING_DOT = 3, ENDING_DOTS = 7 };

struct plain_path {
    enum path_ending ending; /* the root itself always has one */
    char text[2 * PATH_MAX];
};

/*
 * Resolves a path as text, from the working directory if it is relative, without a look at symbolic links. 0;
 * ENAMETOOLONG; what the host says if there is no working directory.
 */
int plain_path(struct plain_path *plain, const char *path);

/* Whether it is where QNX keeps the names of name_attach, or below: nothing there can be opened. */
bool plain_path_is_of_names(const struct plain_path *plain);

#endif
