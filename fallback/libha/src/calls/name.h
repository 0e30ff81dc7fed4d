/* Names of servers. */
#ifndef NAME_H
#define NAME_H

/* Enters names again that somebody has removed from the runtime directory. */
void name_keep(void);
/* At the end of the process, gives the names up. */
void name_at_exit(void);
void name_after_fork_in_child(void);

#endif
