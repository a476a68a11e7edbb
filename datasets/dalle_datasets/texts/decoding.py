"""Bytes decoded once, as browsers do (WHATWG), with a word on whether the encoding is a guess."""

import codecs
from functools import lru_cache
from typing import NamedTuple

import webencodings
from ftfy.badness import is_bad

MAX_REPLACED_SHARE = 0.2
"""A caption with a larger share of U+FFFD is not readable any more."""

MARKS = (
    (b"\xff\xfe\x00\x00", "utf-32-le"), (b"\x00\x00\xfe\xff", "utf-32-be"), (b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16-le"),
    (b"\xfe\xff", "utf-16-be"),
)  # fmt: skip
# Where Python's codec of that name reads less than browsers do; the "sloppy" ones are ftfy's.
_CODECS = {"gbk": "gb18030", "euc-jp": "euc_jis_2004"} | {
    f"windows-{number}": f"sloppy-windows-{number}" for number in (1250, 1251, 1252, 1253, 1254, 1255, 1256, 1257, 1258)
}
_UNKNOWN_TO_BROWSERS = {
    "utf-32": "utf-32", "utf-32le": "utf-32-le", "utf-32be": "utf-32-be", "utf32": "utf-32",
    "hz-gb-2312": "hz", "iso-2022-kr": "iso2022_kr", "csiso2022kr": "iso2022_kr",
}  # fmt: skip
SAMPLE_BYTES = 1 << 20


class Decoded(NamedTuple):
    """Text, and how sure its encoding is."""

    text: str
    encoding: str
    is_guess: bool = False
    """True if nothing declared the encoding and the bytes are not plain UTF-8."""

    def note(self, where: str, caption: str) -> str:
        """`where` a caption was, with the encoding if that is a guess that matters to this caption."""
        return where if not self.is_guess or caption.isascii() else f"{where}, read as {self.encoding}"

    def problem(self, caption: str) -> str | None:
        """What shows that a caption was read in a wrong encoding."""
        if caption.count("\ufffd") > MAX_REPLACED_SHARE * len(caption):
            return f"most of it is not {self.encoding}"
        if self.is_guess and not caption.isascii() and (_makes_no_sense(self.text) or _is_of_accents(caption)):
            return f"no encoding is declared, and it makes no sense as {self.encoding}"
        return None


@lru_cache(maxsize=4)
def _makes_no_sense(text: str) -> bool:
    """Whether there are sequences of signs that no language has but many wrong encodings make; of a page, asked for every caption."""
    return is_bad(text)


def _is_of_accents(caption: str) -> bool:
    """Whether more letters than any Latin language has are outside of ASCII, as Cyrillic and Greek look in Western Europe's encoding."""
    letters = [c for c in caption if c.isalpha()]
    return max(letters, default="") < "\u0180" and 2 * sum(c > "\x7f" for c in letters) > len(letters)


TEXT = Decoded("", "utf-8")
"""For what was text already when it came to us."""


def decode_text(data: bytes, *declared: str | None) -> Decoded:
    """Text of bytes: by their byte order mark, else by the first of the `declared` labels that is known, else by a guess.

    Labels mean what browsers take them for (WHATWG): `iso-8859-1` is windows-1252, `gb2312` is GB 18030. Bytes that cannot be
    read become U+FFFD one by one. A guess is UTF-8 with a few bad bytes, UTF-16 without a mark, or windows-1252.
    """
    for mark, codec in MARKS:
        if data.startswith(mark):
            return _decoded(data[len(mark) :], codec)
    for label in declared:
        if known := codec_of(label):
            return _decoded(data, known)
    return _decoded(data, *guess_codec(data))


def _decoded(data: bytes, codec: str, is_guess: bool = False) -> Decoded:
    return Decoded(codecs.decode(data, codec, "replace"), codec.removeprefix("sloppy-"), is_guess)


def codec_of(label: str | None) -> str | None:
    """Python's codec for what browsers mean by a label; None for one that they do not know."""
    if not label or not label.isascii():
        return None
    found = webencodings.lookup(label)
    if found is None or found.name == "replacement":  # browsers refuse some, but their pages still lie in archives
        return _UNKNOWN_TO_BROWSERS.get(label.strip().lower())
    return _CODECS.get(found.name, str(found.codec_info.name))


def guess_codec(data: bytes, is_whole: bool = True) -> tuple[str, bool]:
    """(codec, whether it is a guess) of bytes without a mark that nothing is declared about; unless `is_whole`, of their start."""
    sample = data[:SAMPLE_BYTES]
    if b"\x00" in sample and not _is_narrow(sample) and (wide := _guess_wide(sample)):
        return wide, True
    try:
        codecs.getincrementaldecoder("utf-8")().decode(data, is_whole)
        return ("iso2022_jp", True) if b"\x1b$" in sample else ("utf-8", False)
    except UnicodeDecodeError:
        return _guess_narrow(sample), True


def decode_line(data: bytes) -> Decoded:
    """Text of a line that is not UTF-8, of a file of which nothing else is known."""
    return _decoded(data, _guess_narrow(data), is_guess=True)


def _is_narrow(sample: bytes) -> bool:
    """Whether bytes with zeros among them are no text of two or four bytes a letter all the same.

    Either half of the pairs are two letters of ASCII, or all of it is UTF-8 with few control characters, which UTF-16 is full of.
    """
    start = sample[:8_192]
    if sum(32 <= first < 127 and 32 <= second < 127 for first, second in zip(start[::2], start[1::2], strict=False)) >= len(start) // 4:
        return True
    num_controls = sum(start.count(byte) for byte in range(32) if byte not in b"\t\n\r")
    try:
        codecs.getincrementaldecoder("utf-8")().decode(sample)
    except UnicodeDecodeError:
        return False
    return (num_controls - 1) * 20 < len(start)


def _guess_narrow(sample: bytes) -> str:
    """UTF-8 with a few bad bytes, or what browsers take for everything else."""
    text = sample.decode("utf-8", "replace")
    num_bad = text.count("\ufffd")
    num_good = sum(c > "\x7f" for c in text) - num_bad
    return "utf-8" if num_good > 3 * num_bad else "sloppy-windows-1252"


def _guess_wide(sample: bytes) -> str | None:
    """UTF-16 or UTF-32 without a mark, told by where the zero bytes of Latin letters and line ends are."""
    sample = sample[: len(sample) // 4 * 4]
    zeros = [sample[i::4].count(0) for i in range(4)]
    for codec, few, many in (
        ("utf-32-le", zeros[0], zeros[2] and zeros[3]),
        ("utf-32-be", zeros[3], zeros[0] and zeros[1]),
        ("utf-16-le", zeros[0] + zeros[2], zeros[1] + zeros[3]),
        ("utf-16-be", zeros[1] + zeros[3], zeros[0] + zeros[2]),
    ):
        if many and not few:
            try:
                sample.decode(codec)
                return codec
            except UnicodeDecodeError:
                continue
    return None


def encodable(text: str) -> str:
    """`text` without the halves of characters that JSON escapes and file names can smuggle in, and that no file of ours can hold."""
    return text.encode("utf-8", "replace").decode()
