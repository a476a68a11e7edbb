"""A model folder draws the same pixels without data root, Prefect or DuckDB, and refuses what does not belong together."""

import hashlib
import json
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from dalle_model import model_folder
from dalle_model.clip import build_clip, save_clip
from dalle_model.config.presets import preset
from dalle_model.dvae import DVAE, load_dvae, save_dvae
from dalle_model.generated.image_files import read_origin
from dalle_model.generator import NETWORKS, Generator, known_image_tokens
from dalle_model.model_folder import halve, read_model_folder, write_model_folder
from dalle_model.text import BpeTokenizer
from dalle_model.transformer import DALLETransformer, load_transformer, save_transformer
from flows.cli.generate import default_model
from flows.cli.main import main
from flows.runtime.parameters import find_config
from flows.runtime.upstream import inputs_of
from open_dalle import DALLE

TINY = {
    "tokenizer.vocab_size": 270, "tokenizer.max_text_tokens": 16,
    "dvae.codebook_size": 16, "dvae.hidden_width": 8, "dvae.codebook_width": 8, "dvae.codebook_init": "random",
    "clip.patch_size": 8, "clip.embed_width": 32, "clip.width": 32, "clip.head_width": 16, "clip.vision_layers": 1, "clip.text_layers": 1,
    "transformer.num_layers": 2, "transformer.num_heads": 2, "transformer.d_model": 16,
    "sampling.num_images": 4, "sampling.batch_size": 8, "seed": 3,
}  # fmt: skip
CONFIG = preset("demo", TINY)


def make_networks(root, seed=0):
    """Untrained networks under a folder: kind -> path, and their ids."""
    torch.manual_seed(seed)
    tokenizer = BpeTokenizer.train(["a red apple", "an owl"], CONFIG.tokenizer)
    paths = {kind: root / kind for kind in NETWORKS}
    tokenizer.save(paths["tokenizer"])
    ids = {"tokenizer_id": tokenizer.id, "dvae_id": save_dvae(paths["dvae"], DVAE(CONFIG.dvae))}
    ids["clip_id"] = save_clip(paths["clip"], build_clip(CONFIG.clip, tokenizer))
    transformer = DALLETransformer(CONFIG.transformer, replace(CONFIG.stream, text_vocab_size=tokenizer.vocab_size))
    made_from = {name: ids[name] for name in ("dvae_id", "tokenizer_id")}
    ids["transformer_id"] = save_transformer(paths["transformer"], transformer, made_from)
    return paths, ids


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A data root's networks, and the folder they were exported to."""
    root = tmp_path_factory.mktemp("model")
    paths, ids = make_networks(root / "root")
    write_model_folder(root / "folder", paths, ids, CONFIG.sampling, CONFIG.seed, "# card\n")
    return root, paths, ids


@pytest.fixture
def folder(made, tmp_path):
    """A copy of the folder to do harm to."""
    return shutil.copytree(made[0] / "folder", tmp_path / "my model")


def dalle(*arguments):
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    return ended.value.code


def test_the_folder_draws_the_pixels_of_the_data_root_where_neither_prefect_nor_duckdb_is(made, folder, tmp_path):
    root, _, ids = made
    inputs = {**{kind: kind for kind in NETWORKS}, **ids}
    config = preset("demo", {**TINY, "paths.data_root": str(root / "root")})
    expected = Generator.open(config, inputs).draw("a red apple")
    code = f"""
import hashlib, sys
sys.modules.update(dict.fromkeys(["prefect", "duckdb", "flows", "img2dataset", "selectolax"]))  # importing them fails
from open_dalle import DALLE
for picture in DALLE.load({str(folder)!r}).generate("a red apple"):
    print(hashlib.sha256(picture.image.tobytes()).hexdigest(), picture.seed)
"""
    away = tmp_path / "away"
    away.mkdir()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=away)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:-1] == [f"{hashlib.sha256(p.image.tobytes()).hexdigest()} {p.seed}" for p in expected]
    assert list(away.iterdir()) == []


