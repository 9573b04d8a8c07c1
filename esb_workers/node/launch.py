"""Start a program that dies with its parent, if need be as another user.

Runs as a script of its own (`python -I -S launch.py …`), uses the standard library alone, and ends by becoming
the program (`exec`), so the process id and the command line are the program's. The kernel's parent-death
signal does the tying: it reaches the program however the parent ends. It is tied to the parent's *thread*,
so programs are started from threads that live as long as the parent, and in practice from the main one.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_KEEPCAPS: Final = 8
_PR_SET_SECUREBITS: Final = 28
_SECBIT_NO_SETUID_FIXUP: Final = 1 << 2
_PR_CAP_AMBIENT: Final = 47
_PR_CAP_AMBIENT_RAISE: Final = 2
_CAPABILITY_VERSION_3: Final = 0x20080522
_CAP_DAC_OVERRIDE: Final = 1
_CAP_DAC_READ_SEARCH: Final = 2


class User(NamedTuple):
    """The user and group a program runs as."""

    uid: int
    gid: int


def tied(
    command: Sequence[str],
    death_signal: signal.Signals,
    user: User | None = None,
    environ: Mapping[str, str] | None = None,
) -> list[str]:
    """The command that starts `command` as `user`, to get `death_signal` when the calling process ends.

    `environ`: variables that it has besides; no comma may be in them.
    """
    who = f"{user.uid}:{user.gid}" if user else "-"
    variables = ",".join(f"{name}={value}" for name, value in (environ or {}).items()) or "-"
    launcher = [sys.executable, "-I", "-S", os.path.abspath(__file__)]
    return [*launcher, str(os.getpid()), str(int(death_signal)), who, variables, *command]


def _main(argv: Sequence[str]) -> None:
    parent, death_signal, who, variables, *command = argv
    if variables != "-":
        for name, _, value in (variable.partition("=") for variable in variables.split(",")):
            os.environ[name] = value
    if who != "-":
        uid, gid = map(int, who.split(":"))
        try:
            _become(User(uid, gid))
        except OSError as error:
            sys.exit(
                f"cannot become user {uid}, as a server that refuses root must ({error}): start the bus as that user"
            )
    if sys.platform == "linux":
        # After the change of user: that clears it.
        _libc("prctl", _PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0)
    if os.getppid() != int(parent):
        sys.exit("the starting process has ended")
    try:
        os.execv(command[0], command)
    except OSError as error:
        sys.exit(f"cannot start {command[0]}: {error.strerror}")


def _become(user: User) -> None:
    """Change to `user`, keeping the one capability that lets it pass folders only root may enter.

    PostgreSQL refuses root, yet its binaries and its data may lie below /root or another closed folder. Opening
    those folders to everyone would be the alternative; they are not ours.
    """
    capability = _file_capability()
    if capability is not None:
        _libc("prctl", _PR_SET_KEEPCAPS, 1, 0, 0, 0)
        _let_access_see_capabilities()
    os.setgroups([])
    os.setresgid(user.gid, user.gid, user.gid)
    os.setresuid(user.uid, user.uid, user.uid)
    if capability is not None:
        _keep_only(capability)


def _let_access_see_capabilities() -> None:
    """Have access(2) count the capability as open(2) does: initdb looks for its fellow programs that way."""
    try:
        _libc("prctl", _PR_SET_SECUREBITS, _SECBIT_NO_SETUID_FIXUP, 0, 0, 0)
    except PermissionError:
        pass  # without CAP_SETPCAP: enough as long as the programs themselves are open to everyone


def _file_capability() -> int | None:
    """The capability to be kept: the one that also executes a root-only binary, else the one that reads."""
    if sys.platform != "linux":
        return None
    held = _permitted_capabilities()
    return next((cap for cap in (_CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH) if held >> cap & 1), None)


def _permitted_capabilities() -> int:
    with open("/proc/self/status", encoding="ascii", errors="replace") as status:
        for line in status:
            if line.startswith("CapPrm:"):
                return int(line.split()[1], 16)
    return 0


class _CapabilityHeader(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _CapabilityWord(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


def _keep_only(capability: int) -> None:
    """Hold `capability` alone, and hand it on over `exec` (an "ambient" capability, Linux 4.3)."""
    bit = 1 << capability
    header = _CapabilityHeader(_CAPABILITY_VERSION_3, 0)
    words = (_CapabilityWord * 2)(_CapabilityWord(bit, bit, bit), _CapabilityWord(0, 0, 0))
    _libc("capset", ctypes.byref(header), ctypes.byref(words))
    _libc("prctl", _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, capability, 0, 0)


def _libc(function: str, *args: object) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    longs = [ctypes.c_ulong(arg) if isinstance(arg, int) else arg for arg in args]
    if getattr(libc, function)(*longs) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{function}: {os.strerror(code)}")


if __name__ == "__main__":
    _main(sys.argv[1:])
