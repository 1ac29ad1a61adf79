"""A serial line as levels over time: what a reader sees that is set otherwise than the sender."""

from collections.abc import Iterator

from meterway.meter.family import Line


def read_as(data: bytes, sent: Line, read: Line) -> bytes:
    """Return what a reader set as ``read`` makes of ``data`` sent back to back; bits are sampled in their middle."""
    bits = list(_bits(data, sent))
    seen = bytearray()
    position = 0.0  # in bits of the sender
    step = sent.baud / read.baud

    def level(at: float) -> int:
        return bits[int(at)] if at < len(bits) else 1

    while position < len(bits):
        if level(position):
            position += step / 16
            continue
        value = 0
        for number in range(read.data_bits):
            value |= level(position + (number + 1.5) * step) << number
        seen.append(value)
        position += (1.5 + read.data_bits + (read.parity != "N")) * step
        while position < len(bits) and not level(position):  # a framing error: wait for the line to rest
            position += step / 16
    return bytes(seen)


def _bits(data: bytes, line: Line) -> Iterator[int]:
    for byte in data:
        content = [byte >> number & 1 for number in range(line.data_bits)]
        yield 0
        yield from content
        if line.parity != "N":
            yield (sum(content) + (line.parity == "O")) % 2
        yield from [1] * line.stop_bits
