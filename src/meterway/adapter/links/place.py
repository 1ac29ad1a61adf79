"""What status, logs and errors call a source. Never with a secret."""

from meterway.adapter.config import ReplaySource, SerialSource, Source, TcpSource


def describe(source: Source) -> str:
    """Return the place in words for status and errors."""
    match source:
        case SerialSource():
            return f"serial port {source.port}"
        case TcpSource():
            return f"tcp {source.host}:{source.port}"
        case ReplaySource():
            return f"file {source.file}"


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