def test_the_command_draws_with_a_folder_alone(made, folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DALLE_DATA_ROOT", str(tmp_path / "root"))
    expected = DALLE.load(folder).generate("A red  apple", 3, seed=5)
    options = ("--model", str(folder), "--num-images", "3", "--keep", "2", "--set", "seed=5")
    assert dalle("generate", "A red  apple", *options, "-o", "out") == 0
    best, second = sorted((tmp_path / "out").iterdir())
    assert best.name.startswith("a-red-apple-")
    assert best.name.endswith("-1.png")
    assert second.name.endswith("-2.png")
    assert np.array_equal(np.asarray(Image.open(best)), np.asarray(expected[0].image))
    assert read_origin(best)["transformer_id"] == made[2]["transformer_id"]
    assert f"seed={expected[0].seed}" in capsys.readouterr().out
    (tmp_path / "many.txt").write_text("an owl\nan owl!\n")
    assert dalle("generate", "--prompts", "many.txt", "--model", str(folder), "-o", "many") == 0
    assert len(list((tmp_path / "many").iterdir())) == 2
    assert not (tmp_path / "root").exists()
    for wrong in (("--preset", "demo"), ("--set", "transformer.num_layers=3")):
        assert dalle("generate", "an owl", "--model", str(folder), *wrong) == 2
    assert "--set transformer.num_layers: --model takes everything but sampling.* and seed from" in capsys.readouterr().err


def test_an_imported_model_is_current_and_draws_the_same_pixels(made, folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DALLE_DATA_ROOT", str(tmp_path / "root"))
    assert dalle("import", str(folder)) == 0
    assert dalle("import", str(folder)) == 0  # once more changes nothing
    expected = DALLE.load(folder).generate("an owl")
    shutil.rmtree(folder)
    config = find_config()
    drawn = Generator.open(config, inputs_of("generate_images", config)).draw("an owl")
    assert [p.image.tobytes() for p in drawn] == [p.image.tobytes() for p in expected]
    assert len((tmp_path / "root" / "networks" / "transformer.jsonl").read_text().splitlines()) == 1
    assert dalle("query", "select count(*) as n from artifacts where kind = 'transformer'", "--format", "json") == 0
    assert '{"n":1}' in capsys.readouterr().out.replace(" ", "")
    assert dalle("import", str(tmp_path / "none")) == 2
    assert "is no model folder (model.json is missing)" in capsys.readouterr().err


def test_equal_arguments_draw_equal_pictures_and_others_do_not(folder):
    model = DALLE.load(str(folder))
    first = model.generate("an owl", 2)
    assert [p.image.tobytes() for p in model.generate("an owl", 2)] == [p.image.tobytes() for p in first]
    assert [p.image.tobytes() for p in model.generate("an owl", 2, seed=9)] != [p.image.tobytes() for p in first]
    assert [p.image.tobytes() for p in model.generate("an owl", 2, temperature=0.01)] != [p.image.tobytes() for p in first]
    with pytest.raises(ValueError, match="num_images=0 must be at least 1"):
        model.generate("an owl", 0)
    with pytest.raises(ValueError, match=r"sampling\.temperature=0 must be positive"):
        model.generate("an owl", temperature=0)


def edit(path, **changes):
    about = json.loads(path.read_text())
    path.write_text(json.dumps({**about, **changes}))


def forge(folder):
    """Hashes of model.json made to fit whatever lies in the folder now."""
    files = {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.rglob("*") if p.is_file()}
    edit(folder / "model.json", files={name: sha for name, sha in files.items() if "/" in name})


HARM = {
    "no model": (lambda f: (f / "model.json").unlink(), r"is no model folder \(model\.json is missing\); `dalle export FOLDER`"),
    "broken": (lambda f: (f / "model.json").write_text("{"), r"model\.json: not valid JSON"),
    "another kind": (lambda f: edit(f / "model.json", kind="cake"), "does not describe a model of open-dalle"),
    "newer": (lambda f: edit(f / "model.json", version=2), "version 2 of the folder, and this open-dalle reads up to 1; update"),
    "no ids": (lambda f: edit(f / "model.json", ids={}), "was changed by hand or is incomplete"),
    "no files": (lambda f: edit(f / "model.json", files={}), "lists no file of the transformer"),
    "outside": (lambda f: edit(f / "model.json", files={"../x": ""} | json.loads((f / "model.json").read_text())["files"]), "no part of"),
    "missing part": (lambda f: shutil.rmtree(f / "dvae"), r"dvae/config\.json is missing; copy or export"),
    "missing file": (lambda f: (f / "clip" / "tokenizer" / "vocabulary.json").unlink(), r"vocabulary\.json is missing"),
    "damaged": (lambda f: (f / "dvae" / "model.safetensors").write_bytes(b"x"), "is not the file that model.json lists: it is damaged"),
}


@pytest.mark.parametrize("what", HARM)
def test_a_damaged_folder_is_refused(what, folder):
    harm, message = HARM[what]
    harm(folder)
    with pytest.raises(ValueError, match=message):
        DALLE.load(folder)


@pytest.mark.parametrize("part", ["dvae", "transformer", "tokenizer", "clip"])
def test_a_part_of_another_model_is_refused_even_with_forged_hashes(part, folder, tmp_path):
    paths, ids = make_networks(tmp_path / "other", seed=1)
    if part == "tokenizer":  # equal captions make an equal vocabulary
        BpeTokenizer.train(["other words"], CONFIG.tokenizer).save(paths["tokenizer"])
    shutil.rmtree(folder / part)
    shutil.copytree(paths[part], folder / part)
    with pytest.raises(ValueError, match=r"is not the file that model\.json lists: it is damaged or from another model"):
        DALLE.load(folder)
    forge(folder)
    with pytest.raises(ValueError, match=r"but the run asks for|holds no readable tokenizer"):
        DALLE.load(folder)
    if part in ("dvae", "transformer"):  # and its id forged, too
        about = json.loads((folder / "model.json").read_text())
        edit(folder / "model.json", ids={**about["ids"], f"{part}_id": ids[f"{part}_id"]})
        with pytest.raises(ValueError, match="was trained with dvae_id="):
            DALLE.load(folder)


def test_nothing_is_written_over_what_is_no_model_and_an_older_export_is_replaced(made, tmp_path):
    root, paths, ids = made
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(ValueError, match="exists and is no model folder; nothing is written over it: choose a new folder"):
        write_model_folder(tmp_path / "mine", paths, ids, CONFIG.sampling, 0, "")
    assert (tmp_path / "mine" / "letter.txt").read_text() == "dear"
    folder = shutil.copytree(root / "folder", tmp_path / "folder")
    write_model_folder(folder, paths, ids, CONFIG.sampling, 7, "# new\n")
    assert (read_model_folder(folder).seed, (folder / "README.md").read_text()) == (7, "# new\n")
    with pytest.raises(ValueError, match="was trained with dvae_id="):
        other = save_dvae(tmp_path / "dvae", DVAE(CONFIG.dvae))
        write_model_folder(folder, {**paths, "dvae": tmp_path / "dvae"}, {**ids, "dvae_id": other}, CONFIG.sampling, 7, "")
    assert read_model_folder(folder).ids == ids


def test_a_model_that_comes_with_the_package_draws_by_its_name_and_where_there_is_no_data_root(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("DALLE_DATA_ROOT", raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        ValueError, match=r"^emoji is no model folder \(model\.json is missing\); `dalle export FOLDER` makes one from a data root$"
    ):
        DALLE.load("emoji")
    monkeypatch.setattr(model_folder, "SHIPPED", tmp_path / "shipped")
    shutil.copytree(folder, tmp_path / "shipped" / "emoji")
    expected = np.asarray(DALLE.load(folder).generate("a red apple")[0].image)
    np.testing.assert_array_equal(np.asarray(DALLE.load("emoji").generate("a red apple")[0].image), expected)
    assert dalle("generate", "a red apple", "--model", "emoji", "--output", "named") == 0
    assert "no data root" not in capsys.readouterr().err
    assert dalle("generate", "a red apple", "--output", "unnamed") == 0
    assert "no data root here: drawing with the model 'emoji' that comes with open-dalle; about it: " in capsys.readouterr().err
    (named,), (unnamed,) = ((tmp_path / name).glob("*.png") for name in ("named", "unnamed"))
    for path in (named, unnamed):
        np.testing.assert_array_equal(np.asarray(Image.open(path)), expected)
    with pytest.raises(ValueError, match=r"^other is no model folder .* from a data root, and emoji comes with open-dalle$"):
        DALLE.load("other")
    assert default_model({}) == tmp_path / "shipped" / "emoji"
    assert default_model({"paths.data_root": "elsewhere"}) is None
    (tmp_path / "data").mkdir()
    assert default_model({}) is None, "a data root is here"
    (tmp_path / "emoji").mkdir()
    with pytest.raises(ValueError, match=r"^emoji is no model folder"):
        DALLE.load("emoji")


def test_a_picture_is_completed_from_its_upper_half(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = DALLE.load(folder)
    given = model.generate("an owl", seed=7)[0]
    given.image.save("owl.png")
    grid = CONFIG.dvae.image_grid_size
    dvae = load_dvae(folder / "dvae")
    known = known_image_tokens((tmp_path / "owl.png").read_bytes(), dvae, CONFIG.sampling.image_prompt_share).numpy()
    num_known = max(1, round(CONFIG.sampling.image_prompt_share * grid)) * grid
    completed = model.generate("a red apple", complete="owl.png")
    assert 0 < num_known < grid**2
    assert all(np.array_equal(picture.image_tokens[:num_known], known[:num_known]) for picture in completed)
    assert len({picture.image.tobytes() for picture in completed}) > 1
    (tmp_path / "halves.csv").write_text("prompt,image\na red apple,owl.png\n")
    assert dalle("generate", "--prompts", "halves.csv", "--model", str(folder), "-o", "drawn") == 0
    (drawn,) = (tmp_path / "drawn").iterdir()
    np.testing.assert_array_equal(np.asarray(Image.open(drawn)), np.asarray(completed[0].image))
    with pytest.raises(FileNotFoundError):
        model.generate("an owl", complete="none.png")


def test_half_of_the_bits_take_half_of_the_space_and_draw_nearly_the_same(made, tmp_path):
    root, paths, ids = made
    halved, new_ids = halve(paths, ids, tmp_path / "halved")
    assert {kind for kind in NETWORKS if new_ids[f"{kind}_id"] != ids[f"{kind}_id"]} == {"transformer", "clip"}
    write_model_folder(tmp_path / "small", halved, new_ids, CONFIG.sampling, CONFIG.seed, "# card\n")
    for kind in ("transformer", "clip"):
        sizes = [(folder / kind / "model.safetensors").stat().st_size for folder in (root / "folder", tmp_path / "small")]
        assert 0.45 < sizes[1] / sizes[0] < 0.65
    whole, rounded = (load_transformer(folder / "transformer").state_dict() for folder in (root / "folder", tmp_path / "small"))
    for name, value in whole.items():
        assert rounded[name].dtype == torch.float32
        torch.testing.assert_close(rounded[name], value, rtol=0.01, atol=1e-6)
    assert len(DALLE.load(tmp_path / "small").generate("a red apple")) == CONFIG.sampling.num_images


def test_the_example_draws_with_a_model_folder(folder, run_example, tmp_path, capsys):
    run_example("draw.py", folder, "an owl", 4)
    assert [Image.open(tmp_path / f"drawn-{rank}.png").size for rank in (1, 2, 3)] == [(32, 32)] * 3
    scores = [float(line.split()[3].strip(",")) for line in capsys.readouterr().out.splitlines()]
    assert scores == sorted(scores, reverse=True)
