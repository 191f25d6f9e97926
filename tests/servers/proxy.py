"""A TCP proxy in front of a server: it can be shut, and it can be slow."""

import socket
import threading
import time
from contextlib import suppress


class Proxy:
    """`with Proxy(port) as proxy:` passes on what comes to `proxy.url`. `open` False drops every connection."""

    def __init__(self, port: int) -> None:
        self._to, self.open, self.delay_s = port, True, 0.0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.passed = 0
        self.shut_after: int | None = None

    def __enter__(self) -> "Proxy":
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, suppress(OSError):
            if not self.open:
                return
            with socket.create_connection(("127.0.0.1", self._to)) as server:
                back = threading.Thread(target=self._pump, args=(server, client), daemon=True)
                back.start()
                self._pump(client, server, request=True)
                back.join(30)

    def _pump(self, source: socket.socket, target: socket.socket, *, request: bool = False) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                if request:
                    self.passed += 1
                    if self.shut_after is not None and self.passed > self.shut_after:
                        self.open = False
                    time.sleep(self.delay_s)
                if not self.open:
                    break
                target.sendall(data)
        for side in (source, target):
            with suppress(OSError):
                side.shutdown(socket.SHUT_RDWR if not self.open else socket.SHUT_WR)
