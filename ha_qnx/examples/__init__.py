"""Programs to read, to run and to copy: ``python -m ha_qnx.examples.reopen`` and so on.

* ``reopen``: a client survives the death of its server, by nothing but libha's calls, on a path.
* ``reconnect``: the same on a name.
* ``position``: a log file is read on where the dead server had stopped: the state is rebuilt.
* ``session``: a client logs in again and subscribes again, and then goes on.
* ``two_servers``: two redundant servers of different names; the client goes over to the one that lives.
* ``standby``: two servers on one path: what QNX itself has for a hot standby.
* ``sampler``: a timer's pulses say when a value is to be read, and none is left out when the server is killed.
* ``subscription``: clients hand in events, and the server delivers them; the next server gets them, too.
* ``device``: a device with commands of its own (devctl); its next driver is told what the killed one knew.
* ``barometer``: a device that is read when select says so; select goes on at the next driver when one is killed.
* ``unedited``: ``ha-qnx run`` has a program that knows nothing of this library read on through a server's death.
* ``thermostat``: a server for systemd (``thermostat.service``) or supervisord (``thermostat.conf``) to restart.
"""
