"""The pages of people: signing in, one-time links, the own account, accounts and households, the audit log."""

from typing import Annotated

from fastapi import FastAPI, Path
from starlette.responses import Response

from meterway.cloud.access.accounts import no_link
from meterway.cloud.context import Context
from meterway.cloud.pages import add_page, page


def add_access_pages(app: FastAPI, api: Context) -> None:
    """Add them to ``app``."""
    for path, template in (
        ("/sign-in", "sign_in.html"),
        ("/account", "account.html"),
        ("/people", "people.html"),
        ("/audit", "audit.html"),
    ):
        add_page(app, path, template)

    @app.get("/link/{secret}", include_in_schema=False)
    async def show_link(secret: Annotated[str, Path(max_length=100)]) -> Response:
        known = await api.in_time(api.accounts.look_at_link(secret))
        if known is None:
            return page("refused.html", status=404, sentence=str(no_link()))
        return page("link.html", login=known["login"], name=known["name"])
