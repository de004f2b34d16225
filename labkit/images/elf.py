"""The smallest program there is: a static ELF executable that writes one text and ends, put together by hand.

It needs no compiler, no library and no file beside it, so an image may hold it alone.

See:
    elf(5), syscall(2)
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from labkit.errors import LabError

_BASE = 0x400000
_HEADERS = 64 + 56
"""Bytes of the ELF header and of one program header."""


def _amd64(text: int, length: int) -> bytes:
    code = b"\xb8" + struct.pack("<I", 1)  # mov eax, 1: write(2)
    code += b"\xbf" + struct.pack("<I", 1)  # mov edi, 1: standard output
    code += b"\xbe" + struct.pack("<I", text)  # mov esi, the text
    code += b"\xba" + struct.pack("<I", length)  # mov edx, its length
    code += b"\x0f\x05"  # syscall
    code += b"\xb8" + struct.pack("<I", 60)  # mov eax, 60: exit(2)
    return code + b"\x31\xff\x0f\x05"  # xor edi, edi; syscall


def _arm64(text: int, length: int) -> bytes:
    def move(register: int, value: int) -> list[int]:
        low = 0xD2800000 | (value & 0xFFFF) << 5 | register  # movz
        high = 0xF2A00000 | (value >> 16 & 0xFFFF) << 5 | register  # movk, lsl 16
        return [low, high]

    call = 0xD4000001  # svc 0
    words = [*move(0, 1), *move(1, text), *move(2, length), *move(8, 64), call, *move(0, 0), *move(8, 93), call]
    return struct.pack(f"<{len(words)}I", *words)


_MACHINES: dict[str, tuple[int, Callable[[int, int], bytes]]] = {"amd64": (62, _amd64), "arm64": (183, _arm64)}


def program(text: str, architecture: str) -> bytes:
    """Return an executable that writes `text` to its standard output and ends with status 0.

    Raises:
        LabError: the architecture is neither amd64 nor arm64.
    """
    if architecture not in _MACHINES:
        raise LabError(f"no program for {architecture}", cause=f"only for {', '.join(_MACHINES)}")
    machine, assemble = _MACHINES[architecture]
    message = text.encode()
    code = assemble(_BASE + _HEADERS + len(assemble(0, 0)), len(message))
    size = _HEADERS + len(code) + len(message)
    ident = b"\x7fELF" + bytes((2, 1, 1, 0)) + bytes(8)  # 64 bits, little-endian
    header = ident + struct.pack("<HHIQQQIHHHHHH", 2, machine, 1, _BASE + _HEADERS, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, _BASE, _BASE, size, size, 0x1000)  # PT_LOAD, read and execute
    return header + segment + code + message
