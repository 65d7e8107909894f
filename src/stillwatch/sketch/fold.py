"""What a character counts as: the table behind the sketch's normalisation.

Every code point of the basic plane maps to 0 (dropped: zero-width, combining, format), 1 (separator) or a folded
code point with flags. Folding is Unicode NFKD without combining marks, case folding, and a short list of letters
that look like Latin ones (after the confusables of UTS #39, https://www.unicode.org/reports/tr39/). It applies to
every text alike, so a Russian or Greek text maps to one fixed, if odd-looking, form.
"""

from __future__ import annotations

import functools
import unicodedata

import numpy as np
import numpy.typing as npt

DROP = 0
SEPARATOR = 1
CJK = 1 << 24
DIGIT = 1 << 25
QUOTE = 1 << 26
POINT = (1 << 22) - 1

MATH_FIRST, MATH_LAST = 0x1D400, 0x1D7FF
"""Mathematical alphanumeric symbols: styled letters outside the basic plane."""

_LOOK_ALIKES = {
    "а": "a", "в": "b", "е": "e", "ё": "e", "һ": "h", "і": "i", "ї": "i", "ј": "j", "к": "k", "м": "m",
    "н": "h", "о": "o", "р": "p", "с": "c", "ѕ": "s", "т": "t", "у": "y", "х": "x", "ԁ": "d", "ԛ": "q",
    "ԝ": "w", "ɡ": "g", "ı": "i", "ȷ": "j", "ɑ": "a", "ο": "o", "α": "a", "β": "b", "ε": "e", "ι": "i",
    "κ": "k", "ν": "v", "ρ": "p", "τ": "t", "υ": "u", "χ": "x", "ϲ": "c", "ո": "n", "օ": "o", "ս": "u",
    "հ": "h", "ց": "g", "զ": "q", "ӏ": "l", "ø": "o", "đ": "d", "ł": "l", "ħ": "h",
}  # fmt: skip

_CJK_RANGES = (
    (0x2E80, 0x2FDF), (0x3041, 0x30FF), (0x3105, 0x312F), (0x31A0, 0x31BF), (0x31F0, 0x31FF), (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF), (0xAC00, 0xD7A3), (0xF900, 0xFAFF),
)  # fmt: skip
_QUOTES = '"“”„«»「」『』'


def _entry(point: int) -> int:
    char = chr(point)
    category = unicodedata.category(char)
    if category in ("Cf", "Cs", "Cn", "Co", "Mn", "Me", "Mc") or char in "'’ʼ`":
        return DROP
    if char in _QUOTES:
        return SEPARATOR | QUOTE
    if any(low <= point <= high for low, high in _CJK_RANGES):
        # Full NFKD would take syllables and voiced kana apart; canonical composition keeps them whole.
        return ord(unicodedata.normalize("NFKC", char)[0]) | CJK
    folded = unicodedata.normalize("NFKD", char.casefold())
    for part in folded:
        kind = unicodedata.category(part)
        if kind[0] in "LN":
            plain = part.casefold()[0]
            plain = _LOOK_ALIKES.get(plain, plain)
            number = unicodedata.decimal(plain, None)
            return ord(str(number)) | DIGIT if number is not None else ord(plain)
        if not kind.startswith("M"):
            break
    return SEPARATOR


@functools.cache
def basic_plane() -> npt.NDArray[np.uint32]:
    """Folding of U+0000..U+FFFF, shape (65536,)."""
    return np.fromiter((_entry(point) for point in range(0x10000)), np.uint32, 0x10000)


@functools.cache
def mathematical() -> npt.NDArray[np.uint32]:
    """Folding of U+1D400..U+1D7FF, shape (1024,)."""
    points = range(MATH_FIRST, MATH_LAST + 1)
    return np.fromiter((_entry(point) for point in points), np.uint32, len(points))
