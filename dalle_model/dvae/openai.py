"""OpenAI's published dVAE, read without running anything that is in it.

`encoder.pkl` and `decoder.pkl` are pickles of whole `nn.Module`s. A pickle is a program: loading one runs whatever it names,
and these name classes of a package whose code broke with torch 1.11. So this reader takes the pickle as data (`inert_pickle`),
refuses every name but the handful that such files contain, and takes the tensors out.
"""

import io
import math
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from dalle_model.config.model import DVAEConfig
from dalle_model.dvae.inert_pickle import ORDERED_DICT, Call, Instance, Name, Refused, read_pickle
from dalle_model.dvae.model import DVAE

NUM_GROUPS = 4
"""A constant of the published code; the other sizes are read off the tensors."""
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C


def load_openai(encoder_path: Path, decoder_path: Path, image_size: int = 256) -> DVAE:
    """The published dVAE as ours, for pictures of `image_size`. Raises `ValueError` naming what is wrong with a file."""
    encoder, decoder = read_module(encoder_path), read_module(decoder_path)
    for path, weights in ((encoder_path, encoder), (decoder_path, decoder)):
        if not {"blocks.input.w", "blocks.output.conv.w", "blocks.group_1.block_1.res_path.conv_1.w"} <= weights.keys():
            raise ValueError(f"{path} holds no encoder or decoder of OpenAI's dVAE: it lacks blocks.input, blocks.output or blocks.group_1")
    config = DVAEConfig(
        image_size=image_size,
        codebook_size=encoder["blocks.output.conv.w"].shape[0],
        hidden_width=encoder["blocks.input.w"].shape[0],
        num_groups=NUM_GROUPS,
        blocks_per_group=len({name.split(".")[2] for name in encoder if name.startswith("blocks.group_1.block_")}),
        codebook_width=decoder["blocks.input.w"].shape[0],
    )
    with torch.device("meta"):
        model = DVAE(config)
    ours = {f"encoder.{our_name(name)}": value for name, value in encoder.items()}
    ours |= {f"decoder.{our_name(name)}": value for name, value in decoder.items()}
    expected = {name: list(value.shape) for name, value in model.state_dict().items()}
    found = {name: list(value.shape) for name, value in ours.items()}
    if different := sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name)):
        name = different[0]
        raise ValueError(
            f"{encoder_path} and {decoder_path} do not make one dVAE: {name} has shape {found.get(name)}, "
            f"expected {expected.get(name)}; are both of the same release, in this order?"
        )
    model.load_state_dict(ours, assign=True)
    return model.eval().requires_grad_(False)


def our_name(name: str) -> str:
    """The published name of a parameter in our words, e.g. blocks.group_2.block_1.res_path.conv_3.w -> groups.1.0.convs.2.weight.

    Raises `ValueError` for a name the published networks do not have.
    """
    leaf = {"w": "weight", "b": "bias"}.get(name.rsplit(".", 1)[-1], "?")
    if match := re.fullmatch(r"blocks\.(input|output\.conv)\.[wb]", name):
        return f"{match[1].removesuffix('.conv')}.{leaf}"
    if match := re.fullmatch(r"blocks\.group_(\d+)\.block_(\d+)\.(?:id_path|res_path\.conv_(\d+))\.[wb]", name):
        part = f"convs.{int(match[3]) - 1}" if match[3] else "skip"
        return f"groups.{int(match[1]) - 1}.{int(match[2]) - 1}.{part}.{leaf}"
    raise ValueError(f"{name} is not a parameter of OpenAI's dVAE")


def read_module(path: Path) -> dict[str, Tensor]:
    """The float32 parameters of a pickled module by their dotted names. Nothing in the file is executed.

    Reads what `torch.save` writes, old (before torch 1.6) and new. Raises `ValueError` for a file that is neither, names anything
    but the dVAE's own classes, or would take more memory than its own size.
    """
    try:
        with path.open("rb") as file:
            return _read_zip(file, path) if zipfile.is_zipfile(file) else _read_legacy(file, path)
    except FileNotFoundError:
        raise ValueError(f"{path} does not exist; give the path of a downloaded encoder.pkl or decoder.pkl") from None
    except Refused as error:
        raise Refused(f"{path} {error}; it was not executed. Do not load this file") from None
    except Exception as error:  # a damaged pickle can fail in any way; none of them is our bug
        raise ValueError(f"{path} is not a module saved by torch.save ({type(error).__name__}: {error}); download it again") from error


_MODULES = {
    Name("dall_e.encoder", "Encoder"),
    Name("dall_e.encoder", "EncoderBlock"),
    Name("dall_e.decoder", "Decoder"),
    Name("dall_e.decoder", "DecoderBlock"),
    Name("dall_e.utils", "Conv2d"),
    Name("torch.nn.modules.container", "Sequential"),
    Name("torch.nn.modules.activation", "ReLU"),
    Name("torch.nn.modules.pooling", "MaxPool2d"),
    Name("torch.nn.modules.upsampling", "Upsample"),
    Name("torch.nn.modules.linear", "Identity"),
}
_TENSOR = Name("torch._utils", "_rebuild_tensor_v2")
_PARAMETER = Name("torch._utils", "_rebuild_parameter")
_FLOATS = Name("torch", "FloatStorage")
_KNOWN = _MODULES | {_TENSOR, _PARAMETER, _FLOATS, ORDERED_DICT}
_KNOWN |= {Name("torch", "device"), Name("builtins", "set"), Name("__builtin__", "set")}

