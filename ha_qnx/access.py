"""Who may open a service: the owner, the group and the mode of what it serves, as in QNX's ``iofunc_attr_t``.

The check is that of ``iofunc_open_default``: it is made by the server, by what the kernel says of the client, so it
means the same on a target and on a host.
"""

import os
from errno import EACCES
from typing import NamedTuple, Optional, Union

from .buffers import integer
from .errors import failure
from .structures import ClientInfo

#: In the ioflag of an opening: what it is for (B312).
READ, WRITE = 1, 2


class Access(NamedTuple):
    """Owner, group and permission bits."""

    mode: int
    uid: int
    gid: int

    @classmethod
    def of(cls, mode: Optional[int], group: Union[str, int, None]) -> "Optional[Access]":
        """What is the calling user's; None if there is no mode, and everybody may open.

        Raises:
            TypeError: the mode is no int, or the group neither int nor str.
            ValueError: the mode has other bits than 0o777, a group is given without a mode, or there is no such group.
        """
        if mode is None:
            if group is not None:
                raise ValueError("a group needs a mode that says what it may do, such as 0o660")
            return None
        mode = integer("mode", mode, 0, 0o777)
        if group is None:
            gid = os.getegid()
        elif isinstance(group, str):
            import grp  # Not every platform has it.

            try:
                gid = grp.getgrnam(group).gr_gid
            except KeyError:
                raise ValueError(f"there is no group {group!r}") from None
        else:
            gid = integer("group", group, 0, 0x7FFF_FFFF)
        return cls(mode, os.geteuid(), gid)

    def check(self, client: ClientInfo, wanted: int) -> None:
        """Refuse a client that may not read, or not write, what it wants to.

        Raises:
            OSError: EACCES.
        """
        cred = client.cred
        if cred.euid == 0:
            return
        groups = [cred.egid, *cred.grouplist[: min(cred.ngroups, len(cred.grouplist))]]
        granted = self.mode >> (6 if cred.euid == self.uid else 3 if self.gid in groups else 0)
        needed = (4 if wanted & READ else 0) | (2 if wanted & WRITE else 0)
        if granted & needed != needed:
            raise failure(EACCES)


def check_opened(ioflag: int, wanted: int) -> None:
    """Refuse to read by what was opened for writing, and the other way round; a connection without an open may do both.

    Raises:
        OSError: EACCES: EBADF, as QNX says it, would look as if the server were lost (B368).
    """
    if ioflag and not ioflag & wanted:
        raise failure(EACCES)
