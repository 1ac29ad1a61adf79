"""From what a person names to a source: a port, a gateway, a web address, a topic."""

from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from meterway.adapter.config import HttpSource, MqttSource, Rfc2217Source, SerialSource, Source, TcpSource
from meterway.adapter.detect_ports import lasting
from meterway.bus.bus import BrokerConfig
from meterway.core.errors import BadDataError, SetupError
from meterway.core.hosts import is_loopback

USUAL_PATHS: Final = (
    "/api/v1/data",
    "/cm?cmnd=Status%2010",
    "/rpc/Shelly.GetStatus",
    "/status",
    "/api/v1/report",
)
"""Where devices have their values: HomeWizard; Tasmota and gPlug; Shelly, new and old; whatwatt."""
_MQTT_PORTS: Final = {"mqtt": 1883, "mqtts": 8883}


def sources(
    place: str, *, username: str | None = None, password_file: Path | None = None, token_file: Path | None = None
) -> list[Source]:
    """Return where to look: one source, or, for a device without a path, one for each usual path.

    Log-ins are for places of HTTP and MQTT.

    Raises:
        SetupError: it is no place.
    """
    try:
        if place.startswith(("http://", "https://")):
            return _http(place, username, password_file, token_file)
        if place.startswith(("mqtt://", "mqtts://")):
            return [_mqtt(place, username, password_file)]
        if place.startswith(("/", "./", "../")) or Path(place).is_char_device():
            return [SerialSource(port=lasting(Path(place).absolute()))]
        return [_gateway(place)]
    except (ValueError, BadDataError) as error:
        raise SetupError(f"{_shown(place)}: {error}") from error


def _http(place: str, username: str | None, password_file: Path | None, token_file: Path | None) -> list[Source]:
    parts = urlsplit(place)
    bare = parts.path in ("", "/") and not parts.query
    urls = [f"{parts.scheme}://{parts.netloc}{path}" for path in USUAL_PATHS] if bare else [place]
    password_file = password_file if username is not None else None
    return [HttpSource(url=url, username=username, password_file=password_file, token_file=token_file) for url in urls]


def _mqtt(place: str, username: str | None, password_file: Path | None) -> MqttSource:
    scheme, _, rest = place.partition("://")
    host, slash, topic = rest.partition("/")
    if not slash or not topic:
        raise ValueError("there is no topic behind the broker; name one, mqtt://BROKER/tele/+/SENSOR")
    address = urlsplit(f"{scheme}://{host}")
    if not address.hostname or address.username is not None:
        raise ValueError("that is no broker; a user name goes into --username, its password into --password-file")
    broker = BrokerConfig(
        url=f"{scheme}://{host}" if address.port else f"{scheme}://{host}:{_MQTT_PORTS[scheme]}",
        username=username,
        password_file=password_file if username is not None else None,
        # Devices at home seldom speak TLS, and who looks for one named it so; the configuration then says it too.
        plaintext=scheme == "mqtt" and not is_loopback(address.hostname),
    )
    return MqttSource(topic=topic, broker=broker)


def _gateway(place: str) -> Source:
    parts = urlsplit(place if "://" in place else f"tcp://{place}")
    host, port = parts.hostname, parts.port
    if not host or not port or parts.scheme not in ("tcp", "rfc2217") or parts.path:
        raise ValueError(
            "that is no place to look at; name /dev/ttyUSB0, HOST:PORT, rfc2217://HOST:PORT, http://HOST/PATH or "
            "mqtt://BROKER/TOPIC"
        )
    return TcpSource(host=host, port=port) if parts.scheme == "tcp" else Rfc2217Source(host=host, port=port)


def _shown(place: str) -> str:
    """Return the place without what may be a secret."""
    return repr(place.partition("?")[0].rpartition("@")[2][:80])
