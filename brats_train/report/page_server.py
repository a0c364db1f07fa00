"""Serves one page to the browser of this user alone, on this machine."""

from __future__ import annotations

import os
import secrets
import sys
import webbrowser
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory

from brats_cache.common.errors import BratsError

__all__ = ["redirect_file", "serve", "start_server"]

LOOPBACK = "127.0.0.1"
_IDLE_SECONDS = 60  # until a connection that asks for nothing is closed


class _Server(ThreadingHTTPServer):
    """A server that many connections at once and those that break off do not disturb."""

    request_queue_size = 128  # connections that may wait; a browser opens several

    def handle_error(self, request: object, client_address: object) -> None:
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


def serve(page: bytes, port: int, echo: Callable[[str], object]) -> None:
    """Serves a page to this machine until Ctrl-C, and opens a browser where there is a screen.

    Args:
        page: HTML.
        port: 0 for a free one.
        echo: Prints a line.

    Raises:
        BratsError: The port is taken.
    """
    server, address = start_server(page, port)
    echo(f"{address}\nCtrl-C ends it.")
    with ExitStack() as stack:
        stack.callback(server.server_close)
        if os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
            webbrowser.open(stack.enter_context(redirect_file(address)).as_uri())
        try:
            server.serve_forever()
        except KeyboardInterrupt:  # the way to end it, so no failure
            echo("")


@contextmanager
def redirect_file(address: str) -> Iterator[Path]:
    """Makes a page that leads to `address` and that only this user can read.

    A browser is told its page on its command line, which every user of the machine can read; the
    secret in `address` must not stand there. A browser that is a snap sees no /tmp but its own.
    """
    place = Path.home() if Path("/snap").is_dir() and os.access(Path.home(), os.W_OK) else None
    with TemporaryDirectory(prefix="brats-view-", dir=place) as folder:  # with permissions 0700
        path = Path(folder) / "open.html"
        path.write_text(
            '<!DOCTYPE html><meta charset="utf-8"><meta name="referrer" content="no-referrer">'
            f'<meta http-equiv="refresh" content="0; url={address}"><a href="{address}">View</a>\n'
        )
        yield path


def start_server(page: bytes, port: int) -> tuple[ThreadingHTTPServer, str]:
    """Makes a server of one page on the loopback address, not running yet.

    The URL holds a random token and requests must have this machine as their host, so neither other
    users of the machine nor pages of other sites can read the scan.

    Returns:
        The server, and the URL of the page.
    """
    token = secrets.token_urlsafe(16)

    class Handler(BaseHTTPRequestHandler):
        timeout = _IDLE_SECONDS

        def do_GET(self) -> None:
            hosts = {f"{name}:{server.server_port}" for name in (LOOPBACK, "localhost")}
            if self.headers.get("Host") not in hosts or self.path != f"/{token}/":
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(page)))
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, format: str, *args: object) -> None:
            """Logs nothing."""

    try:
        server = _Server((LOOPBACK, port), Handler)
    except OSError as error:
        raise BratsError(f"port {port}: cannot be served at ({error.strerror}).") from error
    return server, f"http://{LOOPBACK}:{server.server_port}/{token}/"
