"""The published weights give the published network's answers, and a hostile file gets nowhere."""

import io
import os
import pickle
import zipfile

import pytest
import torch
from dall_e import Decoder, Encoder, unmap_pixels
from torch import nn
from torch.nn import functional as F

from dalle_model.config.model import DVAEConfig
from dalle_model.dvae.openai import load_openai, our_name, read_module
from dalle_model.dvae.pixels import map_pixels


class Runs:
    """A pickle of this calls `function(*arguments)` when it is loaded."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def test_logits_tokens_and_pictures_are_those_of_the_published_network(published):
    model = load_openai(published.encoder_path, published.decoder_path, image_size=32)
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        logits = published.encoder(map_pixels(images))  # as in the published notebook
        tokens = logits.argmax(1)
        raw = published.decoder(F.one_hot(tokens, 32).permute(0, 3, 1, 2).float())
    torch.testing.assert_close(model.encode_logits(images), logits)
    assert torch.equal(model.tokenize(images), tokens.flatten(1))
    mu, log_scale = model.decoder.from_tokens(tokens)
    torch.testing.assert_close(torch.cat([mu, log_scale], 1), raw)


@pytest.mark.long
def test_networks_of_the_released_size_are_read_with_every_parameter_in_its_place(tmp_path):
    torch.manual_seed(0)
    encoder, decoder = Encoder(), Decoder()
    torch.save(encoder, tmp_path / "encoder.pkl")
    torch.save(decoder, tmp_path / "decoder.pkl")
    model = load_openai(tmp_path / "encoder.pkl", tmp_path / "decoder.pkl")
    assert model.config == DVAEConfig()
    assert sum(p.numel() for p in model.encoder.parameters()) == sum(p.numel() for p in encoder.parameters()) == 53_786_240
    assert sum(p.numel() for p in model.decoder.parameters()) == sum(p.numel() for p in decoder.parameters()) == 43_829_766
    images = torch.rand(1, 3, 256, 256)
    with torch.no_grad():
        logits = encoder(map_pixels(images))
        tokens = logits.argmax(1)
        raw = decoder(F.one_hot(tokens, 8_192).permute(0, 3, 1, 2).float())
    torch.testing.assert_close(model.encode_logits(images), logits)
    assert torch.equal(model.tokenize(images), tokens.flatten(1))
    torch.testing.assert_close(model.decode_tokens(tokens.flatten(1)), unmap_pixels(torch.sigmoid(raw[:, :3])))


@pytest.mark.filterwarnings("ignore:Couldn't retrieve source code")
def test_files_from_before_torch_1_6_are_read_too(published, tmp_path):
    old = published.save(published.encoder, tmp_path / "old.pkl", _use_new_zipfile_serialization=False)
    new = read_module(published.encoder_path)
    found = read_module(old)
    assert found.keys() == new.keys()
    assert all(torch.equal(found[name], new[name]) for name in new)


def test_every_published_name_maps_to_exactly_one_of_ours(published):
    model = load_openai(published.encoder_path, published.decoder_path, image_size=32)
    for network, part in ((published.encoder, model.encoder), (published.decoder, model.decoder)):
        ours = [our_name(name) for name, _ in network.named_parameters()]
        assert sorted(ours) == sorted(name for name, _ in part.named_parameters())


def test_an_unknown_parameter_is_named():
    with pytest.raises(ValueError, match=r"blocks\.extra\.w is not a parameter of OpenAI's dVAE"):
        our_name("blocks.extra.w")


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (os.system, r"(posix|nt)\.system"),
        (eval, r"(builtins|__builtin__)\.eval"),
        (__import__, r"(builtins|__builtin__)\.__import__"),
        (getattr, r"(builtins|__builtin__)\.getattr"),
        (torch.load, r"torch\.serialization\.load"),
    ],
)
@pytest.mark.parametrize("is_new_format", [True, False])
def test_a_hostile_pickle_is_refused_by_name_and_nothing_runs(tmp_path, function, name, is_new_format):
    path = tmp_path / "encoder.pkl"
    torch.save(Runs(function, f"touch {tmp_path / 'executed'}"), path, _use_new_zipfile_serialization=is_new_format)
    with pytest.raises(ValueError, match=rf"encoder\.pkl names {name}, which no dVAE of OpenAI contains; it was not executed"):
        read_module(path)
    assert not (tmp_path / "executed").exists()


def test_a_call_hidden_inside_a_good_network_is_refused(published, tmp_path):
    published.encoder.blocks.group_1.note = Runs(os.system, f"touch {tmp_path / 'executed'}")
    path = published.save(published.encoder, tmp_path / "nested.pkl")
    with pytest.raises(ValueError, match=r"names (posix|nt)\.system"):
        read_module(path)
    assert not (tmp_path / "executed").exists()


def test_a_call_in_a_bare_pickle_is_refused(tmp_path):
    path = tmp_path / "encoder.pkl"
    path.write_bytes(pickle.dumps(Runs(os.system, f"touch {tmp_path / 'executed'}")))
    with pytest.raises(ValueError, match=r"names (posix|nt)\.system"):
        read_module(path)
    assert not (tmp_path / "executed").exists()


def test_dotted_names_cannot_climb_out_of_a_known_one(tmp_path):
    # Protocol 4 looks dotted names up attribute by attribute: collections.OrderedDict.__init__.__globals__ would lead anywhere.
    path = tmp_path / "encoder.pkl"
    name = b"OrderedDict.fromkeys.__self__"
    path.write_bytes(b"\x80\x04\x8c\x0bcollections\x8c" + bytes([len(name)]) + name + b"\x93.")
    with pytest.raises(ValueError, match=r"names collections\.OrderedDict\.fromkeys"):
        read_module(path)


def test_a_whole_other_network_is_refused(tmp_path):
    torch.save(nn.Linear(2, 2), tmp_path / "encoder.pkl")
    with pytest.raises(ValueError, match=r"names torch\.nn\.modules\.linear\.Linear"):
        read_module(tmp_path / "encoder.pkl")


def test_numbers_of_another_type_are_refused(published, tmp_path):
    path = published.save(published.encoder.half(), tmp_path / "half.pkl")
    with pytest.raises(ValueError, match=r"names torch\.HalfStorage"):
        read_module(path)


def test_exchanged_files_are_refused(published):
    with pytest.raises(
        ValueError, match=r"do not make one dVAE: .* has shape .*, expected .*; are both of the same release, in this order"
    ):
        load_openai(published.decoder_path, published.encoder_path, image_size=32)


def test_a_file_without_a_network_is_refused(published, tmp_path):
    published.save({"weights": 1}, tmp_path / "dict.pkl")
    with pytest.raises(ValueError, match=r"dict\.pkl holds a value of type dict where a network should be; it was not executed"):
        read_module(tmp_path / "dict.pkl")


@pytest.mark.parametrize("damage", [b"", b"<html>404</html>", b"\x80\x02."])
def test_a_damaged_file_is_refused(tmp_path, damage):
    path = tmp_path / "encoder.pkl"
    path.write_bytes(damage)
    with pytest.raises(ValueError, match=r"encoder\.pkl is not a module saved by torch\.save \(.*\); download it again"):
        read_module(path)


def test_a_truncated_storage_is_refused(published, tmp_path):
    changed = io.BytesIO()
    with zipfile.ZipFile(published.encoder_path) as old, zipfile.ZipFile(changed, "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name)[: 8 if name.endswith("data/0") else None])
    (tmp_path / "cut.pkl").write_bytes(changed.getvalue())
    with pytest.raises(ValueError, match=r"storage 0 has 8 bytes for \d+ numbers"):
        read_module(tmp_path / "cut.pkl")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"encoder\.pkl does not exist; give the path of a downloaded encoder.pkl or decoder.pkl"):
        read_module(tmp_path / "encoder.pkl")
