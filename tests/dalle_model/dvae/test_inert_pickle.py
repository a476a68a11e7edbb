"""What a pickle may do to its reader, tried on ours: nothing is called, changed, or made larger than the file."""

import copyreg
import io
import pickle
import resource
import struct
import subprocess
import sys
import zipfile

import pytest
import torch
from torch import nn

from dalle_model.dvae.inert_pickle import Call, Instance, Name, Outside, Refused, read_pickle
from dalle_model.dvae.openai import read_module

FLOATS = b"ctorch\nFloatStorage\n"
SEQUENTIAL = b"ctorch.nn.modules.container\nSequential\n"
REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n"


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def tensor(size: bytes, stride: bytes, num_values: int = 4) -> bytes:
    """A call of _rebuild_tensor_v2 for storage 0; `size` and `stride` are instructions that leave a tuple."""
    storage = b"(" + text("storage") + FLOATS + text("0") + text("cpu") + b"J" + struct.pack("<i", num_values) + b"tQ"
    return REBUILD + b"(" + storage + b"K\x00" + size + stride + b"tR"


def module(parameters: bytes = b"}", children: bytes = b"}") -> bytes:
    return SEQUENTIAL + b")\x81}(" + text("_parameters") + parameters + text("_modules") + children + b"ub"


def write(path, pickled: bytes, storage: bytes = b"\0" * 16, compression: int = zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + pickled + b".")
        archive.writestr("archive/data/0", storage)
    return path


def admit_all(name):
    pass


def read(pickled: bytes):
    return read_pickle(io.BytesIO(pickled), admit_all)


def test_a_good_file_is_read_to_its_numbers(tmp_path):
    parameters = b"}(" + text("w") + tensor(b"K\x02K\x02\x86", b"K\x02K\x01\x86") + b"u"
    path = write(tmp_path / "e.pkl", module(parameters), struct.pack("<4f", 1, 2, 3, 4))
    assert read_module(path)["w"].tolist() == [[1, 2], [3, 4]]


def test_calls_and_objects_stay_notes():
    call = read(pickle.dumps(Runs(print, "called"), 2))
    assert isinstance(call, Call)
    assert (call.function, call.arguments) == (Name("__builtin__", "print"), ("called",))
    assert isinstance(read(b"\x80\x02" + module() + b"."), Instance)
    reference = read(b"\x80\x02" + text("k") + b"Q.")
    assert isinstance(reference, Outside)
    assert reference.key == "k"


class Runs:
    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("nesting", [lambda x: x, lambda x: {"a": [(x,)]}, lambda x: Runs(list, [x]), lambda x: Runs(getattr, x, "y")])
