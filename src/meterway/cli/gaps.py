"""``meterway gaps``: which readings are missing, and why."""

import os
import ssl
import sys
from collections.abc import Iterator
from datetime import datetime
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import click

from meterway.cli.output import json_option, print_json
from meterway.core.errors import BadDataError, SetupError, TransientError

if TYPE_CHECKING:
    import httpx

    from meterway.cloud.ledger_answers import CompletenessSummary, GapAnswer

_TIMEOUT_S = 60.0
_DAY = click.DateTime(formats=["%Y-%m-%d"])


@click.command(short_help="Show which readings are missing in the cloud, and why.")
@click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The cloud's configuration, on its own machine; the cloud must be running.",
)
@click.option("--url", help="Where the cloud is, in place of --config: http://localhost:8080")
@click.option(
    "--token-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A file with an API token that may `read`; or in METERWAY_TOKEN.",
)
@click.option("--meter", "meter_id", help="Only this meter.")
@click.option("--from", "first", type=_DAY, help="The first day (UTC).  [default: six days before the last]")
@click.option("--to", "last", type=_DAY, help="The last day.  [default: today]")
@json_option
def gaps(
    config_path: Path | None,
    *,
    url: str | None,
    token_file: Path | None,
    meter_id: str | None,
    first: datetime | None,
    last: datetime | None,
    as_json: bool,
) -> None:
    """Show which readings are missing in the cloud, meter by meter, and why.

    \b
    not-read   no reading was made: meter or adapter silent, telegrams rejected
    waiting    it may still come: it is in a spool, or the concentrator is off
    refused    it is in quarantine
    lost       its number was skipped, and it is nowhere

    Expected is a reading every interval of the meter. One that says more has more stored than expected; 100 % means
    that nothing is missing.

    With --json each meter is one line, as in the HTTP interface. Exit code 1 if a reading is lost.

    \b
    Examples:
      meterway gaps --config cloud.toml
      meterway gaps --url http://localhost:8080 --token-file token --from 2026-11-01 --to 2026-11-30
      meterway gaps --config cloud.toml --json | jq 'select(.percent < 99)'
    """
    base, trusted = _address(config_path, url)
    query = {name: f"{day:%Y-%m-%d}" for name, day in (("from", first), ("to", last)) if day is not None}
    lost = 0
    for each in _summaries(base, trusted, _token(token_file), meter_id, query):
        lost += each.lost
        if as_json:
            print_json(each)
        else:
            _show(each)
    if lost and not as_json:
        click.echo(click.style(f"{lost} readings are lost", fg="red", bold=True))
    sys.exit(1 if lost else 0)


def _address(config_path: Path | None, url: str | None) -> tuple[str, ssl.SSLContext]:
    """Return where the cloud answers, and whom to trust there: what this machine trusts, and the cloud's authority.

    Raises:
        SetupError: it is not said, said twice, or a port that changes; or the authority cannot be read.
    """
    if (config_path is None) == (url is None):
        raise SetupError("say where the cloud is, once: --config cloud.toml or --url http://localhost:8080")
    trusted = ssl.create_default_context()
    if url is not None:
        return url.rstrip("/"), trusted
    from meterway.cli.config import read_config
    from meterway.cloud.config import CloudConfig
    from meterway.core.hosts import in_url, reached_at

    assert config_path is not None  # noqa: S101 - the two are not both None
    config = read_config(config_path, CloudConfig)
    http = config.http
    if http.port == 0:
        raise SetupError(f"{config_path}: [http] port = 0 takes a free port: give the --url that the cloud's log says")
    host = reached_at(http.host)
    if http.certificate_file is not None and http.names:
        host = http.names[0]
    elif http.speaks_tls and http.certificate_file is None and (folder := config.certificate_dir) is not None:
        try:
            trusted.load_verify_locations(cafile=folder / "ca.pem")
        except OSError as error:
            raise SetupError(f"{folder / 'ca.pem'} cannot be read ({error}): run this as the cloud's user") from error
    return f"{'https' if http.speaks_tls else 'http'}://{in_url(host)}:{http.port}", trusted


