"""A TCP proxy in front of a server: it can drop every connection, and it can be slow."""

import socket
import threading
import time
from contextlib import suppress


class Proxy:
    """`with Proxy(port) as proxy:` forwards what comes to `proxy.url` to the server on `port`.

    Attributes:
        is_open: False drops every connection.
        delay_s: seconds that each piece of a request waits.
        garbled: numbers of the connections, from 1, that get a line of text and an end instead of the server.
        max_requests: the proxy closes for good after so many pieces of requests; None is no bound.
    """

    def __init__(self, port: int) -> None:
        self._port, self.is_open, self.delay_s = port, True, 0.0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.max_requests: int | None = None
        self.garbled: set[int] = set()
        self._forwarded = self._accepted = 0

    def __enter__(self) -> "Proxy":
        self._acceptor = threading.Thread(target=self._accept, daemon=True)
        self._acceptor.start()
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # ends a waiting accept(), which would keep the port
        self._listener.close()
        self._acceptor.join(10)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, suppress(OSError):
            self._accepted += 1
            if self._accepted in self.garbled:
                client.sendall(b"400 this is no handshake\r\n")
                return
            if not self.is_open:
                return
            with socket.create_connection(("127.0.0.1", self._port)) as server:
                responses = threading.Thread(target=self._pump, args=(server, client), daemon=True)
                responses.start()
                self._pump(client, server, is_request=True)
                responses.join(30)

    def _pump(self, source: socket.socket, target: socket.socket, *, is_request: bool = False) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                if is_request:
                    self._forwarded += 1
                    if self.max_requests is not None and self._forwarded > self.max_requests:
                        self.is_open = False
                    time.sleep(self.delay_s)
                if not self.is_open:
                    break
                target.sendall(data)
        for side in (source, target):
            with suppress(OSError):
                side.shutdown(socket.SHUT_RDWR if not self.is_open else socket.SHUT_WR)
