"""XMP packets, edited in place: what is not about the pixels keeps its bytes (XMP, part 1).

A property is an attribute or an element: ``tiff:ImageWidth="640"``,
``<tiff:ImageWidth>640</tiff:ImageWidth>``. Its prefix is whatever the packet binds
to its namespace.
"""

import re
from collections.abc import Iterator
from typing import Final

_TIFF, _EXIF = rb"http://ns\.adobe\.com/tiff/1\.0/", rb"http://ns\.adobe\.com/exif/1\.0/"
_GPANO: Final = rb"http://ns\.google\.com/photos/1\.0/panorama/"
_ACROSS: Final = (
    *(rb"FullPanoWidthPixels", rb"CroppedAreaImageWidthPixels", rb"CroppedAreaLeftPixels"),
    *(rb"LargestValidInteriorRectLeft", rb"LargestValidInteriorRectWidth"),
)
_DOWN: Final = (
    *(rb"FullPanoHeightPixels", rb"CroppedAreaImageHeightPixels", rb"CroppedAreaTopPixels"),
    *(rb"LargestValidInteriorRectTop", rb"LargestValidInteriorRectHeight"),
)
_CLAIMS: Final = (
    (rb"http://ns\.adobe\.com/hdr-gain-map/1\.0/", rb"[\w.-]+", "gain map"),
    (rb"http://ns\.apple\.com/HDRGainMap/1\.0/", rb"[\w.-]+", "gain map"),
    (rb"http://ns\.google\.com/photos/1\.0/camera/", rb"(?:MotionPhoto|MicroVideo)\w*", "video"),
    (rb"http://ns\.google\.com/photos/1\.0/container/", rb"[\w.-]+", "container"),
    (rb"http://ns\.adobe\.com/xmp/note/", rb"HasExtendedXMP", "extended XMP"),
)
"""Namespace and names of properties that speak of a second part of the file, and what that is."""
_MOST_PREFIXES: Final = 8
"""Prefixes of one namespace that are looked for; packets bind one."""


def orientation_in(packet: bytes) -> int | None:
    """The orientation, 1 to 8, or None where there is none that makes sense."""
    for match in _properties(packet, _TIFF, rb"Orientation"):
        if match["value"] in (b"1", b"2", b"3", b"4", b"5", b"6", b"7", b"8"):
            return int(match["value"])
    return None


def set_upright(packet: bytes) -> bytes:
    """The packet with an orientation of 1, where it names one."""
    return _with_value(packet, _TIFF, rb"Orientation", 1)


def is_all_around(packet: bytes) -> bool:
    """Whether it describes a panorama of all 360 degrees (Photo Sphere XMP, GPano)."""
    full, own = (
        [int(match["value"]) for match in _properties(packet, _GPANO, name)]
        for name in (rb"FullPanoWidthPixels", rb"CroppedAreaImageWidthPixels")
    )
    return bool(full) and full == own and b"equirectangular" in packet


def set_size(
    packet: bytes, width: int, height: int, before: tuple[int, int] | None = None
) -> bytes:
    """The packet with the output's dimensions in pixels, where it names some, and with those of a
    panorama and of the sensor as much larger as it is than ``before``, width and height."""
    names = (
        (_TIFF, rb"ImageWidth", width),
        (_TIFF, rb"ImageLength", height),
        (_EXIF, rb"PixelXDimension", width),
        (_EXIF, rb"PixelYDimension", height),
    )
    for namespace, name, value in names:
        packet = _with_value(packet, namespace, name, value)
    if before is not None:
        across, down = width / before[0], height / before[1]
        for names_of, ratio in ((_ACROSS, across), (_DOWN, down)):
            for name in names_of:
                packet = _with_value(packet, _GPANO, name, ratio)
        # Fractions, whose numerator comes first.
        packet = _with_value(packet, _EXIF, rb"FocalPlaneXResolution", across)
        packet = _with_value(packet, _EXIF, rb"FocalPlaneYResolution", down)
    return packet


def without_claims(packet: bytes) -> tuple[bytes, tuple[str, ...]]:
    """The packet without what it says of parts that are not carried over, and which those are:
    of "gain map", "video" and "extended XMP"."""
    found: list[str] = []
    for namespace, name, what in _CLAIMS:
        prefixes = _prefixes(packet, namespace)
        if not prefixes:
            continue
        property = rb"(?:" + rb"|".join(map(re.escape, prefixes)) + rb"):" + name
        attribute = rb"\s" + property + rb"\s*=\s*(?:\"[^\"]*\"|'[^']*')"
        shorter = re.sub(attribute, b"", _without_elements(packet, property))
        if shorter != packet:
            found.append(what)
        packet = shorter
    if not found:
        return packet, ()
    return packet, tuple(dict.fromkeys(what for what in found if what != "container"))


# Packets come from anywhere: no pattern may go over the same bytes again and again.


def _without_elements(packet: bytes, name: bytes) -> bytes:
    """The packet without the elements of a name, and the white space before them."""
    spans, closed = [], dict[bytes, int]()
    tag = rb"<(/?)(?>(" + name + rb"))\b[^<>]*+>"
    for match in reversed(list(re.finditer(tag, packet))):
        if match[1]:
            closed[match[2]] = match.end()
        elif match[0].endswith(b"/>"):
            spans.append(match.span())
        elif match[2] in closed:
            spans.append((match.start(), closed[match[2]]))
    kept, at = [], 0
    for start, end in reversed(spans):
        if start >= at:
            kept.append(packet[at:start].rstrip())
            at = end
    return b"".join([*kept, packet[at:]])


def _prefixes(packet: bytes, namespace: bytes) -> list[bytes]:
    bindings = re.findall(rb"xmlns:([\w.-]+)\s*=\s*[\"']" + namespace + rb"[\"']", packet)
    return list(dict.fromkeys(bindings))[:_MOST_PREFIXES]


def _properties(packet: bytes, namespace: bytes, name: bytes) -> Iterator[re.Match[bytes]]:
    prefixes = _prefixes(packet, namespace) or [namespace.split(rb"/")[-3]]
    property = rb"\b(?:" + rb"|".join(map(re.escape, prefixes)) + rb"):" + name
    value = rb"(?:\s*=\s*[\"']|\s*>)\s*(?P<value>\d{1,9})(?!\d)"
    return re.finditer(property + value, packet)


def _with_value(packet: bytes, namespace: bytes, name: bytes, value: int | float) -> bytes:
    """The packet with a number, or with so many times, as a float, what it has."""
    kept, at = [], 0
    for match in _properties(packet, namespace, name):
        start, end = match.span("value")
        new = value if isinstance(value, int) else round(value * int(match["value"]))
        kept += [packet[at:start], str(new).encode()]
        at = end
    return b"".join([*kept, packet[at:]])
