#include "client/recovery.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "host/thread.h"
#include "number.h"

struct attachment {
    atomic_uint references; /* numbers that have it, and threads that use it */
    _Atomic(uint64_t) generation;
    _Atomic(struct thread *) recoverer; /* the thread inside the recovery function */
    atomic_int icount;                  /* calls since the last message that got through (D8) */
    pthread_mutex_t recovery;           /* held while the recovery function runs */
    pthread_mutex_t lock;               /* of what follows */
    RFp function;
    void *handle;
    int acount;
    int icount_limit; /* negative: none */
    int acount_limit;
    bool suspended;
    bool is_back; /* what came of the last recovery; under the recovery lock */
};

/* No two attachments ever have the same generation. */
static uint64_t new_generation(void)
{
    static _Atomic(uint64_t) last;
    return atomic_fetch_add(&last, 1) + 1;
}

static void hold(struct attachment *attachment)
{
    atomic_fetch_add(&attachment->references, 1);
}

void attachment_drop(struct attachment *attachment)
{
    if (!attachment || atomic_fetch_sub(&attachment->references, 1) != 1)
        return;
    pthread_mutex_destroy(&attachment->recovery);
    pthread_mutex_destroy(&attachment->lock);
    free(attachment);
}

static bool is_recovering_here(const struct attachment *attachment)
{
    return atomic_load(&attachment->recoverer) == thread_self();
}

/* The attachment of a number, held; NULL if there is none. */
static struct attachment *get(int coid)
{
    struct number *number = number_find(coid);
    struct attachment *attachment = NULL;
    if (number) {
        pthread_mutex_lock(&number->lock);
        attachment = number->attachment;
        if (attachment)
            hold(attachment);
        pthread_mutex_unlock(&number->lock);
    }
    return attachment;
}

/* Tickets. */

/* Whether any recovery function of this process was ever called. */
static atomic_bool has_counted;

void ticket_read_locked(struct ticket *ticket, const struct number *number)
{
    struct attachment *attachment = number->attachment;
    *ticket = (struct ticket){0};
    if (!attachment || is_recovering_here(attachment))
        return; /* Inside its recovery function, calls are plain (D10). */
    ticket->generation = atomic_load(&attachment->generation);
}

void ticket_read(struct ticket *ticket, int coid)
{
    struct number *number = number_find(coid);
    *ticket = (struct ticket){0};
    if (!number)
        return;
    pthread_mutex_lock(&number->lock);
    ticket_read_locked(ticket, number);
    pthread_mutex_unlock(&number->lock);
}

void recovery_got_through(int coid, const struct ticket *ticket)
{
    /* What matters is the count when the answer has come (D8). Without any failure so far, it need not be looked at. */
    if (!ticket->generation || !atomic_load(&has_counted))
        return;
    struct attachment *attachment = get(coid);
    if (attachment)
        atomic_store(&attachment->icount, 0);
    attachment_drop(attachment);
}

/* Recovering. */

static bool is_attached(int coid, const struct attachment *attachment)
{
    struct number *number = number_find(coid);
    pthread_mutex_lock(&number->lock);
    bool attached = number->attachment == attachment;
    pthread_mutex_unlock(&number->lock);
    return attached;
}

/* Whether the recovery function may be called; counts the call if so (B388, B389). */
static bool count_call(struct attachment *attachment, RFp *function, void **handle)
{
    pthread_mutex_lock(&attachment->lock);
    int icount = atomic_load(&attachment->icount);
    bool allowed = !attachment->suspended && (attachment->icount_limit < 0 || icount < attachment->icount_limit) &&
                   (attachment->acount_limit < 0 || attachment->acount < attachment->acount_limit);
    if (allowed) {
        atomic_store(&attachment->icount, icount + 1);
        atomic_store(&has_counted, true);
        attachment->acount++;
        *function = attachment->function;
        *handle = attachment->handle;
    }
    pthread_mutex_unlock(&attachment->lock);
    return allowed;
}

/* A recovery function that ends its thread leaves the connection to the others. */
static void leave_recovery(void *argument)
{
    struct attachment *attachment = argument;
    atomic_store(&attachment->recoverer, NULL);
    pthread_mutex_unlock(&attachment->recovery);
    attachment_drop(attachment);
}

/* Under the attachment's recovery lock: whether the call is to be made again. */
static bool recover_once(int coid, struct attachment *attachment, uint64_t generation)
{
    RFp function;
    void *handle;
    if (atomic_load(&attachment->generation) != generation)
        return attachment->is_back; /* Another thread's recovery has ended since: one failure, one outcome (D9). */
    if (!is_attached(coid, attachment) || !count_call(attachment, &function, &handle))
        return false;
    atomic_store(&attachment->recoverer, thread_self());
    attachment->is_back = function(coid, handle) == coid;
    atomic_store(&attachment->recoverer, NULL);
    atomic_store(&attachment->generation, new_generation());
    return attachment->is_back;
}

bool recover(int coid, const struct ticket *ticket, int error)
{
    bool again;
    if (!ticket->generation || (error != EBADF && error != ESRCH))
        return false;
    struct attachment *attachment = get(coid);
    if (!attachment)
        return false;
    pthread_mutex_lock(&attachment->recovery);
    pthread_cleanup_push(leave_recovery, attachment);
    again = recover_once(coid, attachment, ticket->generation);
    pthread_cleanup_pop(1);
    return again;
}