def test_a_hostile_call_is_refused_however_deep_and_in_every_protocol(tmp_path, protocol, nesting):
    path = tmp_path / "encoder.pkl"
    path.write_bytes(pickle.dumps(nesting(Runs(exec, f"open({str(tmp_path / 'executed')!r}, 'w')")), protocol))
    with pytest.raises(Refused, match=r"encoder\.pkl (names|uses) .*; it was not executed\. Do not load this file"):
        read_module(path)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("pickled", "message"),
    [
        (b"(i__builtin__\neval\n.", "uses the pickle instruction INST"),
        (b"(" + SEQUENTIAL + b"o.", "uses the pickle instruction OBJ"),
        (b"\x80\x02\x82\x01.", "uses the pickle instruction EXT1"),
        (b"\x80\x02\x83\x01\x00.", "uses the pickle instruction EXT2"),
        (b"\x80\x02\x84\x01\x00\x00\x00.", "uses the pickle instruction EXT4"),
        (b"Pstorage\n.", "uses the pickle instruction PERSID"),
        (b"\x80\x04)}\x92.", "uses the pickle instruction NEWOBJ_EX"),
        (b"\x80\x05\x97.", "uses the pickle instruction NEXT_BUFFER"),
        (b"\x80\x02K\x012.", "uses the pickle instruction DUP"),
        (b"\x80\x02K\x010.", "uses the pickle instruction POP"),
        (b"\x80\x02" + FLOATS + b"}b.", r"sets attributes of torch\.FloatStorage"),
        (b"\x80\x02" + REBUILD + b"N}" + text("__defaults__") + b"Ns\x86b.", r"sets attributes of torch\._utils\._rebuild_tensor_v2"),
        (b"\x80\x02}" + text("__class__") + b"}sb.", "the pickle takes more than it has"),
        (b"\x80\x02]}b.", "sets attributes of a value of type list"),
        (b"\x80\x02" + text("os") + b")R.", r"calls a value of type str with a value of type tuple"),
        (b"\x80\x02" + FLOATS + b"}R.", r"calls torch\.FloatStorage with a value of type dict"),
        (b"\x80\x02" + FLOATS + b")R)R.", "calls a value of type Call"),
        (b"\x80\x02K\x01K\x02\x93.", "names something by other than text"),
        (b"\x80\x02)K\x01a.", "fills a value of type tuple as if it were a list"),
        (b"\x80\x02" + SEQUENTIAL + text("x") + b"K\x01s.", "fills torch.nn.modules.container.Sequential as if it were a dict"),
        (b"\x80\x02})K\x01s.", "has a dictionary whose keys are not text"),
    ],
)
def test_every_other_way_to_reach_something_is_refused(tmp_path, pickled, message):
    path = tmp_path / "encoder.pkl"
    path.write_bytes(pickled)
    with pytest.raises(ValueError, match=message):
        read_module(path)


def test_names_registered_as_extensions_are_not_looked_up(tmp_path):
    copyreg.add_extension("os", "system", 77)
    try:
        (tmp_path / "encoder.pkl").write_bytes(b"\x80\x02\x82\x4dX\x04\x00\x00\x00true\x85R.")
        with pytest.raises(Refused, match="uses the pickle instruction EXT1"):
            read_module(tmp_path / "encoder.pkl")
    finally:
        copyreg.remove_extension("os", "system", 77)


def test_a_torch_script_archive_is_refused(tmp_path):
    torch.jit.script(nn.Linear(2, 2)).save(str(tmp_path / "encoder.pkl"))
    with pytest.raises(Refused, match=r"names __torch__\.torch\.nn\.modules\.linear\.Linear"):
        read_module(tmp_path / "encoder.pkl")


@pytest.mark.parametrize(
    ("size", "stride", "num_values"),
    [
        (b"J\xff\xff\xff\x7f\x85", b"K\x00\x85", 4),
        (b"J\xff\xff\xff\x7fJ\xff\xff\xff\x7f\x86", b"K\x00K\x00\x86", 4),
        (b"K\x04\x85", b"K\x01\x85", 2**31 - 1),
    ],
    ids=["one number said to be two thousand million", "its square", "a large storage"],
)
def test_more_numbers_than_the_file_has_are_refused_before_memory_is_taken(tmp_path, size, stride, num_values):
    path = write(tmp_path / "encoder.pkl", module(b"}(" + text("w") + tensor(size, stride, num_values) + b"u"))
    with pytest.raises(Refused, match="describes more numbers than it has"):
        read_module(path)


def test_numbers_used_over_and_over_are_refused(tmp_path):
    one = tensor(b"K\x04\x85", b"K\x01\x85")
    parameters = b"}(" + b"".join(text(f"w{i}") + one for i in range(10_000)) + b"u"
    path = write(tmp_path / "encoder.pkl", module(parameters), b"\0" * 16)
    assert path.stat().st_size > 10_000 * 16, "these uses of four numbers cost more bytes than they make"
    path = write(tmp_path / "encoder.pkl", module(parameters.replace(b"J\4\0\0\0", b"J\0\4\0\0")), b"\0" * 4_096)
    with pytest.raises(Refused, match="describes more numbers than it has"):
        read_module(path)


