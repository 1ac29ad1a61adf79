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
        ("/people", "people.html"),
        ("/audit", "audit.html"),
    ):
        add_page(app, path, template)

    provider = api.oidc.config.name if api.oidc is not None else None

    @app.get("/sign-in", include_in_schema=False)
    async def show_sign_in() -> Response:
        return page("sign_in.html", path="/sign-in", provider=provider)

    @app.get("/account", include_in_schema=False)
    async def show_account() -> Response:
        return page("account.html", path="/account", provider=provider)

    @app.get("/link/{secret}", include_in_schema=False)
    async def show_link(secret: Annotated[str, Path(max_length=100)]) -> Response:
        known = await api.in_time(api.accounts.look_at_link(secret))
        if known is None:
            return page("refused.html", status=404, sentence=str(no_link()))
        return page("link.html", login=known["login"], name=known["name"], provider=provider)
