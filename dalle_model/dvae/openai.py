"""OpenAI's published dVAE, read without running anything that is in it.

`encoder.pkl` and `decoder.pkl` are pickles of whole `nn.Module`s. A pickle is a program: loading one runs whatever it names,
and these name classes of a package whose code broke with torch 1.11. So this reader knows the handful of names
such files contain, gives each a harmless stand-in that only keeps its attributes, refuses every other name, and takes the tensors out.
"""

import io
import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from dalle_model.config.model import DVAEConfig
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

    Reads what `torch.save` writes, old (before torch 1.6) and new. Raises `ValueError` for a file that is neither, or
    names anything but the dVAE's own classes.
    """
    try:
        with path.open("rb") as file:
            root = _read_zip(file, path) if zipfile.is_zipfile(file) else _read_legacy(file, path)
    except FileNotFoundError:
        raise ValueError(f"{path} does not exist; give the path of a downloaded encoder.pkl or decoder.pkl") from None
    except Refused:
        raise
    except Exception as error:  # a damaged pickle can fail in any way; none of them is our bug
        raise ValueError(f"{path} is not a module saved by torch.save ({type(error).__name__}: {error}); download it again") from error
    if not isinstance(root, Module):
        raise ValueError(f"{path} holds {type(root).__name__}, not a network")
    return _parameters(root, "")


class Refused(ValueError):
    """The file names something that is not part of a dVAE."""


class Module:
    """Stands in for every class of the published network and of `torch.nn`: keeps attributes, does nothing."""

    def __setstate__(self, state: object) -> None:
        self.attributes: dict[str, Any] = dict(state) if isinstance(state, dict) else {}


class FloatStorage:
    """Stands in for `torch.FloatStorage`, which pickles name as the type of their numbers."""


def _rebuild_tensor(storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: object) -> Tensor:
    return torch.as_strided(storage, size, stride, offset)  # a view: old files bring the numbers after the pickle


def _rebuild_parameter(tensor: Tensor, *_: object) -> Tensor:
    return tensor


def _device(*_: object) -> None:
    """Where the tensor once was does not matter."""


_KNOWN: dict[tuple[str, str], Callable[..., Any]] = {
    ("dall_e.encoder", "Encoder"): Module,
    ("dall_e.encoder", "EncoderBlock"): Module,
    ("dall_e.decoder", "Decoder"): Module,
    ("dall_e.decoder", "DecoderBlock"): Module,
    ("dall_e.utils", "Conv2d"): Module,
    ("torch.nn.modules.container", "Sequential"): Module,
    ("torch.nn.modules.activation", "ReLU"): Module,
    ("torch.nn.modules.pooling", "MaxPool2d"): Module,
    ("torch.nn.modules.upsampling", "Upsample"): Module,
    ("torch.nn.modules.linear", "Identity"): Module,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    ("torch", "FloatStorage"): FloatStorage,
    ("torch", "device"): _device,
    ("collections", "OrderedDict"): OrderedDict,
    ("builtins", "set"): set,
    ("__builtin__", "set"): set,
}


class _Reader(pickle.Unpickler):
    """A pickle reader that can reach nothing but `_KNOWN`."""

    def __init__(self, file: BinaryIO, path: Path, storage: Callable[[str, int], Tensor]) -> None:
        super().__init__(file)
        self._path, self._storage = path, storage

    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        """Called for every name in the pickle, before anything is done with it."""
        try:
            return _KNOWN[module, name]
        except KeyError:
            raise Refused(
                f"{self._path} names {module}.{name}, which no dVAE of OpenAI contains; it was not executed. Do not load this file"
            ) from None

    def persistent_load(self, pid: Any) -> Any:
        """Tensors' numbers lie outside the pickle; old files also attach the source of each class, which is not looked at."""
        kind, *rest = pid
        if kind == "module":
            return rest[0]
        if kind != "storage" or rest[0] is not FloatStorage:
            raise Refused(f"{self._path} holds numbers of another type than float32, which no dVAE of OpenAI does")
        return self._storage(str(rest[1]), int(rest[3]))


def _read_zip(file: BinaryIO, path: Path) -> Any:
    """The format since torch 1.6: a zip with the pickle and one member of raw numbers per storage."""
    with zipfile.ZipFile(file) as archive:
        names = {name.split("/", 1)[-1]: name for name in archive.namelist()}
        if "byteorder" in names and archive.read(names["byteorder"]) != b"little":
            raise ValueError("its numbers are big-endian")
        kept: dict[str, Tensor] = {}

        def storage(key: str, num_values: int) -> Tensor:
            if key not in kept:
                info = archive.getinfo(names[f"data/{key}"])
                if info.file_size != 4 * num_values:
                    raise ValueError(f"storage {key} has {info.file_size} bytes for {num_values} numbers")
                kept[key] = torch.frombuffer(bytearray(archive.read(info)), dtype=torch.float32)
            return kept[key]

        return _Reader(io.BytesIO(archive.read(names["data.pkl"])), path, storage).load()


def _read_legacy(file: BinaryIO, path: Path) -> Any:
    """The format before torch 1.6: pickles one after the other, then the raw numbers of every storage."""
    file.seek(0)
    kept: dict[str, Tensor] = {}

    def storage(key: str, num_values: int) -> Tensor:
        if key not in kept:
            if num_values * 4 > path.stat().st_size:
                raise ValueError(f"storage {key} is larger than the file")
            kept[key] = torch.empty(num_values, dtype=torch.float32)
        return kept[key]

    def load() -> Any:
        return _Reader(file, path, storage).load()

    if load() != _LEGACY_MAGIC:
        raise ValueError("no magic number")
    load()  # version of the format
    if not load()["little_endian"]:
        raise ValueError("its numbers are big-endian")
    root = load()
    for key in load():
        num_values = int.from_bytes(file.read(8), "little")
        if num_values != len(kept[str(key)]):
            raise ValueError(f"storage {key} has {num_values} numbers, expected {len(kept[str(key)])}")
        kept[str(key)].copy_(torch.frombuffer(bytearray(file.read(4 * num_values)), dtype=torch.float32))
    return root


def _parameters(module: Module, prefix: str) -> dict[str, Tensor]:
    own = module.attributes.get("_parameters") or {}
    found = {prefix + name: value.clone() for name, value in own.items() if isinstance(value, Tensor)}
    for name, child in (module.attributes.get("_modules") or {}).items():
        if isinstance(child, Module):
            found |= _parameters(child, f"{prefix}{name}.")
    return found
