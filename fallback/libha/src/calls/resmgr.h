/* The paths that this process serves. */
#ifndef RESMGR_H
#define RESMGR_H

/* Enters paths again that somebody has removed from the runtime directory. */
void resmgr_keep(void);
/* At the end of the process, takes them out of the room. */
void resmgr_at_exit(void);
void resmgr_after_fork_in_child(void);

#endif
