"""What status, logs and errors call a source. Never with a secret."""

from pathlib import Path
from urllib.parse import urlsplit

from meterway.adapter.config import (
    HttpSource,
    MqttSource,
    ProcessSource,
    ReplaySource,
    Rfc2217Source,
    SerialSource,
    Source,
    TcpListenerSource,
    TcpSource,
)


def describe(source: Source) -> str:  # noqa: PLR0911 - one line a kind
    """Return the place in words for status and errors: of a URL no query, of a program no arguments."""
    match source:
        case SerialSource():
            return f"serial port {source.port}"
        case Rfc2217Source():
            return f"rfc2217 {source.host}:{source.port}"
        case TcpSource():
            return f"tcp {source.host}:{source.port}"
        case TcpListenerSource():
            return f"tcp listener {source.host}:{source.port}"
        case ReplaySource():
            return f"file {source.file}"
        case MqttSource():
            return f"mqtt topic {source.topic}"
        case HttpSource():
            return urlsplit(source.url)._replace(query="", fragment="").geturl()
        case ProcessSource():
            return f"program {Path(source.command[0]).name}"


def kind(source: Source) -> str:
    """Return the kind of link, without address: the ``type`` of its table."""
    return str(source.__struct_config__.tag)


def why(error: BaseException) -> str:
    """Return the reason in an error of the operating system or a library."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return str(error) or type(error).__name__
