#include "client/successor.h"

#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/connection.h"
#include "ha_posix.h"
#include "host/runtime.h"
#include "number.h"

/* Entries "COID:COOKIE:FLAGS:ADDRESS", with commas between them. */
#define VARIABLE "HA_QNX_CONNECTIONS"

static void tell(FILE *stream, int coid, off_t cookie, unsigned flags, const struct address *address)
{
    char text[ADDRESS_SIZE];
    if (!cookie || flags & _NTO_COF_CLOEXEC)
        return;
    address_format(text, address);
    fprintf(stream, "%s%d:%jd:%u:%s", ftell(stream) ? "," : "", coid, (intmax_t)cookie, flags, text);
}

static void tell_of(struct number *number, void *stream)
{
    pthread_mutex_lock(&number->lock);
    const struct connection *connection = number->connection;
    const struct inherited *inherited = number->inherited;
    if (connection)
        tell(stream, number->id, connection->cookie, connection->flags, &connection->address);
    else if (inherited)
        tell(stream, number->id, inherited->cookie, inherited->flags, &inherited->address);
    pthread_mutex_unlock(&number->lock);
}

void successor_tell(void)
{
    char *word = NULL;
    size_t size;
    FILE *stream = open_memstream(&word, &size);
    if (!stream)
        return;
    number_each(tell_of, stream);
    if (!fclose(stream) && (size || getenv(VARIABLE)))
        setenv(VARIABLE, word, 1);
    free(word);
}

static void parse(const char *entry, take_over *function)
{
    int coid, end;
    intmax_t cookie;
    unsigned flags;
    struct address address;
    if (sscanf(entry, "%d:%jd:%u:%n", &coid, &cookie, &flags, &end) == 3 && coid >= 0 && cookie > 0 &&
        address_parse(&address, entry + end))
        function(coid, &address, flags, (off_t)cookie);
}

void successor_is_told(take_over *function)
{
    const char *left = getenv(VARIABLE);
    char *word = left ? strdup(left) : NULL, *place;
    for (char *entry = word ? strtok_r(word, ",", &place) : NULL; entry; entry = strtok_r(NULL, ",", &place))
        parse(entry, function);
    free(word);
}
