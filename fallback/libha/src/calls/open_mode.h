/* The variadic argument of the open calls, which is there only if a file can be created. */
#ifndef OPEN_MODE_H
#define OPEN_MODE_H

#include <fcntl.h>
#include <stdarg.h>

#ifdef O_TMPFILE
#define NEEDS_MODE(OFLAG) ((OFLAG) & O_CREAT || ((OFLAG) & O_TMPFILE) == O_TMPFILE)
#else
#define NEEDS_MODE(OFLAG) ((OFLAG) & O_CREAT)
#endif

/* `LAST` is the last argument that has a name; it is the open flags, or follows them. */
#define GET_OPEN_MODE_AFTER(MODE, OFLAG, LAST)  \
    do {                                        \
        va_list arguments;                      \
        (MODE) = 0;                             \
        va_start(arguments, LAST);              \
        if (NEEDS_MODE(OFLAG))                  \
            (MODE) = va_arg(arguments, mode_t); \
        va_end(arguments);                      \
    } while (0)
#define GET_OPEN_MODE(MODE, OFLAG) GET_OPEN_MODE_AFTER(MODE, OFLAG, OFLAG)

#endif
