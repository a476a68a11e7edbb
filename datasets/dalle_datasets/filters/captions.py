"""Rules for captions (paper, Appendix C): long enough, in the wanted language, not mostly boilerplate.

The values are measured first and judged later, so that thresholds can change without measuring again.
"""

import re
import unicodedata

from dalle_datasets.config import FilterConfig
from dalle_datasets.filters.base import KEEP, Verdict, drop

# Writing without spaces: about two characters make a word.
_NO_SPACES = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]")

_EXTENSIONS = r"(?:jpe?g|png|gif|webp|tiff?|bmp|svg|heic|avif|ico|psd|raw|cr2|nef)"
_DEVICES = r"(?:img|mvimg|dsc[nf]?|dscn|pict|dcim|pxl|dji|gopr|image|photo|scan|screen[-_ ]?shot|whatsapp[-_ ]image|p)"
_FILE_NAME = re.compile(
    "|".join(
        (
            rf".*\.{_EXTENSIONS}",
            # What cameras, telephones and programs call their files: a name, and at least three digits of a number or a date and time.
            rf"{_DEVICES}[-_ ]?(?=(?:\D{{0,3}}\d){{3}})\d[\d\-_.:]*(?:wa\d+)?(?:\s+at)?(?:\s*[\d.:]+)?(?:\s*[ap]m)?(?:\s*\(\d+\)|\s+copy)?",
            r"(?:image|picture|photo|untitled|unnamed)[-_ ]?\d*(?:\s*\(\d+\)|\s+copy)",
            r"(?=[a-f]*\d)[0-9a-f]{16,}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}",
            # One "word" with a number in it, such as a content management system makes of a title and a size.
            r"(?=\S*\d)[^\s_-]+(?:[-_]+[^\s_-]+){2,}",
        )
    ),
    re.IGNORECASE,
)

_MONTH = (
    r"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?"
    r"|sept?(?:ember)?|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)\.?"
)
_WEEKDAY = r"(?:(?:mon|tues|wednes|thurs|fri|satur|sun)day,?\s+)?"
_DATE = (
    rf"{_WEEKDAY}(?:\d{{1,2}}(?:st|nd|rd|th)?\s+(?:of\s+)?{_MONTH},?\s+\d{{4}}|{_MONTH}\s+\d{{1,2}}(?:st|nd|rd|th)?,?\s+\d{{4}}|{_MONTH},?\s+\d{{4}}"
    r"|\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|(?<!\d)\d{1,2}[-/.]\d{1,2}[-/.]\d{2,4})"
)
_TIME = r"\d{1,2}:\d{2}(?::\d{2})?(?:\s*[ap]\.?m\.?)?"
_DATES = re.compile(_DATE, re.IGNORECASE)
_PICTURE = r"(?:images?|photos?|photographs?|pictures?|pics?)"
_BOILERPLATE = re.compile(
    "|".join(
        (
            rf"\b(?:{_PICTURE}\s+)?(?:photographed|taken|uploaded|posted|published|added|captured|shot|scanned|updated|created)\s+(?:on|at|in)\b",
            rf"\b(?:{_PICTURE}\s+)?(?:photographed|taken|captured|shot|uploaded|posted|{_PICTURE})\s+(?:on\s+)?(?={_DATE})",
            rf"\b{_PICTURE}\s+(?:by|credit|courtesy(?:\s+of)?|source|via)\b:?",
            r"\b(?:copyright|all\s+rights\s+reserved|some\s+rights\s+reserved|used\s+with\s+permission)\b",
            rf"\b{_PICTURE}\s+(?:may|might)\s+be\s+subject\s+to\s+copyright\b",
            rf"\bclick(?:\s+here)?(?:\s+on)?(?:\s+(?:the|this)\s+{_PICTURE})?\s+(?:to|for)\s+(?:(?:a|an|the|this|view|see|enlarge|zoom|open|download|larger?|bigger"
            rf"|full[- ]?size[d]?|high[- ]resolution|version|{_PICTURE})\b\s*)+",
            rf"\b(?:royalty[- ]free|stock)\s+(?:{_PICTURE}|illustrations?|vectors?)\b",
            rf"\bdownload(?:\s+(?:this|the|free|now|hd|stock))*\s+{_PICTURE}\b",
            r"\bdownload\s+(?:this\s+)?free\b",
            rf"\bno\s+(?:description|caption|{_PICTURE}|alt\s+text)\s+(?:is\s+)?(?:available|provided)(?:\s+for\s+this\s+{_PICTURE})?",
            rf"\b{_PICTURE}\s+(?:not\s+available|unavailable|placeholder|\d+\s+of\s+\d+|#?\d+)\b",
            r"\b(?:share|pin|tweet)\s+(?:this|it)?\s*(?:on|to)\s+\w+",
            rf"\b(?:at\s+)?{_TIME}",
            _DATE,
            r"[©®™]",
        )
    ),
    re.IGNORECASE,
)


