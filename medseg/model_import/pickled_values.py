"""The values in a pickle, read as data: nothing is imported and nothing is called.

A pickle is a program for a small machine. This module follows its instructions as far as tensors, numpy
scalars and plain containers need them, and refuses every name that is not among :data:`KNOWN`. Tensors come
back as descriptions of where their values lie.
"""

from __future__ import annotations

import pickletools
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any

MOST_INSTRUCTIONS = 4_000_000  # a thousand epochs of nnU-Net's log take a hundred thousand
_MOST_COPIED = 32 << 20  # items and bytes that calls may copy, so that a short pickle cannot fill the memory
_DIMENSIONS = 8


class RefusedPickle(ValueError):
    """A pickle that needs more than tensors and plain values; the message says what."""


@dataclass(frozen=True)
class Storage:
    """The numbers that one or more tensors show.

    Attributes:
        kind: Name of its type, such as ``FloatStorage``.
        key: Its name in the file.
        count: How many numbers it has.
    """

    kind: str
    key: str
    count: int


@dataclass(frozen=True)
class TensorPlace:
    """Where the values of a tensor lie.

    Attributes:
        storage: The numbers.
        offset: Number of the first one.
        shape: Size along each axis.
        stride: Step in the storage along each axis.
    """

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


@dataclass(frozen=True)
class _Name:
    module: str
    name: str


@dataclass(frozen=True)
class _NumpyType:
    code: str


KNOWN: dict[tuple[str, str], Callable[..., Any]] = {}
"""What a pickle may name, and what stands for its call."""
_STORAGES = {f"{kind}Storage" for kind in ("Double", "Float", "Half", "BFloat16", "Long", "Int", "Short")}
_STORAGES |= {"CharStorage", "ByteStorage", "BoolStorage"}
_NUMBERS = {"f8": "d", "f4": "f", "f2": "e", "i8": "q", "i4": "i", "i2": "h", "i1": "b"}
_NUMBERS |= {"u8": "Q", "u4": "I", "u2": "H", "u1": "B", "b1": "?"}


