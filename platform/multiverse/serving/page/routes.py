"""The playground at ``/``: static files, read once, with headers under which nothing but they can run."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from multiverse.serving.api.errors import ApiError

FOLDER = "/page/"
"""Of the URLs of all files but ``index.html``, which is ``/``."""
_STATIC = Path(__file__).with_name("static")
_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
HEADERS = {
    # No inline code, no other host, and strings never become markup: what a model writes stays text.
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    # Kept by browsers, but asked for each time: a new release is there at once.
    "cache-control": "no-cache",
}


@dataclass(frozen=True, slots=True)
class File:
    content: bytes
    type: str
    etag: str

    @classmethod
    def read(cls, path: Path) -> "File":
        content = path.read_bytes()
        return cls(content, _TYPES[path.suffix], f'"{hashlib.sha256(content).hexdigest()[:32]}"')


def is_page(path: str) -> bool:
    """Whether the page, which anybody may see, is at the URL path ``path``."""
    return path == "/" or path.startswith(FOLDER)


def page_routes() -> list[Route]:
    """``/`` and the files it loads, for GET and HEAD."""
    files = {path.name: File.read(path) for path in sorted(_STATIC.iterdir())}

    async def serve(request: Request) -> Response:
        file = files.get(request.path_params.get("name", "index.html"))
        if file is None:
            raise ApiError(404, "Not Found")
        headers = HEADERS | {"etag": file.etag}
        if _matches(request.headers.get("if-none-match", ""), file.etag):
            return Response(status_code=304, headers=headers)
        return Response(file.content, media_type=file.type, headers=headers)

    return [Route(path, serve, methods=["GET"]) for path in ("/", FOLDER + "{name}")]


def _matches(asked: str, etag: str) -> bool:
    """Proxies that compress make a tag weak."""
    tags = [tag.strip().removeprefix("W/") for tag in asked.split(",")]
    return "*" in tags or etag in tags