Load = Callable[[str, int], Tensor]
"""(key of a storage, how many numbers it has) -> float32 [numbers]."""


def _admit(name: Name) -> None:
    if name not in _KNOWN:
        raise Refused(f"names {name}, which no dVAE of OpenAI contains")


def _read_zip(file: BinaryIO, path: Path) -> dict[str, Tensor]:
    """The format since torch 1.6: a zip with the pickle and one member of raw numbers per storage."""
    with zipfile.ZipFile(file) as archive:
        members = {info.filename.split("/", 1)[-1]: info for info in archive.infolist()}

        def read(name: str) -> bytes:
            info = members[name]
            if info.compress_type != zipfile.ZIP_STORED or info.file_size > path.stat().st_size:
                raise Refused(f"has a compressed member {name}, which torch.save never writes")  # perhaps a bomb
            return archive.read(info)

        if "byteorder" in members and read("byteorder") != b"little":
            raise ValueError("its numbers are big-endian")
        root = read_pickle(io.BytesIO(read("data.pkl")), _admit)

        def load(key: str, num_values: int) -> Tensor:
            data = read(f"data/{key}")
            if len(data) != 4 * num_values:
                raise ValueError(f"storage {key} has {len(data)} bytes for {num_values} numbers")
            return torch.frombuffer(bytearray(data), dtype=torch.float32)

        return _Parameters(load, path).of(root)


def _read_legacy(file: BinaryIO, path: Path) -> dict[str, Tensor]:
    """The format before torch 1.6: pickles one after the other, then the raw numbers of every storage."""
    file.seek(0)
    if read_pickle(file, _admit) != _LEGACY_MAGIC:
        raise ValueError("no magic number")
    read_pickle(file, _admit)  # version of the format
    if not read_pickle(file, _admit)["little_endian"]:
        raise ValueError("its numbers are big-endian")
    root = read_pickle(file, _admit)
    storages: dict[str, tuple[int, int]] = {}
    """Where each one's numbers begin, and how many there are."""
    for key in read_pickle(file, _admit):
        num_values = int.from_bytes(file.read(8), "little")
        storages[str(key)] = (file.tell(), num_values)
        file.seek(4 * num_values, io.SEEK_CUR)

    def load(key: str, num_values: int) -> Tensor:
        start, stored = storages[key]
        if stored != num_values:
            raise ValueError(f"storage {key} has {stored} numbers, expected {num_values}")
        file.seek(start)
        if len(data := file.read(4 * num_values)) != 4 * num_values:
            raise ValueError(f"storage {key} is larger than the file")
        return torch.frombuffer(bytearray(data), dtype=torch.float32)

    return _Parameters(load, path).of(root)


class _Parameters:
    """Collects the parameters of a module and of those inside it."""

    def __init__(self, load: Load, path: Path) -> None:
        self._load = load
        self._bytes_left = path.stat().st_size
        self._seen: set[int] = set()

    def of(self, module: object, prefix: str = "") -> dict[str, Tensor]:
        if not isinstance(module, Instance) or module.kind not in _MODULES or not isinstance(module.state, dict):
            raise Refused(f"holds {_describe(module)} where a network should be")
        if id(module) in self._seen:  # a network inside itself, or one counted many times over
            raise Refused("has the same module in two places")
        self._seen.add(id(module))
        found = {}
        for name, value in dict(module.state.get("_parameters") or {}).items():
            if value is not None:
                found[f"{prefix}{name}"] = self._tensor(value)
        for name, child in dict(module.state.get("_modules") or {}).items():
            if child is not None:
                found |= self.of(child, f"{prefix}{name}.")
        return found

    def _tensor(self, value: Any) -> Tensor:
        if isinstance(value, Call) and value.function == _PARAMETER:
            value = value.arguments[0]
        if not isinstance(value, Call) or value.function != _TENSOR:
            raise Refused(f"holds {_describe(value)} where a parameter should be")
        storage, offset, size, stride, *_ = value.arguments
        if not 1 <= len(size) <= 4:
            raise Refused(f"holds numbers of {len(size)} dimensions, which no dVAE of OpenAI does")
        kind, type_name, key, _, num_values, *_ = storage.key
        if kind != "storage" or type_name != _FLOATS:
            raise Refused("holds numbers of another type than float32, which no dVAE of OpenAI does")
        self._bytes_left -= 4 * max(num_values, math.prod(size))
        if self._bytes_left < 0 or min(size, default=0) < 0:
            raise Refused("describes more numbers than it has")
        return torch.as_strided(self._load(str(key), num_values), size, stride, offset).clone()


def _describe(value: object) -> str:
    if isinstance(value, Instance):
        return str(value.kind)
    return str(value.function) if isinstance(value, Call) else f"a value of type {type(value).__name__}"
