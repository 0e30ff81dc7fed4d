/*
 * What the channel with _NTO_CHF_COID_DISCONNECT or _NTO_CHF_THREAD_DEATH hears: that a server has gone which this
 * process is connected to, that a thread has ended. A process has one such channel (B24).
 */
#ifndef DEATHS_H
#define DEATHS_H

/* Under the table's lock: which channel it is; 0 for none. */
void deaths_report_to(int chid);
int deaths_reported_to(void);

/* Without any lock: queues pulses for the trunks whose end the channel has seen. */
void deaths_report(void);

void deaths_after_fork_in_child(void);

#endif
