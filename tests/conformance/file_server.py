"""A server that keeps one file, for tests that read and write through connections.

It runs in another process, on plain MsgReceive, and answers QNX's I/O messages as a resource manager for a file does.
What it keeps is a file of the host, so that its successor finds what it has written.
"""

import os
import signal
import struct
from errno import EBADF, EINVAL, ENOSYS
from typing import Any, Dict, Tuple

from ha_qnx import (
    EOK,
    IO_CHMOD,
    IO_CLOSE,
    IO_CONNECT,
    IO_DUP,
    IO_LSEEK,
    IO_READ,
    IO_SPACE,
    IO_STAT,
    IO_SYNC,
    IO_WRITE,
    IO_XTYPE_OFFSET,
    NTO_CHF_DISCONNECT,
    NTO_CHF_UNBLOCK,
    MessageInfo,
)

_ROOM = 1 << 13
_MESSAGES_MAX = 1_000_000
_READ, _WRITE = 1, 2

Client = Tuple[int, int]


class Opened:
    """What the server knows of a descriptor of a client."""

    def __init__(self, flags: int, position: int = 0) -> None:
        self.flags = flags
        self.position = position


class FileServer:
    """Answers I/O messages for a file of the host."""

    def __init__(self, qnx: Any, store: str, transfers: int = 0, most: int = 1 << 30) -> None:
        """A server.

        Args:
            qnx: the backend.
            store: the path of the file.
            transfers: die with this _IO_READ or _IO_WRITE message: all is done, and nothing is answered.
            most: how many bytes it reads or writes at a time.
        """
        self._qnx = qnx
        self._fd = os.open(store, os.O_RDWR | os.O_CREAT, 0o600)
        self._opened: Dict[Client, Opened] = {}
        self._transfers_left = transfers
        self._most = most

    def serve(self, chid: int) -> None:
        """Answer what comes."""
        buffer, info = bytearray(_ROOM), MessageInfo()
        for _message in range(_MESSAGES_MAX):
            rcvid = self._qnx.MsgReceive(chid, buffer, info)
            if rcvid == 0:
                continue
            try:
                status, data = self._answer(self._whole(rcvid, buffer, info), info)
            except OSError as error:
                self._qnx.MsgError(rcvid, error.errno)
            else:
                self._qnx.MsgReply(rcvid, status, data)

    def _whole(self, rcvid: int, buffer: bytearray, info: MessageInfo) -> bytearray:
        """A message, what did not fit into the buffer included."""
        if info.srcmsglen <= len(buffer):
            return buffer
        rest = bytearray(info.srcmsglen - len(buffer))
        self._qnx.MsgRead(rcvid, rest, len(buffer))
        return buffer + rest

    def _answer(self, buffer: bytearray, info: MessageInfo) -> Tuple[int, bytes]:
        (kind,) = struct.unpack_from("=H", buffer)
        client = (info.scoid, info.coid)
        if kind == IO_CONNECT:
            (flags,) = struct.unpack_from("=I", buffer, 20)
            self._opened[client] = Opened(flags)
            if flags & os.O_TRUNC:
                os.ftruncate(self._fd, 0)
            return EOK, b""
        if kind == IO_CLOSE:
            self._opened.pop(client, None)
            return EOK, b""
        if kind == IO_DUP:
            (original,) = struct.unpack_from("=i", buffer, 28)
            self._opened[client] = self._opened[info.scoid, original]
            return EOK, b""
        opened = self._opened.get(client)
        if opened is None:
            raise OSError(EINVAL, "opened by nobody")
        if kind in (IO_READ, IO_WRITE):
            size, xtype = struct.unpack_from("=II", buffer, 4)
            start = 16
            if xtype == IO_XTYPE_OFFSET:  # Elsewhere than at the position, which stays.
                opened = Opened(opened.flags, *struct.unpack_from("=q", buffer, start))
                start = 24
            if kind == IO_READ:
                return self._read(opened, size)
            return self._write(opened, bytes(buffer[start : start + size]))
        if kind == IO_LSEEK:
            return self._lseek(opened, *struct.unpack_from("=hxxq", buffer, 4))
        if kind == IO_STAT:
            return EOK, self._status()
        return self._change(opened, kind, buffer)

    def _change(self, opened: Opened, kind: int, buffer: bytearray) -> Tuple[int, bytes]:
        """What is neither reading nor writing."""
        if kind == IO_SPACE:
            subtype, whence, start, length = struct.unpack_from("=Hhqq", buffer, 4)
            if (subtype, whence, length) != (0x6F, os.SEEK_SET, 0):
                raise OSError(ENOSYS, "no ftruncate")
            if not opened.flags & _WRITE:
                raise OSError(EINVAL, "not open for writing")
            os.ftruncate(self._fd, start)
            return EOK, struct.pack("=q", start)
        if kind == IO_SYNC:
            return EOK, b""
        if kind == IO_CHMOD:
            os.fchmod(self._fd, *struct.unpack_from("=I", buffer, 4))
            return EOK, b""
        raise OSError(ENOSYS, "not this one")

    def _status(self) -> bytes:
        """QNX's struct stat, as 64-bit processes have it."""
        status = os.fstat(self._fd)
        times = (status.st_mtime_ns, status.st_atime_ns, status.st_ctime_ns)
        return struct.pack(
            "=QqIIiiIIIIIIiIQ", status.st_ino, status.st_size, 0, 0, status.st_uid, status.st_gid,
            *(number // 10**9 for number in times), status.st_mode, status.st_nlink, 512, 0, 512, status.st_blocks,
        ) + struct.pack("=6q", *(part for number in times for part in divmod(number, 10**9)))  # fmt: skip

    def _read(self, opened: Opened, size: int) -> Tuple[int, bytes]:
        if not opened.flags & _READ:
            raise OSError(EBADF, "not open for reading")
        data = os.pread(self._fd, min(size, self._most), opened.position)
        opened.position += len(data)
        self._perhaps_die()
        return len(data), data

    def _write(self, opened: Opened, data: bytes) -> Tuple[int, bytes]:
        if not opened.flags & _WRITE:
            raise OSError(EBADF, "not open for writing")
        if opened.flags & os.O_APPEND:
            opened.position = os.lseek(self._fd, 0, os.SEEK_END)
        count = os.pwrite(self._fd, data[: self._most], opened.position)
        opened.position += count
        self._perhaps_die()
        return count, b""

    def _lseek(self, opened: Opened, whence: int, offset: int) -> Tuple[int, bytes]:
        start = {
            os.SEEK_SET: 0,
            os.SEEK_CUR: opened.position,
            os.SEEK_END: os.lseek(self._fd, 0, os.SEEK_END),
        }[whence]
        if start + offset < 0:
            raise OSError(EINVAL, "before the start")
        opened.position = start + offset
        return EOK, struct.pack("=q", opened.position)

    def _perhaps_die(self) -> None:
        self._transfers_left -= 1
        if self._transfers_left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def take_path(qnx: Any, path: str) -> int:
    """In another process: serve a path; the channel for it."""
    chid: int = qnx.ChannelCreate(NTO_CHF_DISCONNECT | NTO_CHF_UNBLOCK)
    qnx.resmgr_attach(chid, path)
    return chid


def keep_file(qnx: Any, chid: int, store: str, transfers: int = 0, most: int = 1 << 30) -> None:
    """In another process: serve a file on a channel."""
    FileServer(qnx, store, transfers, most).serve(chid)
