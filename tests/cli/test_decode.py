"""What a telegram says is shown, never obeyed."""

from pathlib import Path

from click.testing import CliRunner

from meterway.cli.decode import decode
from meterway.meter.crc import crc16_arc


def telegram(*lines: bytes) -> bytes:
    body = b"/MWY5\\ATTACK\r\n\r\n" + b"".join(line + b"\r\n" for line in lines) + b"!"
    return body + f"{crc16_arc(body):04X}\r\n".encode()


def shown(tmp_path: Path, *lines: bytes) -> str:
    path = tmp_path / "telegram.bin"
    path.write_bytes(telegram(b"1-0:1.8.0(000001.000*kWh)", *lines))
    result = CliRunner().invoke(decode, [str(path)], catch_exceptions=False)
    assert result.exit_code == 0
    return result.output


def test_a_text_that_looks_like_markup_is_shown_as_it_is(tmp_path: Path) -> None:
    assert "[/red]x" in shown(tmp_path, b"0-0:96.13.0([/red]x)")
    assert "[/b]zz" in shown(tmp_path, b"[/b]zz(1)")


def test_a_text_cannot_command_the_terminal(tmp_path: Path) -> None:
    output = shown(tmp_path, b"0-0:96.13.0(\x1b]0;owned\x07)")
    assert "\x1b" not in output
    assert "\N{MIDDLE DOT}]0;owned\N{MIDDLE DOT}" in output


def test_a_value_with_a_time_of_its_own_shows_it(tmp_path: Path) -> None:
    output = shown(tmp_path, b"0-1:24.1.0(003)", b"0-1:24.2.1(261123100000W)(00001.000*m3)")
    assert "2026-11-23T10:00:00" in output
