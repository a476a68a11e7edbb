"""Checks of prompts: those that cannot be drawn are kept with a reason, and the batch goes on."""

from typing import Any

from dalle_datasets.images import ImageError, decode_image
from dalle_datasets.loading.image_batches import MAX_PIXELS
from dalle_model.text import BpeTokenizer

Row = dict[str, Any]


def sort_out(rows: list[Row], tokenizer: BpeTokenizer, truncate: bool) -> tuple[list[Row], list[Row]]:
    """(rows of `schemas.PROMPTS` that can be used, with their `text_tokens`; those that cannot, with `reason` and `detail`).

    A prompt that is too long for the transformer is cut only if `truncate` asks for it.
    """
    usable: list[Row] = []
    dropped: list[Row] = []
    seen: set[str] = set()
    for row, tokens in zip(rows, tokenizer.encode([row["prompt"] for row in rows]), strict=True):
        if not tokens:
            dropped.append({**row, "reason": "empty", "detail": "it has no text"})
        elif row["prompt_id"] in seen:
            dropped.append({**row, "reason": "duplicate", "detail": "the same prompt stands further up"})
        elif len(tokens) > tokenizer.max_text_tokens and not truncate:
            detail = (
                f"{len(tokens)} tokens, but the transformer reads {tokenizer.max_text_tokens}; "
                "shorten it or set sampling.truncate_prompts=true"
            )
            dropped.append({**row, "reason": "too_long", "detail": detail})
        elif row["image"] is not None and (problem := _image_problem(row["image"])):
            dropped.append({**row, "reason": "bad_image", "detail": problem})
        else:
            seen.add(row["prompt_id"])
            usable.append({**row, "text_tokens": tokens[: tokenizer.max_text_tokens]})
    return usable, dropped


def _image_problem(image: bytes) -> str | None:
    """Why a prompt's picture cannot be completed, if so."""
    try:
        decode_image(image, MAX_PIXELS)
    except ImageError as error:
        return str(error)
    return None
