"""The command ``meterway``: one file a command; each is imported only when it is called."""

import sys
from importlib import import_module

import click

from meterway import __version__
from meterway.cli.output import fail
from meterway.core.errors import MeterwayError, SetupError

_COMMANDS = {
    "demo": "meterway.cli.demo:demo",
    "edge": "meterway.cli.run:edge",
    "adapter": "meterway.cli.run:adapter",
    "concentrator": "meterway.cli.run:concentrator",
    "cloud": "meterway.cli.cloud:cloud",
    "meter": "meterway.cli.meter:meter",
    "decode": "meterway.cli.decode:decode",
    "drivers": "meterway.cli.drivers:drivers",
    "detect": "meterway.cli.detect:detect",
    "doctor": "meterway.cli.doctor:doctor",
    "gaps": "meterway.cli.gaps:gaps",
    "verify": "meterway.cli.verify:verify",
    "secret": "meterway.cli.secret:secret",
    "config": "meterway.cli.config:config",
}


class _LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in _COMMANDS:
            return None
        module, _, name = _COMMANDS[cmd_name].partition(":")
        command: click.Command = getattr(import_module(module), name)
        return command


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="meterway")
def root() -> None:
    """Carry readings from any meter to a place where people can use them, each exactly once.

    \b
    Try it:        meterway demo
    Your meter:    meterway detect
    A capture:     meterway decode telegram.bin
    One device:    meterway edge --config edge.toml
    The cloud:     meterway cloud --config cloud.toml

    Every command takes --json. Exit codes: 0 done, 1 it did not work (the message says why), 2 wrong usage or
    configuration, 130 interrupted.
    """


def main() -> None:
    """Run the command line; errors of ours become one sentence on stderr and an exit code."""
    try:
        root(prog_name="meterway", standalone_mode=False)
    except click.exceptions.Exit as done:
        sys.exit(done.exit_code)
    except click.exceptions.NoArgsIsHelpError as help_wanted:
        sys.stderr.write(f"{help_wanted.format_message()}\n")
        sys.exit(2)
    except click.ClickException as error:
        fail(error.format_message(), code=2, usage=error)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except MeterwayError as error:
        fail(str(error), code=2 if isinstance(error, SetupError) else 1)
    except ModuleNotFoundError as error:
        if (error.name or "meterway").startswith("meterway"):
            raise
        fail(f"{error.name} is not installed; this command needs: pip install 'meterway[cloud,embedded]'", code=2)
    except OSError as error:
        if error.filename is None:
            raise
        fail(f"{error.filename} cannot be used: {error.strerror}; make room, change its rights or name another", code=2)
