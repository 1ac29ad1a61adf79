"""``meterway secret``: keys and passwords, encrypted at rest."""

import os
import sys
from pathlib import Path

import click

from meterway.cli.output import json_option, print_json
from meterway.core.errors import SetupError
from meterway.secret_store import LIMIT_SECRET_BYTES, PREFIX, SecretStore


@click.group(short_help="Keep keys and passwords encrypted.")
def secret() -> None:
    """Keep keys of meters, passwords and tokens in one encrypted file (AES-256-GCM).

    A configuration names one wherever it could name a file: key_file = "secret:house-1".

    \b
    The file        METERWAY_SECRETS, else /etc/meterway/secrets for root, ~/.config/meterway/secrets for others
    Its master key  from systemd (LoadCredentialEncrypted=meterway.key), which a TPM can seal; else the file in
                    METERWAY_SECRETS_KEY; else one beside the secrets, made by the first `set`

    A key beside the secrets keeps them out of backups and copies of one of the two files. Whoever has the whole disk
    has both: against that, use systemd's credentials (docs/operations.md).

    \b
    Example:
      meterway secret set house-1                      # asks for the key, which nobody sees
      meterway secret set house-1 --from house-1.key   # then remove that file
      meterway secret list
    """


@secret.command("set", short_help="Keep a secret, or replace it.")
@click.argument("name")
@click.option(
    "--from",
    "file",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="A file with the secret.  [default: asked for, or standard input if that is no terminal]",
)
@json_option
def set_(name: str, *, file: Path | None, as_json: bool) -> None:
    """Keep a secret under NAME, in place of the one of that name.

    A key is what would stand in a key file: 32 hexadecimal digits; on a second line the authentication key.

    \b
    Examples:
      meterway secret set house-1
      printf '%s' "$TOKEN" | meterway secret set gateway-token
    """
    store = SecretStore.of(os.environ)
    had_key = store.key_path.exists()
    store.set(name, _value(name, file))
    if as_json:
        print_json({"name": name, "file": str(store.path), "use": PREFIX + name})
        return
    click.echo(f'kept in {store.path}; use it as "{PREFIX}{name}"')
    if not had_key:
        click.echo(
            f"the master key is new: {store.key_path}. Without it no secret opens again: keep a copy elsewhere. "
            "Whoever has both files has the secrets",
            err=True,
        )


def _value(name: str, file: Path | None) -> bytes:
    """Return the secret.

    Raises:
        SetupError: the file cannot be read, or nothing was said.
    """
    if file is not None:
        try:
            with file.open("rb") as opened:
                return opened.read(LIMIT_SECRET_BYTES + 1)
        except OSError as error:
            raise SetupError(f"{file}: cannot be read: {error.strerror}") from error
    if sys.stdin.isatty():
        said: str = click.prompt(f"Secret {name}", hide_input=True, err=True)
        return said.encode()
    return sys.stdin.buffer.read(LIMIT_SECRET_BYTES + 1)


@secret.command("list", short_help="Show the names of the secrets.")
@json_option
def list_(*, as_json: bool) -> None:
    """Show the names of the secrets, never what they are; no master key is needed.

    \b
    Example:
      meterway secret list
    """
    store = SecretStore.of(os.environ)
    names = store.names()
    for name in names:
        if as_json:
            print_json({"name": name})
        else:
            click.echo(name)
    if not names:
        click.echo(f"there are no secrets in {store.path}", err=True)


@secret.command(short_help="Forget a secret.")
@click.argument("name")
@json_option
def remove(name: str, *, as_json: bool) -> None:
    """Forget the secret NAME. What reads it fails at its next start.

    The old file's blocks may stay on the medium for a while, sealed as they were.

    \b
    Example:
      meterway secret remove house-1
    """
    store = SecretStore.of(os.environ)
    store.remove(name)
    if as_json:
        print_json({"name": name, "file": str(store.path), "removed": True})
    else:
        click.echo(f"removed from {store.path}")
