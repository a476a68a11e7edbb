"""Job: show what a dVAE's tokens keep of pictures: originals above reconstructions. Inputs: `dvae`, `dvae_id`, `pictures`.

`pictures` names image files, and Parquet parts or folders of pairs, one a line; of pairs the first ones are taken, as far
as `max_pictures` goes. A picture that cannot be decoded is left out with its reason.
"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from PIL import Image

from dalle_datasets.image_batches import MAX_PIXELS, centre
from dalle_datasets.images import ImageError, decode_image
from dalle_datasets.parquet import atomic_path, check_parquet, list_parts
from dalle_datasets.row_order import seeded_random
from dalle_datasets.schemas import PAIRS
from dalle_model.dvae import load_dvae
from dalle_model.jobs.contract import JobRun
from dalle_model.jobs.progress import report_progress
from dalle_model.jobs.train_dvae import as_bytes, as_floats, as_tensor
from dalle_model.training.parallel import join_world

SECTIONS: tuple[str, ...] = ()
VERSION = 1

COLUMNS = 8
BATCH_SIZE = 8


def run(run: JobRun) -> dict[str, Any]:
    """Read, tokenise, decode, draw."""
    model = load_dvae(run.input_path("dvae"), run.inputs["dvae_id"]).to(join_world().device)
    side, most = model.config.image_size, int(run.inputs["max_pictures"])
    originals: list[NDArray[np.uint8]] = []
    dropped: dict[str, str] = {}
    for name, data in read_pictures(run):
        if len(originals) == most:
            break
        try:
            originals.append(centre(np.asarray(decode_image(data, MAX_PIXELS)), side, seeded_random()))
        except ImageError as error:
            dropped[name] = str(error)
    if not originals:
        raise ValueError(f"reconstruct: none of the pictures can be decoded: {dropped or 'there are none'}; give others")
    rebuilt: list[NDArray[np.uint8]] = []
    for start in range(0, len(originals), BATCH_SIZE):
        images = as_floats(as_tensor(np.stack(originals[start : start + BATCH_SIZE])).to(join_world().device))
        rebuilt += list(as_bytes(model.decode_tokens(model.tokenize(images))))
        report_progress(len(rebuilt), len(originals), "images")
    path = run.run_dir / "reconstructions.png"
    with atomic_path(path) as partial:
        Image.fromarray(grid(originals, rebuilt)).save(partial, "PNG")
    return {
        "reconstructions": run.layout.relative(path),
        "num_pictures": len(originals),
        "psnr": psnr(np.stack(originals), np.stack(rebuilt)),
        "dropped": dropped,
    }


def read_pictures(run: JobRun) -> Iterator[tuple[str, bytes]]:
    """Names and bytes of the pictures. Raises `ValueError` for a path that does not exist."""
    for where in run.inputs["pictures"].splitlines():
        path = run.layout.root / where
        if not path.exists():
            raise ValueError(f"reconstruct: {path} does not exist; give image files, or Parquet parts or folders of pairs")
        if path.is_dir() or path.suffix == ".parquet":
            for part in list_parts(path) if path.is_dir() else [path]:
                check_parquet(part, PAIRS)
                with pq.ParquetFile(part) as file:
                    for batch in file.iter_batches(BATCH_SIZE, columns=["pair_id", "image"]):
                        yield from ((f"pair {row['pair_id']}", row["image"]) for row in batch.to_pylist())
        else:
            yield where, path.read_bytes()


def grid(originals: list[NDArray[np.uint8]], rebuilt: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Rows of pictures in turn: up to `COLUMNS` originals, below them what became of them."""
    width = min(COLUMNS, len(originals))
    blank = np.full_like(originals[0], 255)
    rows = []
    for start in range(0, len(originals), width):
        for pictures in (originals, rebuilt):
            row = pictures[start : start + width]
            rows.append(np.concatenate([*row, *[blank] * (width - len(row))], axis=1))
    return np.concatenate(rows)


def psnr(originals: NDArray[np.uint8], rebuilt: NDArray[np.uint8]) -> float:
    """Peak signal-to-noise ratio of 8-bit pictures [B, H, W, 3], in dB, of their mean squared error."""
    error = torch.from_numpy(originals).double().sub(torch.from_numpy(rebuilt)).div(255).square().mean()
    return -10 * math.log10(max(float(error), 1e-10))
