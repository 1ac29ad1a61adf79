"""Writes the pages that are made from the code and its data: docs/{config,cli,properties,code}.md, docs/meters/*.md.

`python scripts/make_docs.py --check` writes nothing and fails if a page is out of date; a test calls it.
"""

import ast
import inspect
import sys
import tomllib
from collections.abc import Iterator
from importlib import import_module
from importlib.resources import files
from itertools import groupby
from pathlib import Path

import click
import msgspec
from meter_pages import meter_pages

from meterway.cli import root
from meterway.core.properties import Medium, catalogue

DOCS = Path(__file__).parent.parent / "docs"
SOURCE = Path(__file__).parent.parent / "src" / "meterway"
MADE = "<!-- made by `make docs` from the code; edit there -->\n"

COMPONENTS = (
    ("adapter", "meterway.adapter.config", "AdapterConfig"),
    ("concentrator", "meterway.concentrator.config", "ConcentratorConfig"),
    ("cloud", "meterway.cloud.config", "CloudConfig"),
    ("edge", "meterway.edge", "EdgeConfig"),
)


def config_page() -> str:
    """Every key of every component's configuration, with its type, default and docstring."""
    lines = [
        "# Configuration",
        MADE,
        "Each component reads one TOML file. A key that is not listed here is an error that names the nearest one.",
        "`meterway config check FILE` reads a file as its component would. Secrets never stand in a configuration:",
        "it names the file that holds one. A table that stands in several components is described once.",
        "",
    ]
    seen: set[type] = set()
    for component, module, name in COMPONENTS:
        kind: type[msgspec.Struct] = getattr(import_module(module), name)
        lines += [f"## `meterway {component}`", ""]
        for struct in _structs(kind, seen):
            lines += _table(struct, top=struct is kind)
    return "\n".join(lines)


def _structs(kind: type[msgspec.Struct], seen: set[type]) -> Iterator[type[msgspec.Struct]]:
    """The Struct and those in it, each once on the page."""
    pending: list[msgspec.inspect.Type] = [msgspec.inspect.type_info(kind)]
    while pending:
        info = pending.pop(0)
        if isinstance(info, msgspec.inspect.StructType):
            if info.cls in seen:
                continue
            seen.add(info.cls)
            yield info.cls
            pending += [field.type for field in info.fields]
        for name in ("types", "item_types"):
            pending += getattr(info, name, ())
        pending += [inner for name in ("item_type", "value_type", "type") if (inner := getattr(info, name, None))]


def _table(struct: type[msgspec.Struct], *, top: bool) -> list[str]:
    doc = inspect.cleandoc(struct.__doc__ or "").split("\n\n")[0].replace("\n", " ")
    lines = [] if top else [f"### {struct.__name__}", ""]
    lines += [doc, "", "| key | type | default | meaning |", "|---|---|---|---|"]
    described = _docstrings(struct)
    if tag := struct.__struct_config__.tag:
        lines.append(f'| `type` | text | `"{tag}"` | which kind of table this is |')
    info = msgspec.inspect.type_info(struct)
    assert isinstance(info, msgspec.inspect.StructType)  # noqa: S101 - a Struct's info is one
    for field in info.fields:
        default = "required" if field.required else _default(field)
        meaning = described.get(field.name, "").replace("``", "`").replace("|", "\\|")
        lines.append(f"| `{field.encode_name}` | {_type_name(field.type)} | {default} | {meaning} |")
    return [*lines, ""]


def _docstrings(struct: type) -> dict[str, str]:
    """The string below each field, of the Struct and of those it derives from."""
    found: dict[str, str] = {}
    for each in reversed(struct.__mro__):
        if not issubclass(each, msgspec.Struct) or each is msgspec.Struct:
            continue
        body = ast.parse(inspect.cleandoc("\n" + inspect.getsource(each))).body[0]
        assert isinstance(body, ast.ClassDef)  # noqa: S101 - the source of a class
        for line, following in zip(body.body, body.body[1:], strict=False):
            if (
                isinstance(line, ast.AnnAssign)
                and isinstance(line.target, ast.Name)
                and isinstance(following, ast.Expr)
                and isinstance(following.value, ast.Constant)
            ):
                found[line.target.id] = " ".join(str(following.value.value).split())
    return found


