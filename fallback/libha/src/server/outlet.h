/* Events that are delivered to the clients of this process: the server's side (B155, B460). */
#ifndef OUTLET_H
#define OUTLET_H

struct ha_posix_sigevent;

/* 0 or an errno. */
int deliver_event(int rcvid, const struct ha_posix_sigevent *event);

#endif
