"""Job: take over OpenAI's published dVAE as if it had been trained here. Inputs: `encoder` and `decoder`.

Each is a file path, or an http(s) URL with the SHA-256 of the file in `encoder_sha256` / `decoder_sha256` (for a path it is
optional, and checked if given). Nothing in the files is executed (`dalle_model.dvae.openai`).
"""

import urllib.request
from http.client import HTTPException
from pathlib import Path
from typing import Any

from dalle_datasets.store.ids import file_sha256
from dalle_datasets.store.parquet import atomic_path
from dalle_model.config.start import different_sizes
from dalle_model.dvae import load_openai, save_dvae
from dalle_model.dvae.checkpoint import sizes_of
from dalle_model.running.progress import report_progress
from dalle_model.running.run_dir import JobRun

TIMEOUT_S = 60.0
MAX_BYTES = 2**30
"""The released files have about 200 MB each; a server that sends on and on is cut off."""


def run(run: JobRun) -> dict[str, Any]:
    """Fetch, verify, convert to safetensors; refuse weights of another size than the configuration's."""
    encoder, decoder = fetch(run, "encoder"), fetch(run, "decoder")
    config = run.config.dvae
    model = load_openai(encoder, decoder, config.image_size)
    if different := different_sizes(sizes_of(model.config), sizes_of(config)):
        raise ValueError(f"the weights do not fit this preset: {different}; set these, or choose another preset")
    checkpoint = run.run_dir / "dvae"
    return {
        "dvae_id": save_dvae(checkpoint, model),
        "checkpoint": run.layout.relative(checkpoint),
        "num_parameters": sum(parameter.numel() for parameter in model.parameters()),
    }


def fetch(run: JobRun, name: str) -> Path:
    """The local file of an input, downloaded first if it is a URL. Raises `ValueError` when its SHA-256 is wrong or missing."""
    if name not in run.inputs:
        raise ValueError(f"import_weights: input {name!r} is missing; give the path or the address of OpenAI's {name}.pkl")
    where, expected = run.inputs[name], run.inputs.get(f"{name}_sha256", "").lower()
    if where.startswith(("http://", "https://")):
        if not expected:
            raise ValueError(
                f"import_weights: {where} needs its SHA-256 in {name}_sha256; a file from the network is not trusted without one"
            )
        path = run.run_dir / "downloads" / f"{name}.pkl"
        if not path.exists():
            _download(where, path)
    else:
        path = Path(where) if Path(where).is_absolute() else run.layout.root / where
        if not path.exists():
            raise ValueError(f"import_weights: {name} = {path} does not exist; correct the path (relative ones start at the data root)")
    if expected and (found := file_sha256(path)) != expected:
        if path.is_relative_to(run.run_dir):
            path.unlink()  # so that the next try downloads it again
        raise ValueError(f"import_weights: {where} has SHA-256 {found}, expected {expected}; it is damaged or another file")
    return path


def _download(url: str, path: Path) -> None:
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer, atomic_path(path) as partial, partial.open("wb") as file:
            while data := answer.read(2**20):
                file.write(data)
                if file.tell() > MAX_BYTES:
                    raise ValueError(
                        f"import_weights: {url} has more than {MAX_BYTES} bytes, which no part of a dVAE has; check the address"
                    )
    except (OSError, HTTPException) as error:
        raise ValueError(
            f"import_weights: {url} could not be downloaded ({type(error).__name__}: {error}); "
            "check the address, or download the file yourself and give its path"
        ) from error
    report_progress(1, 1, "files", megabytes=path.stat().st_size / 2**20)