@pytest.mark.parametrize(
    ("size", "stride", "message"),
    [
        (b"K\x05\x85", b"K\x01\x85", "not a module saved by torch.save"),
        (b"J\xff\xff\xff\xff\x85", b"K\x01\x85", "describes more numbers than it has"),
        (b"K\x04\x85", b"J\xff\xff\xff\xff\x85", "not a module saved by torch.save"),
        (b")", b")", "holds numbers of 0 dimensions"),
        (text("4") + b"\x85", b"K\x01\x85", "not a module saved by torch.save"),
    ],
    ids=["beyond the storage", "negative size", "negative stride", "no dimension", "text for a size"],
)
def test_numbers_outside_of_their_storage_are_refused(tmp_path, size, stride, message):
    path = write(tmp_path / "encoder.pkl", module(b"}(" + text("w") + tensor(size, stride) + b"u"))
    with pytest.raises(ValueError, match=message):
        read_module(path)


def test_a_zip_bomb_is_refused_unopened(tmp_path):
    path = write(tmp_path / "encoder.pkl", module() + b"0" * 2**24, compression=zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 2**16
    with pytest.raises(Refused, match=r"has a compressed member data\.pkl, which torch\.save never writes"):
        read_module(path)


def test_a_module_inside_itself_or_in_many_places_is_refused(tmp_path):
    itself = SEQUENTIAL + b")\x81q\x00}(" + text("_modules") + b"}" + text("0") + b"h\x00s" + b"ub"
    with pytest.raises(Refused, match="has the same module in two places"):
        read_module(write(tmp_path / "encoder.pkl", itself))
    leaf = module()
    for level in range(40):  # two of each on every level: 2**40 modules to visit
        leaf = module(children=b"}(" + text("a") + leaf + b"q" + bytes([level]) + text("b") + b"h" + bytes([level]) + b"u")
    with pytest.raises(Refused, match="has the same module in two places"):
        read_module(write(tmp_path / "encoder.pkl", leaf))


@pytest.mark.parametrize(
    "root",
    [SEQUENTIAL + b")\x81", SEQUENTIAL + b")\x81Nb", SEQUENTIAL, SEQUENTIAL + b")R", b"}", b"N", b"ctorch\ndevice\n)\x81}b"],
    ids=["without attributes", "attributes are none", "a class", "a call", "a dict", "none", "no network"],
)
def test_what_is_no_network_is_refused(tmp_path, root):
    with pytest.raises(Refused, match=r"holds .* where a network should be"):
        read_module(write(tmp_path / "encoder.pkl", root))


def test_a_parameter_that_is_none_is_left_out_and_one_that_is_no_tensor_refused(tmp_path):
    assert read_module(write(tmp_path / "encoder.pkl", module(b"}" + text("b") + b"Ns"))) == {}
    with pytest.raises(Refused, match=r"holds a value of type int where a parameter should be"):
        read_module(write(tmp_path / "encoder.pkl", module(b"}" + text("b") + b"K\x01s")))


IN_A_CHILD = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (6 * 2**30, 6 * 2**30))
from pathlib import Path
from dalle_model.dvae.openai import read_module
for path in sys.argv[1:]:
    try:
        read_module(Path(path))
    except ValueError as error:
        print("refused:", error)
"""
DEADLY = {
    "a key nested a million deep": b"\x80\x02" + b")" + b"\x85" * 1_000_000 + b"q\x00}h\x00K\x01s.",
    "a memo of 16 GB": b"\x80\x02]r\xff\xff\xff\x7f.",
    "lists nested half a million deep": b"\x80\x02" + b"]" * 500_000 + b"a" * 499_999 + b".",
    "bytes of 256 TB": b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\x00\x00.",
    "a frame of 256 TB": b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\x00\x00.",
    "a number of 2 GB": b"\x80\x02\x8b\xff\xff\xff\x7f.",
}


def test_nothing_kills_the_process_that_reads(tmp_path):
    for name, pickled in DEADLY.items():
        (tmp_path / name).write_bytes(pickled)
    command = [sys.executable, "-c", IN_A_CHILD, *(str(tmp_path / name) for name in DEADLY)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, f"{done.stdout[-300:]} {done.stderr[-300:]}"
    assert done.stdout.count("refused:") == len(DEADLY)
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss < 4 * 2**20, "KiB"
