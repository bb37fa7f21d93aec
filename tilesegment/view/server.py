"""The server of the viewer: on the loopback address, for one page and the files of its stores.

The page and the stores have one origin, and every answer forbids the page to load from any
other, so that it works without a network and tells nobody what is looked at.
"""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPServerRequest
from tornado.netutil import bind_sockets
from tornado.web import Application, HTTPError, RequestHandler, StaticFileHandler
from zarr.core.buffer import default_buffer_prototype
from zarr.storage import StorePath

from tilesegment.errors import OptionError, TilesegmentError
from tilesegment.view.description import Scene, describe, measurements, progress

PAGE = Path(__file__).with_name("page")

_LOOPBACK = "127.0.0.1"
_HOST_NAMES = (_LOOPBACK, "localhost")
# The decoders are WebAssembly and make the functions that call it from strings; OpenLayers sets
# styles of its elements.
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; frame-ancestors 'none'"
)


class _LocalHandler(RequestHandler):
    """Answers only who asked for this machine by its loopback name."""

    def prepare(self) -> None:
        """Refuse a page of another host that had its name resolve to this address."""
        if self.request.host_name not in _HOST_NAMES:
            raise HTTPError(403, "asked as %s", self.request.host)

    def set_default_headers(self) -> None:
        self.set_header("Content-Security-Policy", _POLICY)
        self.set_header("Cross-Origin-Resource-Policy", "same-origin")
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Cache-Control", "no-cache")


class _FileHandler(_LocalHandler, StaticFileHandler):
    """Files below one directory, whole or by byte range."""

    def validate_absolute_path(self, root: str, absolute_path: str) -> str | None:
        """Refuse what lies, or leads by a symbolic link, outside of the directory."""
        if not Path(absolute_path).resolve().is_relative_to(root):
            raise HTTPError(403, "%s leads out of the store", self.path)
        return super().validate_absolute_path(root, absolute_path)

    def compute_etag(self) -> str | None:
        """From size and time: tornado would read each shard to its end, and only once."""
        assert self.absolute_path is not None  # noqa: S101 - for mypy; tornado has set it
        found = Path(self.absolute_path).stat()
        return f'"{found.st_mtime_ns:x}-{found.st_size:x}"'


class _StoreHandler(_LocalHandler):
    """The chunks and metadata of an image that is no folder of files as the page reads them."""

    def initialize(self, place: StorePath) -> None:
        self._place = place

    async def get(self, key: str) -> None:
        try:
            content = await (self._place / key).get(default_buffer_prototype())
        except (TilesegmentError, ValueError) as error:
            raise HTTPError(404, "%s", error) from error
        if content is None:
            raise HTTPError(404, "%s is not in the image", key)
        self.set_header("Content-Type", "application/octet-stream")
        self.finish(content.to_bytes())


class _JsonHandler(_LocalHandler):
    """What a function says of the scene, worked out anew for each request; or what is wrong."""

    def initialize(self, scene: Scene, answer: Callable[..., dict[str, object]]) -> None:
        self._scene = scene
        self._answer = answer

    def get(self, *words: str) -> None:
        """Answer, given the scene and the words in the address."""
        try:
            self.finish(self._answer(self._scene, *words))
        except TilesegmentError as error:
            self.set_status(500)
            self.finish({"error": str(error)})


def make_application(scene: Scene) -> Application:
    """The addresses: the page, what it is told of the scene (``*.json``), and ``stores/N/...``."""
    stores: list[Any] = [
        (rf"/stores/{number}/(.*)", _FileHandler, {"path": str(directory)})
        for number, directory in enumerate(scene.stores)
    ]
    if not scene.image.holds_labels:
        place = {"place": scene.image.group.store_path}
        labels = {"path": str(scene.label_folder)}
        stores[0] = (r"/stores/0/(.*)", _StoreHandler, place)
        stores.insert(0, (r"/stores/0/labels/(.*)", _FileHandler, labels))
    return Application(
        [
            (r"/description\.json", _JsonHandler, {"scene": scene, "answer": describe}),
            (r"/progress\.json", _JsonHandler, {"scene": scene, "answer": progress}),
            (
                r"/measurements/([^/]+)/(\d{1,10})\.json",
                _JsonHandler,
                {"scene": scene, "answer": measurements},
            ),
            *stores,
            (r"/(.*)", _FileHandler, {"path": str(PAGE), "default_filename": "index.html"}),
        ],
        log_function=_log_request,
    )


def _log_request(handler: RequestHandler) -> None:
    request: HTTPServerRequest = handler.request
    logging.getLogger(__name__).debug("%s %s", handler.get_status(), request.uri)


async def serve(scene: Scene, port: int, ready: Callable[[str], None]) -> None:
    """Serve until cancelled.

    Args:
        scene: what is shown.
        port: to listen on; 0 for any that is free.
        ready: called with the page's address once it can be opened.

    Raises:
        OptionError: if the port is taken.
    """
    try:
        sockets = bind_sockets(port, _LOOPBACK)
    except OSError as error:
        raise OptionError(
            f"port {port} of {_LOOPBACK} cannot be used ({error.strerror}); choose another "
            "--port, or leave it out"
        ) from error
    server = HTTPServer(make_application(scene))
    server.add_sockets(sockets)
    ready(f"http://{_LOOPBACK}:{sockets[0].getsockname()[1]}/")
    try:
        await asyncio.Event().wait()
    finally:
        server.stop()
        await server.close_all_connections()
