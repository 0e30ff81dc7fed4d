"""Others that pass messages between Python processes, for comparison: each as its documentation shows it.

multiprocessing.connection is always there; the others come with the dependency group ``bench``, as far as they can be
had. All go over a Unix socket.
"""

import contextlib
import functools
import importlib.util
import os
import tempfile
import threading
import time
from typing import Any, Callable, List

_MODULES = {
    "multiprocessing.connection": "multiprocessing.connection",
    "pyzmq": "zmq",
    "pynng": "pynng",
    "Pyro5": "Pyro5.api",
    "grpcio": "grpc",
}
NAMES = tuple(_MODULES)
_METHOD = "/bench/echo"


def there() -> List[str]:
    """Those that are installed."""
    return [name for name, module in _MODULES.items() if importlib.util.find_spec(module.partition(".")[0])]


def _path(name: str) -> str:
    return os.path.join(os.environ.get("HA_QNX_RUNTIME", tempfile.gettempdir()), f"{name}.sock")


def _until_there(name: str) -> str:
    deadline = time.monotonic() + 20
    while not os.path.exists(_path(name)) and time.monotonic() < deadline:
        time.sleep(0.005)
    return _path(name)


def serve(peer: str, name: str) -> None:
    """Answer every message by itself, until this process is killed."""
    {
        "multiprocessing.connection": _serve_multiprocessing,
        "pyzmq": _serve_zmq,
        "pynng": _serve_nng,
        "Pyro5": _serve_pyro,
        "grpcio": _serve_grpc,
    }[peer](_path(name))


def caller(peer: str, name: str) -> Callable[[int], Callable[[], object]]:
    """What makes, for a size, a function that sends a message of this size and returns the reply.

    Each thread that asks for one gets a connection of its own, where connections are not for several threads.
    """
    return {
        "multiprocessing.connection": _call_multiprocessing,
        "pyzmq": _call_zmq,
        "pynng": _call_nng,
        "Pyro5": _call_pyro,
        "grpcio": _call_grpc,
    }[peer](_until_there(name))


def _serve_multiprocessing(path: str) -> None:
    from multiprocessing.connection import Connection, Listener

    def answer(connection: "Connection[Any, Any]") -> None:
        with contextlib.suppress(EOFError, ConnectionError):
            while True:
                connection.send_bytes(connection.recv_bytes())

    with Listener(path, "AF_UNIX") as listener:
        while True:
            threading.Thread(target=answer, args=(listener.accept(),), daemon=True).start()


def _call_multiprocessing(path: str) -> Callable[[int], Callable[[], object]]:
    from multiprocessing.connection import Client

    connection = Client(path, "AF_UNIX")
    return functools.partial(_call_by, connection.send_bytes, connection.recv_bytes)


def _call_by(send: Callable[[bytes], object], receive: Callable[[], bytes], size: int) -> Callable[[], object]:
    message = b"x" * size

    def call() -> bytes:
        send(message)
        return receive()

    return call


def _serve_zmq(path: str) -> None:
    import zmq

    socket = zmq.Context().socket(zmq.REP)
    socket.bind(f"ipc://{path}")
    while True:
        socket.send(socket.recv())


def _call_zmq(path: str) -> Callable[[int], Callable[[], object]]:
    import zmq

    context = zmq.Context()
    own = threading.local()

    def make(size: int) -> Callable[[], object]:
        if not hasattr(own, "socket"):
            own.socket = context.socket(zmq.REQ)
            own.socket.connect(f"ipc://{path}")
        return _call_by(own.socket.send, own.socket.recv, size)

    return make


def _serve_nng(path: str) -> None:
    import pynng

    with pynng.Rep0(listen=f"ipc://{path}") as socket:
        while True:
            socket.send(socket.recv())


def _call_nng(path: str) -> Callable[[int], Callable[[], object]]:
    import pynng

    socket = pynng.Req0(dial=f"ipc://{path}", recv_max_size=0)
    return functools.partial(_call_by, socket.send, socket.recv)


def _serve_pyro(path: str) -> None:
    import Pyro5.api

    @Pyro5.api.expose
    class Echo:
        def echo(self, message: bytes) -> bytes:
            return message

    Pyro5.config.SERIALIZER = "marshal"
    with Pyro5.api.Daemon(unixsocket=path) as daemon:
        daemon.register(Echo(), "echo")
        daemon.requestLoop()


def _call_pyro(path: str) -> Callable[[int], Callable[[], object]]:
    import Pyro5.api

    Pyro5.config.SERIALIZER = "marshal"
    own = threading.local()

    def make(size: int) -> Callable[[], object]:
        if not hasattr(own, "proxy"):
            own.proxy = Pyro5.api.Proxy(f"PYRO:echo@./u:{path}")
        return functools.partial(own.proxy.echo, b"x" * size)

    return make


def _serve_grpc(path: str) -> None:
    from concurrent.futures import ThreadPoolExecutor

    import grpc

    handler = grpc.unary_unary_rpc_method_handler(lambda message, _context: message)
    server = grpc.server(ThreadPoolExecutor(max_workers=4))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench", {"echo": handler}),))
    server.add_insecure_port(f"unix:{path}")
    server.start()
    server.wait_for_termination()


def _call_grpc(path: str) -> Callable[[int], Callable[[], object]]:
    import grpc

    channel = grpc.insecure_channel(f"unix:{path}")

    def make(size: int) -> Callable[[], object]:
        return functools.partial(channel.unary_unary(_METHOD), b"x" * size)

    return make
