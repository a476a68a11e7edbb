"""Published weights come in by path, or by address with a checksum, and only if they fit the configuration."""

import hashlib
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch

from dalle_model.dvae import load_dvae
from dalle_model.jobs import import_weights

SIZES = {"dvae.image_size": 32, "dvae.downsample": 8, "dvae.codebook_size": 32, "dvae.hidden_width": 8, "dvae.num_groups": 4,
         "dvae.blocks_per_group": 2, "dvae.codebook_width": 12, "dvae.stem_patch_size": 1, "dvae.codebook_init": "random",
         "transformer.conv_kernel_size": 3}  # fmt: skip


@pytest.fixture
def files(published, tmp_path):
    """Inputs of the job by path, relative to the data root."""
    return {"encoder": "encoder.pkl", "decoder": "decoder.pkl"}


@pytest.fixture
def address(tmp_path):
    """A web server over the data root."""
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_weights_become_a_checkpoint_that_gives_the_published_tokens(make_config, files, run_job, published, tmp_path):
    result = run_job("import_weights", make_config(SIZES), files)
    model = load_dvae(tmp_path / result["checkpoint"])
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        expected = published.encoder(0.8 * images + 0.1).argmax(1).flatten(1)
    assert torch.equal(model.tokenize(images), expected)
    assert run_job("import_weights", make_config(SIZES), files)["dvae_id"] == result["dvae_id"]


def test_an_address_needs_its_checksum(make_config, files, run_job, address):
    with pytest.raises(ValueError, match=r"encoder\.pkl needs its SHA-256 in encoder_sha256; a file from the network is not trusted"):
        run_job("import_weights", make_config(SIZES), {**files, "encoder": f"{address}/encoder.pkl"})


def test_an_address_with_its_checksum_is_downloaded(make_config, files, run_job, address, tmp_path):
    by_path = run_job("import_weights", make_config(SIZES), files)
    inputs = {**files, "encoder": f"{address}/encoder.pkl", "encoder_sha256": sha256(tmp_path / "encoder.pkl")}
    assert run_job("import_weights", make_config(SIZES), inputs)["dvae_id"] == by_path["dvae_id"]


def test_a_wrong_checksum_is_refused(make_config, files, run_job, address):
    inputs = {**files, "encoder": f"{address}/encoder.pkl", "encoder_sha256": "0" * 64}
    with pytest.raises(ValueError, match=r"encoder\.pkl has SHA-256 [0-9a-f]{64}, expected 0{64}; it is damaged or another file"):
        run_job("import_weights", make_config(SIZES), inputs)


def test_a_file_that_was_damaged_on_the_way_is_downloaded_again(make_config, files, run_job, address, tmp_path):
    good = (tmp_path / "encoder.pkl").read_bytes()
    inputs = {**files, "encoder": f"{address}/encoder.pkl", "encoder_sha256": hashlib.sha256(good).hexdigest()}
    (tmp_path / "encoder.pkl").write_bytes(good[:-100])
    with pytest.raises(ValueError, match=r"it is damaged or another file"):
        run_job("import_weights", make_config(SIZES), inputs)
    (tmp_path / "encoder.pkl").write_bytes(good)
    assert run_job("import_weights", make_config(SIZES), inputs)["num_parameters"] > 0


def test_an_address_that_gives_nothing_or_no_end_says_so(make_config, files, run_job, address, monkeypatch):
    inputs = {**files, "encoder": f"{address}/gone.pkl", "encoder_sha256": "0" * 64}
    with pytest.raises(ValueError, match=r"gone\.pkl could not be downloaded \(HTTPError: HTTP Error 404: .*\); check the address, or"):
        run_job("import_weights", make_config(SIZES), inputs)
    with pytest.raises(ValueError, match=r"could not be downloaded \(URLError: .*refused.*\)"):
        run_job("import_weights", make_config(SIZES), {**inputs, "encoder": "http://127.0.0.1:9/encoder.pkl"})
    monkeypatch.setattr(import_weights, "MAX_BYTES", 100)
    with pytest.raises(ValueError, match=r"encoder\.pkl has more than 100 bytes, which no part of a dVAE has; check the address"):
        run_job("import_weights", make_config(SIZES), {**inputs, "encoder": f"{address}/encoder.pkl"})


def test_weights_of_another_size_are_refused(make_config, files, run_job):
    with pytest.raises(
        ValueError, match=r"do not fit this preset: dvae\.codebook_size=64 \(the files have 32\); set these, or choose another"
    ):
        run_job("import_weights", make_config({**SIZES, "dvae.codebook_size": 64}), files)


def test_a_missing_input_and_a_missing_file_are_named(make_config, files, run_job):
    with pytest.raises(ValueError, match=r"input 'decoder' is missing; give the path or the address of OpenAI's decoder\.pkl"):
        run_job("import_weights", make_config(SIZES), {"encoder": "encoder.pkl"})
    with pytest.raises(ValueError, match=r"decoder = .*gone\.pkl does not exist; correct the path"):
        run_job("import_weights", make_config(SIZES), {**files, "decoder": "gone.pkl"})
