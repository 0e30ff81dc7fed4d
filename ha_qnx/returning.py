"""Forms of calls that are made of other forms, for all backends: those that return errors, and a vector of pulses."""

from errno import EIO
from typing import Callable, Optional

from .api import Backend
from .buffers import writable_parts
from .documenting import documented_by
from .kernel import BytesLike, Vector
from .structures import MessageInfo


def returning_errors(call: Callable[..., int], *args: object) -> int:
    """Make a call and return its errno, negative, if it fails."""
    try:
        return call(*args)
    except OSError as error:
        return -(error.errno or EIO)


@documented_by(Backend)
class ReturningErrors:
    """The forms of MsgSend that return the negative errno.

    They are made of the forms that raise, also where C has them: a status below 0 cannot be told from an error there.
    """

    MsgSend: Callable[..., int]
    MsgSendv: Callable[..., int]
    MsgSendsv: Callable[..., int]
    MsgSendvs: Callable[..., int]
    MsgSendnc: Callable[..., int]
    MsgSendvnc: Callable[..., int]
    MsgSendsvnc: Callable[..., int]
    MsgSendvsnc: Callable[..., int]

    def MsgSend_r(self, coid: int, smsg: BytesLike, rmsg: Optional[BytesLike] = None) -> int:
        return returning_errors(self.MsgSend, coid, smsg, rmsg)

    def MsgSendv_r(self, coid: int, siov: Optional[Vector], riov: Optional[Vector]) -> int:
        return returning_errors(self.MsgSendv, coid, siov, riov)

    def MsgSendsv_r(self, coid: int, smsg: BytesLike, riov: Optional[Vector]) -> int:
        return returning_errors(self.MsgSendsv, coid, smsg, riov)

    def MsgSendvs_r(self, coid: int, siov: Optional[Vector], rmsg: Optional[BytesLike]) -> int:
        return returning_errors(self.MsgSendvs, coid, siov, rmsg)

    def MsgSendnc_r(self, coid: int, smsg: BytesLike, rmsg: Optional[BytesLike] = None) -> int:
        return returning_errors(self.MsgSendnc, coid, smsg, rmsg)

    def MsgSendvnc_r(self, coid: int, siov: Optional[Vector], riov: Optional[Vector]) -> int:
        return returning_errors(self.MsgSendvnc, coid, siov, riov)

    def MsgSendsvnc_r(self, coid: int, smsg: BytesLike, riov: Optional[Vector]) -> int:
        return returning_errors(self.MsgSendsvnc, coid, smsg, riov)

    def MsgSendvsnc_r(self, coid: int, siov: Optional[Vector], rmsg: Optional[BytesLike]) -> int:
        return returning_errors(self.MsgSendvsnc, coid, siov, rmsg)


@documented_by(Backend)
class PulsesInParts:
    """MsgReceivePulsev, which is MsgReceivePulse into the first part."""

    MsgReceivePulse: Callable[..., int]

    def MsgReceivePulsev(self, chid: int, iov: Optional[Vector], info: Optional[MessageInfo] = None) -> int:
        parts = writable_parts(iov)
        return self.MsgReceivePulse(chid, parts[0] if parts else None, info)
