"""The verdict that a filter returns, and the closed set of drop reasons."""

from typing import NamedTuple


class Verdict(NamedTuple):
    """Whether a pair is kept; if not, why (`reason` is a key of `REASONS`) and what was seen."""

    reason: str | None
    detail: str


KEEP = Verdict(None, "")

REASONS: dict[str, tuple[str, str]] = {
    # Reason: (meaning, what to do when too much goes this way). In the order in which the rules are applied.
    "caption_file_name": ("the caption is the name of a file", "the site has no real captions; choose other pages"),
    "caption_short": ("too few words or letters", "lower filter.min_caption_words or filter.min_caption_letters"),
    "caption_boilerplate": ('mostly boilerplate, such as "photographed on <date>"', "raise filter.max_boilerplate_share"),
    "caption_markup": ("remnants of HTML or an address in the caption", "set filter.drop_markup=false"),
    "caption_personal": ("an e-mail address or a phone number in the caption", "set filter.drop_personal=false"),
    "caption_language": ("not in a wanted language", "add to filter.languages, or leave it empty to keep all"),
    "not_an_image": ("the bytes are no picture in a format that is read", "look at the addresses; some sites answer with a page"),
    "decode_error": ("a picture file that is damaged", "collect again; the download may have been cut short"),
    "too_many_pixels": ("too large to be decoded safely", "raise download.max_pixels"),
    "too_small": ("a side is too short", "lower filter.min_side"),
    "aspect_ratio": ("too wide or too high; square crops would cut objects off", "raise filter.max_aspect_ratio"),
    "blank": ("a picture of one colour", "lower filter.min_contrast"),
    "placeholder": ("one picture under many different captions, such as 'image not available'", "raise filter.max_captions_per_image"),
    "caption_repeated": ("one caption under many different pictures", "raise filter.max_images_per_caption"),
    "evaluation_overlap": ("looks like a picture of an evaluation set", "nothing; it would spoil the evaluation"),
    "evaluation_caption": ("a caption of an evaluation set", "nothing; it would spoil the evaluation"),
    "duplicate_pair": ("the same picture with the same caption again", "nothing; one of them is kept"),
    "duplicate_image": ("the same picture with yet another caption", "raise filter.captions_per_image"),
    "near_duplicate": ("looks like a picture that is kept", "set filter.near_duplicates=false"),
}


def drop(reason: str, detail: str) -> Verdict:
    """A verdict against a pair."""
    assert reason in REASONS, reason
    return Verdict(reason, detail)
