"""Content-addressed ids: the same thing has the same id on every machine and in every rerun."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

ID_LENGTH = 16


def content_id(*parts: str | bytes) -> str:
    """16 hex digits of the SHA-256 of the parts, each preceded by its length so that ('ab', 'c') differs from ('a', 'bc')."""
    return content_id_of(parts)


def content_id_of(parts: Iterable[str | bytes]) -> str:
    """`content_id` of any number of parts, one at a time in memory."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()[:ID_LENGTH]


def file_sha256(path: Path) -> str:
    """SHA-256 of a file of any size, 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def candidate_id(image_url: str, caption: str) -> str:
    """Id of a (URL, caption) found on a page, before anything is downloaded."""
    return content_id("candidate", image_url, caption)


def pair_id(image_sha256: str, caption: str) -> int:
    """Id of an image with its caption, in [0, 2**63): fits BIGINT in Parquet and DuckDB."""
    return int(content_id("pair", image_sha256, caption), 16) >> 1


def prompt_id(prompt: str, image: bytes | None = None) -> str:
    """Id of a text asked for, with the picture it is to complete, if any."""
    return content_id("prompt", prompt) if image is None else content_id("prompt", prompt, image)


def generation_id(run_id: str, prompt: str, candidate_index: int) -> str:
    """Id of one generated image: the run (settings and checkpoint), its prompt and its place among the candidates."""
    return content_id("generation", run_id, prompt, str(candidate_index))
