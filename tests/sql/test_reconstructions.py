"""What `dalle reconstruct` found can be asked for, with the captions of pairs."""

import pyarrow as pa

from dalle_datasets.store.parquet import write_parquet
from dalle_datasets.store.schemas import RECONSTRUCTIONS


def test_pictures_that_came_back_worst_come_first(catalog, tmp_path):
    def row(picture: str, psnr: float, pair_id: int | None = None, dvae_id: str = "vae") -> dict[str, object]:
        return {"dvae_id": dvae_id, "picture": picture, "pair_id": pair_id, "psnr": psnr, "num_codes": 2, "image_tokens": [1, 2]}

    for run, rows in (
        ("a", [row("pair 1", 21.0, 1), row("owl.png", 19.0)]),
        ("b", [row("pair 1", 21.0, 1), row("pair 1", 25.0, 1, "better")]),
    ):
        path = tmp_path / f"runs/reconstruct-{run}/reconstructions.parquet"
        write_parquet(path, pa.Table.from_pylist(rows, schema=RECONSTRUCTIONS.with_metadata(None)), RECONSTRUCTIONS)
    catalog.add("pairs", {"pair_id": 1, "caption": "a red apple"})
    worst, apple = ("vae", "owl.png", None, 19.0, 2), ("vae", "pair 1", "a red apple", 21.0, 2)
    assert catalog.query("reconstructions", root=str(tmp_path)) == [worst, apple, ("better", "pair 1", "a red apple", 25.0, 2)]
    assert catalog.query("reconstructions", root=str(tmp_path), dvae_id="vae", limit=1) == [worst]


def test_reconstructed_keeps_the_tokens_and_the_file(catalog, tmp_path):
    path = tmp_path / "runs/reconstruct-a/reconstructions.parquet"
    row = {"dvae_id": "vae", "picture": "owl.png", "pair_id": None, "psnr": 19.0, "num_codes": 2, "image_tokens": [7, 8]}
    write_parquet(path, pa.Table.from_pylist([row], schema=RECONSTRUCTIONS.with_metadata(None)), RECONSTRUCTIONS)
    found = catalog.con.execute("select image_tokens, caption, file_path from reconstructed($root)", {"root": str(tmp_path)})
    assert found.fetchall() == [([7, 8], None, str(path))]
