"""Paths into a JSON document: a JSON Pointer (RFC 6901) without its first slash, and two selectors.

    ENERGY/Total                     the member Total of the member ENERGY
    emeters/0/power                  an element of an array, counted from 0
    1.8.0                            points are part of a name
    */Total_in                       the first member or element, in the document's order, that has the rest
    external/type=gas_meter/value    the first element of which the member ``type`` is the text ``gas_meter``
    media=water/total_m3             an object itself, if its member is so
    (empty)                          the document

Names with ``/``, ``*`` or ``=`` cannot be written.
"""

from typing import Final

MISSING: Final = object()
"""What ``find`` answers where there is nothing, for null is something."""

_ANY: Final = "*"
_EQUALS: Final = "="

Segments = tuple[str, ...]


def parse_path(path: str) -> Segments:
    """Return the parts of a path."""
    return tuple(path.split("/")) if path else ()


def find(node: object, segments: Segments) -> object:
    """Return what stands at a path below ``node``; ``MISSING`` if there is nothing."""
    for index, segment in enumerate(segments):
        if segment == _ANY:
            return _first(_children(node), segments[index + 1 :])
        if isinstance(node, list):
            node = _element(node, segment)
        elif not isinstance(node, dict):
            return MISSING
        elif _EQUALS not in segment:
            node = node.get(segment, MISSING)
        elif not _is(node, segment):
            return MISSING
    return node


def put(node: object, segments: Segments, value: object) -> object:
    """Return ``node``, or what takes the place of None, with ``value`` at a path: what ``find`` then finds.

    ``*`` becomes a member ``meter``. For the encoders of virtual meters.
    """
    if not segments:
        return value
    segment, rest = segments[0], segments[1:]
    if segment.isdigit():
        array = node if isinstance(node, list) else []
        array += [None] * (int(segment) + 1 - len(array))
        array[int(segment)] = put(array[int(segment)], rest, value)
        return array
    if _EQUALS in segment and not isinstance(node, dict):
        return _put_selected(node if isinstance(node, list) else [], segment, rest, value)
    members = node if isinstance(node, dict) else {}
    if _EQUALS in segment:
        name, _, text = segment.partition(_EQUALS)
        members[name] = text
        return put(members, rest, value)
    name = "meter" if segment == _ANY else segment
    members[name] = put(members.get(name), rest, value)
    return members


def _put_selected(array: list[object], segment: str, rest: Segments, value: object) -> list[object]:
    name, _, text = segment.partition(_EQUALS)
    element = _element(array, segment)
    if element is MISSING:
        element = {name: text}
        array.append(element)
    put(element, rest, value)
    return array


def _children(node: object) -> list[object]:
    if isinstance(node, dict):
        return list(node.values())
    return node if isinstance(node, list) else []


def _first(nodes: list[object], rest: Segments) -> object:
    for node in nodes:
        found = find(node, rest)
        if found is not MISSING:
            return found
    return MISSING


def _element(array: list[object], segment: str) -> object:
    if _EQUALS in segment:
        return next((node for node in array if isinstance(node, dict) and _is(node, segment)), MISSING)
    if segment.isdecimal() and len(segment) <= len(str(len(array))) and int(segment) < len(array):
        return array[int(segment)]
    return MISSING


def _is(node: dict[str, object], segment: str) -> bool:
    name, _, text = segment.partition(_EQUALS)
    return node.get(name) == text
