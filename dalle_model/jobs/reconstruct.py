"""Job: show what a dVAE's tokens keep of pictures: originals above reconstructions. Inputs: `dvae`, `dvae_id`, `pictures`.

`pictures` names image files, and Parquet parts or folders of pairs, one a line; of pairs those that `pair_ids` lists, else the first
ones, as far as `max_pictures` goes. A picture that cannot be decoded is left out with its reason. Beside the drawing lies a table with
a row for each picture, for `dalle query reconstructions`.
"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from PIL import Image
from pyarrow import dataset

from dalle_datasets.images import ImageError, decode_image
from dalle_datasets.loading.image_batches import MAX_PIXELS, centre
from dalle_datasets.loading.row_order import seeded_random
from dalle_datasets.store.parquet import atomic_path, check_parquet, list_parts, write_parquet
from dalle_datasets.store.schemas import PAIRS, RECONSTRUCTIONS
from dalle_model.dvae import load_dvae
from dalle_model.dvae.pixels import as_bytes, as_floats, as_tensor
from dalle_model.running.progress import report_progress
from dalle_model.running.run_dir import JobRun
from dalle_model.training.parallel import join_world

COLUMNS = 8
BATCH_SIZE = 8


def run(run: JobRun) -> dict[str, Any]:
    """Read, tokenise, decode, draw."""
    device = join_world().device
    model = load_dvae(run.input_path("dvae"), run.inputs["dvae_id"]).to(device)
    chosen, dropped = choose_pictures(run, model.config.image_size)
    originals = [pixels for *_, pixels in chosen]
    rebuilt: list[NDArray[np.uint8]] = []
    rows: list[dict[str, Any]] = []
    for start in range(0, len(chosen), BATCH_SIZE):
        batch = chosen[start : start + BATCH_SIZE]
        tokens = model.tokenize(as_floats(as_tensor(np.stack([pixels for *_, pixels in batch])).to(device)))
        rebuilt += list(as_bytes(model.decode_tokens(tokens)))
        for (name, pair_id, pixels), own, made in zip(batch, tokens.tolist(), rebuilt[start:], strict=True):
            row = {"dvae_id": run.inputs["dvae_id"], "picture": name, "pair_id": pair_id, "psnr": psnr(pixels, made)}
            rows.append(row | {"num_codes": len(set(own)), "image_tokens": own})
        report_progress(len(rebuilt), len(chosen), "images")
    path, table_path = run.run_dir / "reconstructions.png", run.run_dir / "reconstructions.parquet"
    with atomic_path(path) as partial:
        Image.fromarray(grid(originals, rebuilt)).save(partial, "PNG")
    write_parquet(table_path, pa.Table.from_pylist(rows, schema=RECONSTRUCTIONS.with_metadata(None)), RECONSTRUCTIONS)
    return {
        "reconstructions": run.layout.relative(path),
        "reconstructions_table": run.layout.relative(table_path),
        "num_pictures": len(originals),
        "psnr": psnr(np.stack(originals), np.stack(rebuilt)),
        "dropped": dropped,
    }


def choose_pictures(run: JobRun, side: int) -> tuple[list[tuple[str, int | None, NDArray[np.uint8]]], dict[str, str]]:
    """Name, pair (if it is one) and square pixels of each picture to show, and the reasons of those that cannot be shown.

    Raises `ValueError` when none can.
    """
    wanted = [int(text) for text in run.inputs.get("pair_ids", "").split()]
    most = len(wanted) or int(run.inputs["max_pictures"])
    chosen: list[tuple[str, int | None, NDArray[np.uint8]]] = []
    dropped: dict[str, str] = {}
    for name, pair_id, data in read_pictures(run, wanted):
        if len(chosen) == most:
            break
        try:
            chosen.append((name, pair_id, centre(np.asarray(decode_image(data, MAX_PIXELS)), side, seeded_random())))
        except ImageError as error:
            dropped[name] = str(error)
    seen = {name for name, *_ in chosen} | dropped.keys()
    dropped |= {f"pair {pair_id}": "not among the pairs" for pair_id in wanted if f"pair {pair_id}" not in seen}
    if not chosen:
        raise ValueError(f"reconstruct: none of the pictures can be decoded: {dropped or 'there are none'}; give others")
    return chosen, dropped


def read_pictures(run: JobRun, pair_ids: list[int]) -> Iterator[tuple[str, int | None, bytes]]:
    """Name, pair and bytes of each picture; of pairs only these, if there are any. Raises `ValueError` for a path that does not exist."""
    for where in run.inputs["pictures"].splitlines():
        path = run.layout.root / where
        if not path.exists():
            raise ValueError(f"reconstruct: {path} does not exist; give image files, or Parquet parts or folders of pairs")
        if path.is_dir() or path.suffix == ".parquet":
            for part in list_parts(path) if path.is_dir() else [path]:
                check_parquet(part, PAIRS)
                rows = dataset.dataset(part, partitioning=None).scanner(
                    ["pair_id", "image"], filter=pc.field("pair_id").isin(pair_ids) if pair_ids else None, batch_size=BATCH_SIZE
                )
                for batch in rows.to_batches():
                    yield from ((f"pair {row['pair_id']}", row["pair_id"], row["image"]) for row in batch.to_pylist())
        else:
            yield where, None, path.read_bytes()


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
    """Peak signal-to-noise ratio of 8-bit pictures [..., H, W, 3], in dB, of their mean squared error."""
    error = np.square((originals.astype(np.float64) - rebuilt) / 255).mean()
    return -10 * math.log10(max(float(error), 1e-10))
