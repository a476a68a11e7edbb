"""A reader of pickles that calls nothing: it interprets the instructions that `torch.save` writes as data.

Python's unpickler can be told which names it may look up, but it still obeys: it sets attributes on what it was handed, lets a
ten-byte file reserve gigabytes for its memo, and dies of a tuple nested deeply enough (a crash of the process, not an exception). Here a
name stays a name, a call stays a note of what would have been called, and memory is bounded by the size of the file.
"""

import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO


class Refused(ValueError):
    """The pickle holds something that the files we read do not."""


@dataclass(frozen=True, slots=True)
class Name:
    """Something that the pickle would import."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """A call that the pickle would make."""

    function: Name
    arguments: tuple[Any, ...]


@dataclass(slots=True, eq=False)
class Instance:
    """An object that the pickle would make, with its attributes."""

    kind: Name
    state: Any = None


@dataclass(frozen=True, slots=True, eq=False)
class Outside:
    """A reference to something outside the pickle; in files of torch, to numbers."""

    key: Any


ORDERED_DICT = Name("collections", "OrderedDict")
_NUMBERS_AND_TEXT = {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE"}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY: dict[str, Callable[[], Any]] = {"EMPTY_TUPLE": tuple, "EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_SET": set}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


def read_pickle(file: BinaryIO, admit: Callable[[Name], None]) -> Any:
    """The object of the pickle that begins at the file's position: plain data, `Name`, `Call`, `Instance` and `Outside`.

    `admit` is shown every name as it comes up, and raises for those that have no business in the file. Leaves the file behind the
    pickle. Raises `Refused` for an instruction that `torch.save` never writes, `ValueError` and others for damage.
    """
    machine = _Machine(admit)
    for opcode, argument, _ in pickletools.genops(file):
        machine.step(opcode.name, argument)
    (result,) = machine.stack
    return result


class _Machine:
    def __init__(self, admit: Callable[[Name], None]) -> None:
        self.admit = admit
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def step(self, opcode: str, argument: Any) -> None:
        stack = self.stack
        if opcode in _NUMBERS_AND_TEXT:
            stack.append(argument)
        elif opcode in _CONSTANTS:
            stack.append(_CONSTANTS[opcode])
        elif opcode in _EMPTY:
            stack.append(_EMPTY[opcode]())
        elif opcode in ("BINPUT", "LONG_BINPUT"):
            self.memo[argument] = stack[-1]
        elif opcode == "MEMOIZE":
            self.memo[len(self.memo)] = stack[-1]
        elif opcode in ("BINGET", "LONG_BINGET"):
            stack.append(self.memo[argument])
        elif opcode == "MARK":
            self.marks.append(len(stack))
        elif opcode == "TUPLE":
            stack.append(tuple(self.from_mark()))
        elif opcode in _TUPLES:
            stack.append(tuple(self.last(_TUPLES[opcode])))
        elif opcode in ("APPEND", "APPENDS"):
            items = self.last(1) if opcode == "APPEND" else self.from_mark()
            self.target(list).extend(items)
        elif opcode in ("SETITEM", "SETITEMS"):
            self.set_items(self.last(2) if opcode == "SETITEM" else self.from_mark())
        elif opcode in ("GLOBAL", "STACK_GLOBAL"):
            self.name(argument.split(" ", 1) if opcode == "GLOBAL" else self.last(2))
        elif opcode in ("REDUCE", "NEWOBJ", "BUILD"):
            self.make(opcode)
        elif opcode == "BINPERSID":
            key = stack.pop()
            has_source = type(key) is tuple and len(key) > 1 and key[0] == "module"  # old files attach the source of each class
            stack.append(key[1] if has_source else Outside(key))
        elif opcode not in ("PROTO", "FRAME", "STOP"):
            raise Refused(f"uses the pickle instruction {opcode}, which torch.save never writes")

    def last(self, count: int) -> list[Any]:
        if len(self.stack) < count:
            raise ValueError("the pickle takes more than it has")
        items = self.stack[-count:]
        del self.stack[-count:]
        return items

    def from_mark(self) -> list[Any]:
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def target(self, kind: type) -> Any:
        if type(self.stack[-1]) is not kind:
            raise Refused(f"fills {_describe(self.stack[-1])} as if it were a {kind.__name__}")
        return self.stack[-1]

    def set_items(self, items: list[Any]) -> None:
        keys, values = items[::2], items[1::2]
        if not all(type(key) in (str, int) for key in keys):  # others might have to be hashed without end
            raise Refused("has a dictionary whose keys are not text")
        self.target(dict).update(zip(keys, values, strict=True))

    def name(self, parts: list[Any]) -> None:
        if len(parts) != 2 or not all(type(part) is str for part in parts):
            raise Refused("names something by other than text")
        name = Name(*parts)
        self.admit(name)
        self.stack.append(name)

    def make(self, opcode: str) -> None:
        target, argument = self.last(2)
        if opcode == "BUILD":
            if type(target) is not Instance:
                raise Refused(f"sets attributes of {_describe(target)}")
            target.state = argument
            self.stack.append(target)
        elif type(target) is not Name or type(argument) is not tuple:
            raise Refused(f"calls {_describe(target)} with {_describe(argument)}")
        elif opcode == "NEWOBJ":
            self.stack.append(Instance(target))
        else:
            self.stack.append({} if target == ORDERED_DICT and not argument else Call(target, argument))


def _describe(value: Any) -> str:
    return str(value) if type(value) is Name else f"a value of type {type(value).__name__}"
