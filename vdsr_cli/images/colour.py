"""Colours that a file states by code points or chromaticities, said by an ICC profile.

PNG's cICP and AVIF's nclx name primaries and a transfer function by their numbers (ITU-T H.273);
PNG's cHRM and gAMA give them as figures. Few formats have room for either, nearly all for an ICC
profile (ICC.1:2022), so that is what is carried.
"""

import struct
from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

SRGB_CICP: Final = (1, 13)
"""Primaries and transfer function of sRGB."""

_D65, _C, _DCI = (0.3127, 0.3290), (0.310, 0.316), (0.314, 0.351)
_BT709: Final = ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06))
_P3: Final = ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060))
_SMPTE170: Final = ((0.630, 0.340), (0.310, 0.595), (0.155, 0.070))
_D50: Final = np.array([0.9642, 1.0, 0.8249])
_BRADFORD: Final = np.array(
    [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
)
_CURVE_POINTS: Final = 4096
_SRGB_GAMMA: Final = 0.45455
_TOLERANCE: Final = 0.01
_MOST_EXPONENT: Final = 100
_MOST_WEIGHT: Final = 8

Point = tuple[float, float]


class Primaries(NamedTuple):
    """Chromaticities (x, y) of white and of the three colours."""

    white: Point
    red: Point
    green: Point
    blue: Point


SRGB_PRIMARIES: Final = Primaries(_D65, *_BT709)

# ITU-T H.273, table 2.
_PRIMARIES: Final = {
    1: SRGB_PRIMARIES,
    4: Primaries(_C, (0.67, 0.33), (0.21, 0.71), (0.14, 0.08)),
    5: Primaries(_D65, (0.64, 0.33), (0.29, 0.60), (0.15, 0.06)),
    6: Primaries(_D65, *_SMPTE170),
    7: Primaries(_D65, *_SMPTE170),
    8: Primaries(_C, (0.681, 0.319), (0.243, 0.692), (0.145, 0.049)),
    9: Primaries(_D65, (0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),
    11: Primaries(_DCI, *_P3),
    12: Primaries(_D65, *_P3),
    22: Primaries(_D65, (0.630, 0.340), (0.295, 0.605), (0.155, 0.077)),
}
_NAMES: Final = {(12, 13): "Display P3", (9, 16): "BT.2020 PQ", (9, 18): "BT.2020 HLG"}


def _gamma_curve(exponent: float) -> bytes:
    return b"para" + bytes(4) + struct.pack(">HHi", 0, 0, _fixed(exponent))


def _power_curve(gamma: float, a: float, b: float, c: float, d: float) -> bytes:
    """(a v + b)^gamma from d on, c v below (ICC.1, table 68, type 3)."""
    return b"para" + bytes(4) + struct.pack(">HH5i", 3, 0, *map(_fixed, (gamma, a, b, c, d)))


def _sampled_curve(light: Callable[[NDArray[np.float64]], NDArray[np.float64]]) -> bytes:
    values = np.round(light(np.linspace(0, 1, _CURVE_POINTS)).clip(0, 1) * 65535)
    return b"curv" + bytes(4) + struct.pack(">I", _CURVE_POINTS) + values.astype(">u2").tobytes()


def _pq(signal: NDArray[np.float64]) -> NDArray[np.float64]:
    """SMPTE ST 2084: 1 is 10,000 candelas a square metre."""
    root = signal ** (32 / 2523)
    return (np.maximum(root - 107 / 128, 0) / (2413 / 128 - 2392 / 128 * root)) ** (16384 / 2610)


def _hlg(signal: NDArray[np.float64]) -> NDArray[np.float64]:
    """ARIB STD-B67, of the scene."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)


_BT709_CURVE: Final = (1 / 0.45, 1 / 1.099, 0.099 / 1.099, 1 / 4.5, 0.081)
_SRGB_CURVE: Final = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)

# ITU-T H.273, table 3: from the signal to light.
_TRANSFERS: Final[dict[int, Callable[[], bytes]]] = {
    **dict.fromkeys((1, 6, 11, 14, 15), lambda: _power_curve(*_BT709_CURVE)),
    4: lambda: _gamma_curve(2.2),
    5: lambda: _gamma_curve(2.8),
    7: lambda: _power_curve(1 / 0.45, 1 / 1.1115, 0.1115 / 1.1115, 1 / 4, 0.0912),
    8: lambda: _gamma_curve(1.0),
    13: lambda: _power_curve(*_SRGB_CURVE),
    16: lambda: _sampled_curve(_pq),
    17: lambda: _gamma_curve(2.6),
    18: lambda: _sampled_curve(_hlg),
}


def profile_of_cicp(primaries: int, transfer: int, *, is_grey: bool) -> bytes | None:
    """An ICC profile that says the same as code points of ITU-T H.273; None for those unknown."""
    if primaries not in _PRIMARIES or transfer not in _TRANSFERS:
        return None
    name = _NAMES.get((primaries, transfer), f"H.273 primaries {primaries}, transfer {transfer}")
    # Full range, colours by themselves, as decoded pixels are.
    code = b"cicp" + bytes(4) + bytes([primaries, transfer, 0, 1])
    curve = _TRANSFERS[transfer]()
    return _profile(name, _PRIMARIES[primaries], curve, is_grey=is_grey, extra={b"cicp": code})


def profile_of_figures(
    gamma: float | None, primaries: Primaries | None, *, is_grey: bool
) -> bytes | None:
    """An ICC profile that says the same as PNG's gAMA and cHRM.

    Args:
        gamma: the exponent from light to the signal, such as 0.45455; None for sRGB's curve.
        primaries: None for sRGB's.

    Returns:
        None where that is sRGB, near enough, or where no profile can say it.
    """
    primaries = primaries or SRGB_PRIMARIES
    is_usual = gamma is None or abs(gamma - _SRGB_GAMMA) < _TOLERANCE
    if is_usual and (is_grey or _are_close(primaries, SRGB_PRIMARIES)):
        return None
    if gamma is not None and not 1 / _MOST_EXPONENT <= gamma <= _MOST_EXPONENT:
        return None
    if gamma is None:
        curve, name = _power_curve(*_SRGB_CURVE), "sRGB's curve"
    else:
        curve, name = _gamma_curve(1 / gamma), f"gamma {1 / gamma:.4g}"
    white = primaries.white
    return _profile(f"{name}, white {white[0]:g} {white[1]:g}", primaries, curve, is_grey=is_grey)


def _are_close(one: Primaries, other: Primaries) -> bool:
    pairs = zip(one, other, strict=True)
    return all(abs(a - b) < _TOLERANCE for p, q in pairs for a, b in zip(p, q, strict=True))


def _profile(
    name: str,
    primaries: Primaries,
    curve: bytes,
    *,
    is_grey: bool,
    extra: dict[bytes, bytes] | None = None,
) -> bytes | None:
    """A display profile, version 4 (ICC.1:2022, 8.3); None where the figures are no colours."""
    if min(y for _, y in primaries) <= 0:
        return None
    with np.errstate(all="ignore"):
        adaptation = _adaptation(_xyz(primaries.white))
    if not np.abs(adaptation).max() <= _MOST_WEIGHT:
        return None
    tags = {
        b"desc": _text(name),
        b"cprt": _text("CC0"),
        b"wtpt": _xyz_type(_D50),
        b"chad": b"sf32" + bytes(4) + struct.pack(">9i", *map(_fixed, adaptation.ravel())),
    } | (extra or {})
    if is_grey:
        tags[b"kTRC"] = curve
    else:
        colours = np.stack([_xyz(p) for p in primaries[1:]], axis=1)
        try:
            weights = np.linalg.solve(colours, _xyz(primaries.white))
        except np.linalg.LinAlgError:
            return None
        columns = adaptation @ (colours * weights)
        if not np.abs(columns).max() <= _MOST_WEIGHT:
            return None
        for index, letter in enumerate((b"r", b"g", b"b")):
            tags |= {letter + b"XYZ": _xyz_type(columns[:, index]), letter + b"TRC": curve}
    return _packed(tags, b"GRAY" if is_grey else b"RGB ")


def _packed(tags: dict[bytes, bytes], space: bytes) -> bytes:
    start, table, body = 128 + 4 + 12 * len(tags), struct.pack(">I", len(tags)), b""
    places: dict[bytes, int] = {}
    for name, data in tags.items():
        if data not in places:
            places[data] = start + len(body)
            body += data + bytes(-len(data) % 4)
        table += name + struct.pack(">II", places[data], len(data))
    size = start + len(body)
    header = struct.pack(">I4sI4s4s4s", size, b"", 0x04400000, b"mntr", space, b"XYZ ")
    header += struct.pack(">6H4s", 2024, 1, 1, 0, 0, 0, b"acsp") + bytes(24)
    header += struct.pack(">I3i", 1, *map(_fixed, _D50)) + bytes(48)
    return header + table + body


def _xyz(point: Point) -> NDArray[np.float64]:
    """Chromaticities -> X, Y, Z of luminance 1."""
    x, y = point
    return np.array([x / y, 1.0, (1 - x - y) / y])


def _adaptation(white: NDArray[np.float64]) -> NDArray[np.float64]:
    """Bradford's matrix from a white to D50 (ICC.1:2022, annex E)."""
    ratio = (_BRADFORD @ _D50) / (_BRADFORD @ white)
    matrix: NDArray[np.float64] = np.linalg.inv(_BRADFORD) @ np.diag(ratio) @ _BRADFORD
    return matrix


def _xyz_type(values: NDArray[np.float64]) -> bytes:
    return b"XYZ " + bytes(4) + struct.pack(">3i", *map(_fixed, values))


def _text(text: str) -> bytes:
    data = text.encode("utf-16-be")
    return b"mluc" + bytes(4) + struct.pack(">II4sII", 1, 12, b"enUS", len(data), 28) + data


def _fixed(value: float) -> int:
    """s15Fixed16."""
    return round(value * 65536)
