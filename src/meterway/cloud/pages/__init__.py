"""The page at ``/``, its style, scripts and icons. Everything comes from here: no CDN, bundler or inline code."""

from hashlib import blake2b
from importlib.resources import files
from pathlib import Path

from fastapi import FastAPI
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.responses import HTMLResponse, Response
from starlette.staticfiles import StaticFiles

from meterway import __version__

_FOLDER = Path(str(files("meterway.cloud.pages")))


def add_pages(app: FastAPI) -> None:
    """Add the page and its files to ``app``."""
    templates = Environment(loader=PackageLoader("meterway.cloud", "pages/templates"), autoescape=True)
    templates.undefined = StrictUndefined
    page = templates.get_template("index.html").render(version=__version__)
    etag = f'"{blake2b(page.encode(), digest_size=8).hexdigest()}"'

    @app.get("/", include_in_schema=False)
    async def show_page() -> Response:
        return HTMLResponse(page, headers={"ETag": etag, "Cache-Control": "no-cache"})

    app.mount("/static", _Static(directory=_FOLDER / "static"), name="static")


class _Static(StaticFiles):
    """Files that a browser asks for again, and gets only when they changed."""

    def file_response(self, *args: object, **kwargs: object) -> Response:
        response = super().file_response(*args, **kwargs)  # type: ignore[arg-type]
        response.headers["Cache-Control"] = "no-cache"
        return response
