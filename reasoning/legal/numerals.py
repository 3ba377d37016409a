"""Chinese numerals: 三百五十 is 350, 一百三十三条之一 is article 133-1, 3.5万 is 35000.

python -c "from reasoning.legal.numerals import number; print(number('三百五十'))"
"""

from __future__ import annotations

import re

from launch.errors import DataError

DIGITS = {"〇": 0, "零": 0, "一": 1, "二": 2, "两": 2, "三": 3, "四": 4, "五": 5, "六": 6, "七": 7, "八": 8, "九": 9}
_UNITS = {"十": 10, "百": 100, "千": 1000}
_LARGE = {"万": 10_000, "亿": 100_000_000}
NUMERAL = "[〇零一二两三四五六七八九十百千]+"
"""Regular expression of a numeral below ten thousand."""
LARGE_NUMERAL = "[〇零一二两三四五六七八九十百千万亿]+"

_ARTICLE = re.compile(rf"第?({NUMERAL}|\d+)条(?:之({NUMERAL}|\d+))?")


def number(text: str) -> int:
    """The value of a numeral in Chinese or Arabic digits, 万 and 亿 included.

    Raises:
        DataError: `text` is no numeral.
    """
    text = text.strip()
    if re.fullmatch(r"[0-9０-９]+", text):
        return int(text)
    total = section = digit = 0
    for letter in text:
        if letter in DIGITS:
            digit = digit * 10 + DIGITS[letter]  # 二〇二一, digit by digit
        elif letter in _UNITS:
            section += (digit or 1) * _UNITS[letter]
            digit = 0
        elif letter in _LARGE:
            total = (total + section + digit) * _LARGE[letter]
            section = digit = 0
        else:
            raise DataError(f"{text!r} is no numeral: {letter!r} is neither a digit nor a unit")
    if not text:
        raise DataError("'' is no numeral: it is empty")
    return total + section + digit


def articles(text: str) -> list[str]:
    """Articles named in a text, in order: 第一百三十三条之一 gives "133-1"."""
    found = []
    for main, inserted in _ARTICLE.findall(text):
        found.append(f"{number(main)}-{number(inserted)}" if inserted else str(number(main)))
    return found