def _token(file: Path | None) -> str | None:
    """Return the API token to send, if there is one.

    Raises:
        SetupError: the file cannot be read.
    """
    if file is None:
        return os.environ.get("METERWAY_TOKEN")
    try:
        return file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SetupError(f"--token-file {file} cannot be read: {error}") from error


def _summaries(
    base: str, trusted: ssl.SSLContext, token: str | None, meter_id: str | None, query: dict[str, str]
) -> Iterator["CompletenessSummary"]:
    """Ask for the meters, page by page.

    Raises:
        TransientError: the cloud does not answer, or cannot now.
        BadDataError: it refuses the question, or answers something else.
    """
    import httpx
    import msgspec

    from meterway.cloud.ledger_answers import CompletenessAnswer, CompletenessList

    headers = {"Authorization": f"Bearer {token}"} if token else {}
    with httpx.Client(base_url=base, timeout=_TIMEOUT_S, headers=headers, verify=trusted) as client:
        try:
            if meter_id is not None:
                answer = _asked(client, f"/v1/meters/{quote(meter_id, safe='')}/completeness", query)
                yield msgspec.json.decode(answer, type=CompletenessAnswer).total
                return
            after: str | None = ""
            while after is not None:
                page = msgspec.json.decode(
                    _asked(client, "/v1/completeness", {**query, "after": after}), type=CompletenessList
                )
                yield from page.content
                after = page.next_after
        except (httpx.TransportError, httpx.InvalidURL) as error:
            raise TransientError(f"the cloud does not answer at {base}: {error}; is it running?") from error
        except msgspec.DecodeError as error:
            raise BadDataError(f"{base} is no Meterway of this version: {error}", reason="bad-answer") from error


def _asked(client: "httpx.Client", path: str, query: dict[str, str]) -> bytes:
    import msgspec

    answer = client.get(path, params=query)
    if answer.is_success:
        return answer.content
    if answer.status_code == HTTPStatus.UNAUTHORIZED:
        raise SetupError(
            f"{client.base_url} wants to know who asks: make an API token on its page Account, and name its file with "
            "--token-file (or set METERWAY_TOKEN)"
        )
    try:
        detail = msgspec.json.decode(answer.content)["detail"]
    except (msgspec.DecodeError, TypeError, KeyError):
        detail = f"{client.base_url} answers {answer.status_code}"
    raise BadDataError(str(detail), reason="refused")


def _show(meter: "CompletenessSummary") -> None:
    """Print a meter, and its gaps below it."""
    from rich.console import Console
    from rich.table import Table

    console = Console(markup=False, highlight=False, soft_wrap=True)  # a name or a detail is no markup of ours
    percent = "interval unknown" if meter.percent is None else f"{meter.percent:.2f} %"
    console.print(f"{meter.meter_id}  {_plain(meter.name)}  {percent}, {_counted(meter)}".replace("    ", "  "))
    if not meter.gaps:
        return
    table = Table(box=None, padding=(0, 2, 0, 2), show_edge=False)
    for title in ("after", "until", "missing", "kind", "cause", ""):
        table.add_column(title, justify="right" if title == "missing" else "left", overflow="fold")
    for gap in meter.gaps:
        table.add_row(*_row(gap), style="red" if gap.kind == "lost" else None)
    console.print(table)


def _counted(meter: "CompletenessSummary") -> str:
    if meter.expected is None:
        return f"{meter.stored} stored"
    if meter.stored > meter.expected:
        return f"{meter.stored} stored, more than the {meter.expected} expected"
    return f"{meter.stored} of {meter.expected} stored"


def _row(gap: "GapAnswer") -> tuple[str, ...]:
    numbers = ""
    if gap.first_sequence_number is not None:
        numbers = f"number {gap.first_sequence_number} to {gap.last_sequence_number}. "
    start, end = (f"{moment:%Y-%m-%d %H:%M:%S}Z" for moment in (gap.start, gap.end))
    return start, end, str(gap.missing), gap.kind, gap.cause, numbers + _plain(gap.detail)


def _plain(text: str | None) -> str:
    """Return a text from outside without the characters that would command a terminal."""
    return "".join(each if each.isprintable() else "\N{MIDDLE DOT}" for each in text or "")