MAX_PATTERN_CHARS = 2_000
"""Patterns look at the start of a caption only: some of them take time that grows with the square of its length."""


def count_words(caption: str) -> int:
    """Words of a caption, also in writing that has no spaces."""
    unspaced = len(_NO_SPACES.findall(caption))
    return (unspaced + 1) // 2 + len(_NO_SPACES.sub(" ", caption).split())


def count_letters(caption: str) -> int:
    """Letters (and the signs that belong to them) of any script."""
    return sum(unicodedata.category(c)[0] in "LM" for c in caption)


def is_file_name(caption: str) -> bool:
    """Whether the caption is what a camera or a program called the file."""
    return _FILE_NAME.fullmatch(caption.strip()[:MAX_PATTERN_CHARS]) is not None


def boilerplate_share(caption: str) -> float:
    """Share of the letters and digits that belong to phrases and dates which say nothing about the picture, in [0, 1]."""
    caption = caption[:MAX_PATTERN_CHARS]
    total = sum(c.isalnum() for c in caption)
    rest = sum(c.isalnum() for c in _BOILERPLATE.sub(" ", caption))
    return 1 - rest / total if total else 1.0


_MARKUP = re.compile(
    r"</?[a-z][^<>]{0,200}>|<!--|<\?(?:php|xml)\b|\b(?:src|href|alt|class|style|title|onclick)\s{0,3}=\s{0,3}[\"']|&(?:#\d+|#x[\da-f]+|[a-z]{2,8});|https?://|\bwww\.\w|\[/?(?:img|url|caption)\b|\{\{|\}\}|\$\{\w{1,40}\}|\b(?:nbsp|quot|amp);"
    r"|\b[\w-]{1,63}\.(?:com|org|net|info|html?|php|aspx?|co\.[a-z]{2})\b|\\u[\da-f]{4}|%[\da-f]{2}%[\da-f]{2}",
    re.IGNORECASE,
)
_PERSONAL = re.compile(
    r"(?<![\w.+-])[\w.+-]{1,64}\s?(?:@|\(at\)|\[at\])\s?[\w-]{1,63}(?:\.|\s?\(dot\)\s?)\w{2,}"
    r"|(?<![\d.,/-])(?:\+\d{1,3}[ .-]?)?(?:\(\d{2,4}\)[ .-]?)?\d{2,4}(?:[ .-]\d{2,4}){2,4}(?![\d.,/-]|\s*(?:px|x|cm|mm))"
    r"|(?<!\d)\+\d{9,14}(?!\d)"
    r"|(?<!\d)(?:\+\d{1,3}[ .-]?)?\(\d{2,4}\)[ .-]?\d{3,4}[ .-]?\d{3,4}(?!\d)"  # an area code in brackets needs fewer groups
    r"|(?<![\d.-])\d{3}-\d{2}-\d{4}(?![\d-])"  # a social security number
    r"|(?<![\d.])(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(?:25[0-5]|2[0-4]\d|1?\d?\d)(?![\d.])",  # an internet address
    re.IGNORECASE,
)


def has_markup(caption: str) -> bool:
    """Whether remnants of HTML, a template or an address are in the caption."""
    return _MARKUP.search(caption[:MAX_PATTERN_CHARS]) is not None


def has_personal(caption: str) -> bool:
    """Whether an e-mail address or something like a phone, social security or internet number is in the caption (dates are not)."""
    return _PERSONAL.search(_DATES.sub(" ", caption[:MAX_PATTERN_CHARS])) is not None


def judge_markup(found: bool, settings: FilterConfig) -> Verdict:
    """No remnants of markup."""
    return drop("caption_markup", "HTML or an address in it") if found and settings.drop_markup else KEEP


def judge_personal(found: bool, settings: FilterConfig) -> Verdict:
    """No personal data, if that is asked for."""
    return drop("caption_personal", "an e-mail address or a phone number in it") if found and settings.drop_personal else KEEP


def judge_file_name(has_file_name: bool, caption: str) -> Verdict:
    """No file names."""
    return drop("caption_file_name", f"{caption[:60]!r} is a file name") if has_file_name else KEEP


def judge_length(num_words: int, num_letters: int, settings: FilterConfig) -> Verdict:
    """Enough words and letters."""
    if num_words < settings.min_caption_words:
        return drop("caption_short", f"{num_words} word{'' if num_words == 1 else 's'}")
    if num_letters < settings.min_caption_letters:
        return drop("caption_short", f"{num_letters} letters")
    return KEEP


def judge_boilerplate(share: float, settings: FilterConfig) -> Verdict:
    """Not mostly boilerplate."""
    return drop("caption_boilerplate", f"{share:.0%} boilerplate") if share > settings.max_boilerplate_share else KEEP


def judge_language(language: str, settings: FilterConfig) -> Verdict:
    """In one of the wanted languages."""
    return drop("caption_language", f"language {language!r}") if settings.languages and language not in settings.languages else KEEP
