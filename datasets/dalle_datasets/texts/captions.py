"""Captions: cleaned in one way, so that the same words give the same tokens wherever they are from, and told apart."""

import ast
import html
import json
import re
import unicodedata
from collections.abc import Iterator, Mapping
from typing import Any

import ftfy

from dalle_datasets.texts.decoding import decode_text

CAPTION_NAMES = ("caption", "text", "alt", "alt_text", "top_caption", "description", "title")
"""What a field with a caption is called; the first that is there counts."""
NESTED_NAMES = (*CAPTION_NAMES, "raw", "captions", "texts", "sentences", "sentence", "translation", "value", "string")
"""What holds the words inside a mapping that is itself the value of such a field."""
MAX_LIST_CHARS = 100_000
"""Longer texts are not looked at as written-out lists."""
_LANGUAGE = re.compile(r"[A-Za-z]{2,3}(?:[-_][A-Za-z0-9]{2,8})*")
_QUOTED = r"""(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")"""
_WRITTEN_LIST = re.compile(rf"\[\s*{_QUOTED}(?:(?:\s*,\s*|\s+){_QUOTED})*\s*,?\s*\]", re.DOTALL)
_CONTAINER = re.compile(r"""\[|\{|\(\s*['"]|array\(|b['"]""")
_ARRAY = re.compile(r"array\((.*?)(?:,\s*dtype=[^()]*)?\)", re.DOTALL)
_NOTHING = frozenset({"[]", "{}", "()", "None", "null", "NULL", "nan", "NaN", "<NA>"})
"""How programs write that there is no caption."""
_NO_LANGUAGES = frozenset({"url", "src", "key", "img", "uid", "tag", "pos", "set"})
"""Names of fields that look like codes of languages."""
_JOINERS = "\u200c\u200d"
_NEVER = re.compile(f"[\ufdd0-\ufdef{''.join(chr(plane << 16 | 0xFFFE) + chr(plane << 16 | 0xFFFF) for plane in range(17))}]")
"""What Unicode will never make a character."""
_VISIBLE_FORMATS = frozenset("\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2\U000110bd\U000110cd")
"""Signs that Unicode calls formats but that one sees, such as the sign before an Arabic number."""


def clean_caption(text: str | None) -> str:
    """`text` on one line, with HTML entities and wrongly decoded characters repaired; what is clean stays as it is.

    Joiners stay where they change what one sees (emoji, Persian, Sinhala); other invisible characters go.
    """
    text = text or ""
    for _ in range(8):  # what was escaped twice is clean after the second time
        cleaned = _clean_once(text)
        if cleaned == text:
            break
        text = cleaned
    return text


def _clean_once(text: str) -> str:
    if text.isascii() and text.isprintable() and "&" not in text:
        return " ".join(text.split())
    text = ftfy.fix_text(html.unescape(text), normalization="NFC")
    return " ".join("".join(_visible(text)).split())


def _visible(text: str) -> Iterator[str]:
    """The characters that one sees, spaces, and joiners after what they can change."""
    last = " "
    in_flag = False
    for c in text:
        category = unicodedata.category(c)
        if c == "\U0001f3f4":  # a black flag, which tag characters make the flag of a region
            in_flag = True
        elif not "\U000e0020" <= c <= "\U000e007f":
            in_flag = False
        if category == "Cf":
            joins = c in _JOINERS and (unicodedata.category(last) in ("Mn", "Mc", "So", "Sk", "Lo") or last in "\u2640\u2642")
            if not joins and c not in _VISIBLE_FORMATS and not in_flag:
                continue
        elif (category in ("Cc", "Cs", "Co") and not c.isspace()) or (category == "Cn" and _NEVER.match(c)):
            continue
        last = c
        yield c


def captions_in(value: Any) -> list[str]:
    """The captions that a value of a table or of JSON holds: one for each text of a list, or for each language of a mapping.

    A mapping without languages gives what one of `NESTED_NAMES` names in it; numbers and other things are no captions.
    """
    found = (clean_caption(text) for text in _texts_in(value, 0))
    return list(dict.fromkeys(text for text in found if text))


def _texts_in(value: Any, depth: int) -> Iterator[str]:
    if isinstance(value, bytes):
        value = decode_text(value).text
    if isinstance(value, str):
        written = _written(value)
        if written is None:
            yield value
        else:
            yield from _texts_in(written, depth + 1)
    elif depth < 4:
        if isinstance(value, Mapping):
            value = _mapped(value)
        if isinstance(value, list | tuple):
            for item in value:
                yield from _texts_in(item, depth + 1)


def _mapped(value: Mapping[Any, Any]) -> list[Any]:
    """What of a mapping may be captions."""
    names = {fold_name(str(name)): item for name, item in reversed(list(value.items()))}
    for name in NESTED_NAMES:
        if names.get(name):
            return [names[name]]
    is_by_language = not _NO_LANGUAGES & names.keys() and all(_LANGUAGE.fullmatch(str(name)) for name in value)
    return list(value.values()) if is_by_language else []


def _written(text: str) -> Any:
    """What a program wrote into a field as JSON or Python write it: a list, a mapping, bytes, nothing. None if it is just text.

    A list or mapping counts only if there are texts in it: "[1, 2]" may be what somebody said.
    """
    stripped = text.strip()
    if stripped in _NOTHING:
        return []
    if len(stripped) > MAX_LIST_CHARS or not _CONTAINER.match(stripped):
        return None
    stripped = _ARRAY.sub(r"\1", stripped)
    if _WRITTEN_LIST.fullmatch(stripped):  # NumPy writes no commas, which Python would take for one text
        stripped = f"[{', '.join(item.replace(chr(10), ' ') for item in re.findall(_QUOTED, stripped, re.DOTALL))}]"
    for read in (json.loads, ast.literal_eval):
        try:
            value = read(stripped)
        except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
            continue
        items = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
        return value if isinstance(value, bytes) or any(isinstance(item, str | list | tuple | dict) for item in items) else None
    return None


def fold_name(name: str) -> str:
    """A column's name without what people write differently: letter case, spaces and hyphens, a byte order mark."""
    return re.sub(r"[\s-]+", "_", name.strip("\ufeff \t\r\n\"'").lower())
