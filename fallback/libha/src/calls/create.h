/* Making and ending channels as the calls do it: with arguments checked, and with what one of them hears of (B24). */
#ifndef CREATE_H
#define CREATE_H

/* Both return 0 or an errno. */
int create_channel(unsigned flags, int *chid);
int destroy_channel(int chid);

#endif
