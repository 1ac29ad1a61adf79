"""The pages, their style, scripts and icons. Everything comes from here: no CDN, bundler or inline code."""

from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

from fastapi import FastAPI
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.staticfiles import StaticFiles

from meterway import __version__
from meterway.cloud.access import rules
from meterway.cloud.access.viewer import EVERYBODY, NOBODY, Viewer, viewer

_FOLDER = Path(str(files("meterway.cloud.pages")))


class Link(NamedTuple):
    """A page in the navigation; it is shown to those who may open it (``access.rules``)."""

    path: str
    label: str


LINKS = (
    Link("/", "Meters"),
    Link("/devices", "Devices"),
    Link("/people", "People"),
    Link("/audit", "Audit"),
    Link("/privacy", "Privacy"),
    Link("/account", "Account"),
)


def add_pages(app: FastAPI) -> None:
    """Add the page of the meters and the files of all pages to ``app``."""
    add_page(app, "/", "index.html")
    app.mount("/static", _Static(directory=_FOLDER / "static"), name="static")


def add_page(app: FastAPI, path: str, template: str) -> None:
    """Serve ``template``, which extends ``base.html``, at ``path``.

    It also needs a line in ``access.rules.RULES``, and one in ``LINKS`` if the navigation is to have it.
    """

    @app.get(path, include_in_schema=False)
    async def show_page(request: Request) -> Response:
        return page(template, path=request.url.path)


def home_of(who: Viewer) -> str:
    """Return the first page that somebody may open."""
    return next(link.path for link in LINKS if _may_open(who, link))


def page(template: str, *, status: int = 200, path: str = "", **values: object) -> Response:
    """Return a page as the viewer of this request sees it; ``values`` are the template's own."""
    who = viewer.get()
    text = _templates.get_template(template).render(
        version=__version__,
        path=path,
        links=[] if who is NOBODY else [link for link in LINKS if _may_open(who, link)],
        may=rules.permissions(who),
        actor=who.actor,
        open=who is EVERYBODY,
        csrf_token=who.csrf_token,
        **values,
    )
    return HTMLResponse(text, status, headers={"Cache-Control": "no-cache"})


def _may_open(who: Viewer, link: Link) -> bool:
    demand = rules.find("GET", link.path).demand
    return demand is not None and rules.meets(who, demand)


_templates = Environment(loader=PackageLoader("meterway.cloud", "pages/templates"), autoescape=True)
_templates.undefined = StrictUndefined


class _Static(StaticFiles):
    """Files that a browser asks for again, and gets only when they changed."""

    def file_response(self, *args: object, **kwargs: object) -> Response:
        response = super().file_response(*args, **kwargs)  # type: ignore[arg-type]
        response.headers["Cache-Control"] = "no-cache"
        return response