def _default(field: msgspec.inspect.Field) -> str:
    value = field.default
    if value is msgspec.NODEFAULT:
        value = field.default_factory() if field.default_factory is not msgspec.NODEFAULT else ""
    if value is None:
        return "none"
    if isinstance(value, msgspec.Struct):
        return "its defaults"
    if isinstance(value, str | Path):
        return f'`"{value}"`'
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value}`" if value not in ((), {}, "") else "empty"


_NAMES = {
    "StrType": "text",
    "IntType": "whole number",
    "FloatType": "number",
    "BoolType": "`true` or `false`",
    "DictType": "table",
    "CustomType": "path",
}


def _type_name(info: msgspec.inspect.Type) -> str:
    name = _NAMES.get(type(info).__name__, type(info).__name__)
    match info:
        case msgspec.inspect.StructType():
            name = f"[{info.cls.__name__}](#{info.cls.__name__.lower()})"
        case msgspec.inspect.UnionType():
            name = " or ".join(_type_name(each) for each in info.types if type(each).__name__ != "NoneType")
        case msgspec.inspect.VarTupleType():
            name = f"list of {_type_name(info.item_type)}"
        case msgspec.inspect.LiteralType():
            name = " or ".join(f'`"{value}"`' for value in info.values)
        case msgspec.inspect.Metadata():
            name = _type_name(info.type)
    return name


def cli_page() -> str:
    """The help of every command."""
    lines = ["# Command line", MADE]
    for path, command in _commands("meterway", root, None):
        context = click.Context(command, info_name=path, max_content_width=100, terminal_width=100)
        lines += [f"## `{path}`", "", "```text", command.get_help(context).replace("\b\n", ""), "```", ""]
    return "\n".join(lines)


def _commands(path: str, command: click.Command, parent: click.Context | None) -> Iterator[tuple[str, click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command, info_name=path, parent=parent)
        for name in command.list_commands(context):
            if found := command.get_command(context, name):
                yield from _commands(f"{path} {name}", found, context)


def properties_page() -> str:
    """The catalogue, and what in it differs from the public specification."""
    lines = ["# Operational properties", MADE, "The unit named first is the one that adapters publish.", ""]
    for medium in Medium:
        lines += [f"## {medium.capitalize()}", "", "| id | meaning | units | kind |", "|---|---|---|---|"]
        lines += [
            f"| `{each.property_id}` | {each.description} | {', '.join(each.allowed_units)} | {each.kind} |"
            for each in catalogue()
            if each.medium is medium
        ]
        lines.append("")
    lines += ["## What differs from the public specification", ""]
    text = (files("meterway.core") / "data" / "corrections.toml").read_text(encoding="utf-8")
    corrections = tomllib.loads(text)
    lines += ["| id there | what it says | here | why |", "|---|---|---|---|"]
    lines += [
        f"| {', '.join(f'`{each}`' for each in entry['ids'])} | {entry['specification']} | {entry['here']} "
        f"| {entry['reason']} |"
        for entry in corrections["correction"]
    ]
    return "\n".join(lines) + "\n"


def code_page() -> str:
    """Every file of the source, with the first sentence of its docstring."""
    lines = ["# The code, file by file", MADE, "[architecture.md](architecture.md) says how they belong together.", ""]
    every = sorted(SOURCE.rglob("*.py"), key=lambda file: (file.parent.relative_to(SOURCE).parts, file.name))
    for folder, found in groupby(every, key=lambda file: file.parent):
        name = folder.relative_to(SOURCE.parent).as_posix()
        described = {file.name: _first_sentences(file) for file in found}
        lines += [f"## `{name}/`", "", described.pop("__init__.py"), ""]
        if described:
            lines += ["| file | |", "|---|---|", *(f"| `{file}` | {said} |" for file, said in described.items()), ""]
    return "\n".join(lines)


def _first_sentences(file: Path) -> str:
    """The first paragraph of a module's docstring."""
    text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    return " ".join(text.split("\n\n")[0].split()).replace("``", "`").replace("|", "\\|").replace("<", "&lt;")


def pages() -> dict[str, str]:
    """Every page by its path below docs/."""
    made = {"config.md": config_page, "cli.md": cli_page, "properties.md": properties_page, "code.md": code_page}
    return {name: f"# {title}\n{MADE}\n{text}" for name, (title, text) in meter_pages().items()} | {
        name: make() for name, make in made.items()
    }


def main() -> int:
    """Write the pages, or with --check say which are out of date."""
    stale = []
    made = pages()
    for name, text in made.items():
        text = text.rstrip() + "\n"  # noqa: PLW2901 - as it stands in the file
        path = DOCS / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            stale.append(name)
            if "--check" not in sys.argv:
                path.parent.mkdir(exist_ok=True)
                path.write_text(text, encoding="utf-8")
    for path in (DOCS / "meters").glob("*.md"):
        if f"meters/{path.name}" not in made:
            stale.append(f"meters/{path.name}")
            if "--check" not in sys.argv:
                path.unlink()
    for name in stale:
        sys.stdout.write(f"docs/{name}: {'out of date; run `make docs`' if '--check' in sys.argv else 'written'}\n")
    return 1 if stale and "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
