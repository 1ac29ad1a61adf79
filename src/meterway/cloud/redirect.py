"""What plain HTTP beyond this machine answers: that the same is at https."""

from collections.abc import Collection

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from meterway.cloud.guard import host_name, named_hosts
from meterway.cloud.problems import problem_response

_HTTPS_PORT = 443


class Redirect:
    """ASGI application; sends everybody to TLS on ``port`` of the same name, if it is one of ours."""

    def __init__(self, hosts: Collection[str], port: int) -> None:
        self._hosts = named_hosts(hosts)
        self._port = port

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._answer(scope)(scope, receive, send)

    def _answer(self, scope: Scope) -> Response:
        hosts = Headers(scope=scope).getlist("host")
        if len(hosts) != 1 or host_name(hosts[0]) not in self._hosts:
            return problem_response(421, "The Host header does not name this machine.", reason="wrong-host")
        place = f"https://{host_name(hosts[0])}" + (f":{self._port}" if self._port != _HTTPS_PORT else "")
        path = scope["raw_path"].decode("ascii", "ignore")
        query = scope["query_string"].decode("ascii", "ignore")
        # A browser would remember it for ever, also when TLS is gone.
        headers = {"Location": f"{place}{path}{'?' + query if query else ''}", "Cache-Control": "no-store"}
        return Response(status_code=308, headers=headers)