/* Attaching. */

int attachment_check(RFp function, unsigned flags)
{
    return function && !(flags & ~(unsigned)HAREPLACERECOVERYFN) ? 0 : EINVAL;
}

static struct attachment *new_attachment(RFp function, void *handle)
{
    struct attachment *attachment = calloc(1, sizeof *attachment);
    if (!attachment)
        return NULL;
    atomic_init(&attachment->references, 1);
    atomic_init(&attachment->generation, new_generation());
    pthread_mutex_init(&attachment->recovery, NULL);
    pthread_mutex_init(&attachment->lock, NULL);
    attachment->function = function;
    attachment->handle = handle;
    attachment->icount_limit = attachment->acount_limit = -1;
    attachment->is_back = true;
    return attachment;
}

static int replace(struct attachment *attachment, RFp function, void *handle, unsigned flags)
{
    if (!(flags & HAREPLACERECOVERYFN))
        return EEXIST; /* D1 */
    pthread_mutex_lock(&attachment->lock);
    attachment->function = function;
    attachment->handle = handle;
    pthread_mutex_unlock(&attachment->lock);
    return 0;
}

int attachment_attach(int coid, RFp function, void *handle, unsigned flags)
{
    int error = 0;
    struct number *number = number_make(coid);
    struct attachment *attachment = number ? new_attachment(function, handle) : NULL;
    if (!attachment)
        return ENOMEM;
    pthread_mutex_lock(&number->lock);
    if (number->attachment) {
        error = replace(number->attachment, function, handle, flags);
    } else {
        number->attachment = attachment;
        attachment = NULL;
    }
    pthread_mutex_unlock(&number->lock);
    attachment_drop(attachment);
    return error;
}

/* Takes the attachment off a number, unless `keep` says that it stays. */
static struct attachment *take(int coid, bool (*keep)(const struct attachment *))
{
    struct number *number = number_find(coid);
    struct attachment *attachment = NULL;
    if (number) {
        pthread_mutex_lock(&number->lock);
        attachment = number->attachment;
        if (attachment && keep && keep(attachment))
            attachment = NULL;
        if (attachment)
            number->attachment = NULL;
        pthread_mutex_unlock(&number->lock);
    }
    return attachment;
}

int attachment_detach(int coid)
{
    struct attachment *attachment = take(coid, NULL);
    attachment_drop(attachment);
    return attachment ? 0 : EBADF;
}

struct attachment *attachment_take(int coid)
{
    return take(coid, is_recovering_here);
}

void attachment_give_back(int coid, struct attachment *attachment)
{
    struct number *number = number_find(coid);
    if (!attachment)
        return;
    pthread_mutex_lock(&number->lock);
    if (!number->attachment) {
        number->attachment = attachment;
        attachment = NULL;
    }
    pthread_mutex_unlock(&number->lock);
    attachment_drop(attachment);
}

int attachment_share(int coid, int duplicate)
{
    struct attachment *attachment = get(coid);
    if (!attachment)
        return EBADF;
    struct number *number = number_make(duplicate);
    if (!number) {
        attachment_drop(attachment);
        return ENOMEM;
    }
    pthread_mutex_lock(&number->lock);
    struct attachment *before = number->attachment;
    number->attachment = attachment;
    pthread_mutex_unlock(&number->lock);
    attachment_drop(before);
    return 0;
}

bool attachment_exists(int coid)
{
    struct attachment *attachment = get(coid);
    attachment_drop(attachment);
    return attachment;
}

int attachment_control(int coid, int command, int limit)
{
    struct attachment *attachment = get(coid);
    int error = 0;
    if (!attachment)
        return EBADF;
    pthread_mutex_lock(&attachment->lock);
    switch (command) {
    case HA_RECOVERY_ACOUNT:
        attachment->acount_limit = limit;
        break;
    case HA_RECOVERY_ICOUNT:
        attachment->icount_limit = limit;
        break;
    case HA_RECOVERY_SUSPEND:
        attachment->suspended = true;
        break;
    case HA_RECOVERY_ENABLE:
        attachment->suspended = false;
        break;
    case HA_RECOVERY_RESET_ICOUNT:
        atomic_store(&attachment->icount, 0);
        break;
    case HA_RECOVERY_RESET_ACOUNT:
        attachment->acount = 0;
        break;
    default:
        error = EINVAL;
    }
    pthread_mutex_unlock(&attachment->lock);
    attachment_drop(attachment);
    return error;
}

/* Only connections that a child inherits stay HA-aware (D13). Nobody else is recovering there. */
static void leave_to_child(struct number *number, void *argument)
{
    struct attachment *attachment = number->attachment;
    (void)argument;
    if (!attachment)
        return;
    if (number->id & _NTO_SIDE_CHANNEL) {
        number->attachment = NULL;
        attachment_drop(attachment);
        return;
    }
    pthread_mutex_init(&attachment->lock, NULL);
    if (!is_recovering_here(attachment)) {
        pthread_mutex_init(&attachment->recovery, NULL);
        atomic_store(&attachment->recoverer, NULL);
    }
}

void recovery_after_fork_in_child(void)
{
    number_each(leave_to_child, NULL);
}