def _known(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def keep(function: Callable[..., Any]) -> Callable[..., Any]:
        for name in names:
            module, _, last = name.rpartition(".")
            KNOWN[module, last] = function
        return function

    return keep


@_known("torch._utils._rebuild_tensor_v2")
def _tensor(storage: Any, offset: Any, shape: Any, stride: Any, *_: Any) -> TensorPlace:
    if not isinstance(storage, Storage) or len(shape) != len(stride) or len(shape) > _DIMENSIONS:
        raise RefusedPickle("a tensor without storage or with an impossible shape")
    numbers = (offset, *shape, *stride)
    if any(type(n) is not int or n < 0 for n in numbers):
        raise RefusedPickle("a tensor whose shape is not made of whole numbers")
    if all(shape):
        last = offset + sum((n - 1) * step for n, step in zip(shape, stride, strict=True))
        if last >= storage.count:
            raise RefusedPickle("a tensor that reaches beyond its storage")
    return TensorPlace(storage, offset, tuple(shape), tuple(stride))


@_known("torch._utils._rebuild_parameter")
def _parameter(tensor: Any, *_: Any) -> TensorPlace:
    if not isinstance(tensor, TensorPlace):
        raise RefusedPickle("a parameter that is no tensor")
    return tensor


@_known("collections.OrderedDict")
def _ordered(pairs: Any = ()) -> dict[Any, Any]:
    return {_key(key): value for key, value in pairs}


@_known("_codecs.encode")
def _encoded(text: Any, encoding: Any = "latin1") -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise RefusedPickle("text in an unknown encoding")
    return text.encode("latin1")


@_known("numpy.dtype")
def _dtype(code: Any, *_: Any) -> _NumpyType:
    if code not in _NUMBERS:
        raise RefusedPickle("a numpy type that is no number")
    return _NumpyType(code)


@_known("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
def _scalar(kind: Any, content: Any) -> float | int | bool:
    if not isinstance(kind, _NumpyType) or not isinstance(content, bytes):
        raise RefusedPickle("a numpy scalar that is no number")
    value: float | int | bool = struct.unpack(f"<{_NUMBERS[kind.code]}", content)[0]
    return value


@_known("torch.device")
def _device(kind: Any, index: Any = 0) -> str:
    return f"{kind}:{index}"


@_known("torch.Size")
def _size(numbers: Any) -> tuple[Any, ...]:
    return tuple(numbers)


def pickled_values(stream: IO[bytes]) -> Any:
    """The value of the next pickle of a stream, which is left behind its end.

    Containers, text, numbers, bytes and None; tensors as :class:`TensorPlace`, numpy scalars as numbers.

    Raises:
        RefusedPickle: it names something else, or does something else than make values.
        ValueError: it is not a whole pickle.
    """
    machine = _Machine()
    try:
        for number, (code, argument, _) in enumerate(pickletools.genops(stream)):
            if number > MOST_INSTRUCTIONS:
                raise RefusedPickle(f"more than {MOST_INSTRUCTIONS} instructions")
            machine.step(code.name, argument)
        return machine.result()
    except RefusedPickle:
        raise
    except (ValueError, TypeError, IndexError, KeyError, AttributeError, struct.error) as error:
        raise ValueError(f"not a whole pickle: {type(error).__name__}") from None
    except (OverflowError, RecursionError, UnicodeError, MemoryError) as error:
        raise ValueError(f"not a valid pickle: {type(error).__name__}") from None


class _Machine:
    """The stack and the memory of the pickle machine, for values alone."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memory: dict[int, Any] = {}
        self.copied = 0
        self.done = False

    def result(self) -> Any:
        if not self.done or len(self.stack) != 1:
            raise ValueError("no end")
        return self.stack[0]

    def step(self, name: str, argument: Any) -> None:
        """One instruction."""
        if name in _IGNORED:
            return
        if name in _PUSHED:
            self.stack.append(argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name]())
        elif name in _ACTIONS:
            _ACTIONS[name](self, argument)
        else:
            raise RefusedPickle(f"the instruction {name}")

    def group(self) -> list[Any]:
        """What was pushed since the last mark, which are both removed."""
        at = self.marks.pop()
        values = self.stack[at:]
        del self.stack[at:]
        return values

    def name(self, module: Any, name: Any) -> None:
        whole = (module, name)
        if whole not in KNOWN and not (module in ("torch", "torch.storage") and name in _STORAGES):
            raise RefusedPickle(f"the name {module}.{name}"[:120])
        self.stack.append(_Name(module, name))

    def dotted(self, argument: Any) -> None:
        module, _, name = argument.partition(" ")
        self.name(module, name)

    def named(self, _: Any) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self.name(module, name)

    def reduce(self, _: Any) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if not isinstance(function, _Name) or not isinstance(arguments, tuple):
            raise RefusedPickle("a call of something that is no name")
        if (function.module, function.name) not in KNOWN:
            raise RefusedPickle(f"a call of {function.name}")
        self.copied += sum(
            len(each) for each in arguments if isinstance(each, list | tuple | dict | str | bytes)
        )
        if self.copied > _MOST_COPIED:
            raise RefusedPickle(f"calls with more than {_MOST_COPIED} values")
        self.stack.append(KNOWN[function.module, function.name](*arguments))

    def build(self, _: Any) -> None:
        state, value = self.stack.pop(), self.stack[-1]
        # The version of each module, beside a state dict, and the byte order of a numpy type.
        if isinstance(value, dict) and isinstance(state, dict):
            return
        if isinstance(value, _NumpyType) and isinstance(state, tuple) and state[1] in ("<", "|", "="):
            return
        raise RefusedPickle("the state of an object")

    def persistent(self, _: Any) -> None:
        match self.stack.pop():
            case ("storage", _Name(name=kind), str(key), str(), int(count), *rest) if kind in _STORAGES:
                if count < 0 or any(rest):
                    raise RefusedPickle("a storage that is part of another")
                self.stack.append(Storage(kind, key, count))
            case _:
                raise RefusedPickle("a reference to something that is no storage")

    def append(self, _: Any) -> None:
        value = self.stack.pop()
        self.extended([value])

    def appends(self, _: Any) -> None:
        self.extended(self.group())

    def extended(self, values: list[Any]) -> None:
        if not isinstance(self.stack[-1], list):
            raise RefusedPickle("an entry of something that is no list")
        self.stack[-1].extend(values)

    def set_item(self, _: Any) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self.filled([key, value])

    def set_items(self, _: Any) -> None:
        self.filled(self.group())

    def filled(self, values: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict) or len(values) % 2:
            raise RefusedPickle("an entry of something that is no table")
        for key, value in zip(values[::2], values[1::2], strict=True):
            target[_key(key)] = value

    def grouped(self, make: Callable[[list[Any]], Any]) -> None:
        self.stack.append(make(self.group()))

    def packed(self, count: int) -> None:
        values = tuple(self.stack[len(self.stack) - count :])
        if len(values) != count:
            raise ValueError("an empty stack")
        del self.stack[len(self.stack) - count :]
        self.stack.append(values)

    def stop(self, _: Any) -> None:
        self.done = True


def _key(value: Any) -> Any:
    if not isinstance(value, str | int | float | bool | None):
        raise RefusedPickle("a table whose keys are neither text nor numbers")
    return value


def _table(values: list[Any]) -> dict[Any, Any]:
    return {_key(key): value for key, value in zip(values[::2], values[1::2], strict=True)}


_IGNORED = {"PROTO", "FRAME"}
_PUSHED = {
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "UNICODE",
    "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES",
    "SHORT_BINBYTES", "BINBYTES8",
}  # fmt: skip
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_TUPLE": tuple,
}
_ACTIONS: dict[str, Callable[[_Machine, Any], Any]] = {
    "GLOBAL": _Machine.dotted,
    "STACK_GLOBAL": _Machine.named,
    "REDUCE": _Machine.reduce,
    "BUILD": _Machine.build,
    "BINPERSID": _Machine.persistent,
    "APPEND": _Machine.append,
    "APPENDS": _Machine.appends,
    "SETITEM": _Machine.set_item,
    "SETITEMS": _Machine.set_items,
    "LIST": lambda machine, _: machine.grouped(list),
    "DICT": lambda machine, _: machine.grouped(_table),
    "TUPLE": lambda machine, _: machine.grouped(tuple),
    "TUPLE1": lambda machine, _: machine.packed(1),
    "TUPLE2": lambda machine, _: machine.packed(2),
    "TUPLE3": lambda machine, _: machine.packed(3),
    "MARK": lambda machine, _: machine.marks.append(len(machine.stack)),
    "POP_MARK": lambda machine, _: machine.group(),
    "BINPUT": lambda machine, at: machine.memory.__setitem__(at, machine.stack[-1]),
    "LONG_BINPUT": lambda machine, at: machine.memory.__setitem__(at, machine.stack[-1]),
    "PUT": lambda machine, at: machine.memory.__setitem__(at, machine.stack[-1]),
    "MEMOIZE": lambda machine, _: machine.memory.__setitem__(len(machine.memory), machine.stack[-1]),
    "BINGET": lambda machine, at: machine.stack.append(machine.memory[at]),
    "LONG_BINGET": lambda machine, at: machine.stack.append(machine.memory[at]),
    "GET": lambda machine, at: machine.stack.append(machine.memory[at]),
    "STOP": _Machine.stop,
}
