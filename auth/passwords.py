"""Argon2id off the event loop; old bcrypt hashes are recognised and upgraded."""

import asyncio
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import TracebackType
from typing import Final, Literal, ParamSpec, Self, TypeVar

from passlib.context import CryptContext

from models.errors import Fault

P = ParamSpec("P")
T = TypeVar("T")

Cost = Literal["standard", "cheap"]

SHORTEST: Final = 8
LONGEST: Final = 128
# OWASP's first choice for Argon2id: 19 MiB, two passes, one lane.
_COSTS: Final[dict[Cost, dict[str, int]]] = {
    "standard": {"argon2__memory_cost": 19_456, "argon2__time_cost": 2, "argon2__parallelism": 1},
    "cheap": {"argon2__memory_cost": 64, "argon2__time_cost": 1, "argon2__parallelism": 1},
}
_COMMON: Final = frozenset(
    {"password", "password1", "12345678", "123456789", "1234567890", "qwertyuiop", "iloveyou", "11111111", "agenthub"}
)
_BCRYPT_READS: Final = 72
_PASSLIB_READS: Final = 4096
# NUL, at which bcrypt stops, and lone surrogates, which UTF-8 cannot hold.
_UNFIT: Final = re.compile("[\x00\ud800-\udfff]")
_FEWEST_CHARACTERS: Final = 4


class Passwords:
    """Hashes and checks passwords on two threads of its own: a check takes tens of milliseconds of CPU."""

    def __init__(self, cost: Cost = "standard") -> None:
        """`cost`: "cheap" is for tests alone."""
        # Longer than any check takes: bcrypt's a third of a second. Who fails waits as long, whatever was checked.
        self.failing_takes_s = 0.6 if cost == "standard" else 0.0
        self._context = CryptContext(schemes=["argon2", "bcrypt"], deprecated=["bcrypt"], **_COSTS[cost])
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="passwords")
        # What an unknown e-mail's password is checked against, so that it takes as long as a known one's.
        self._nobody = self._context.hash("nobody has this password")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._threads.shutdown(cancel_futures=True)

    async def hash(self, password: str) -> str:
        """Hash a password."""
        hashed: str = await self._off_loop(self._context.hash, password)
        return hashed

    async def check(self, password: str, hashed: str | None) -> tuple[bool, str | None]:
        """Say whether a password is right, and give the hash to store instead where the old one is out of date."""
        right, better = await self._off_loop(self._check, password, hashed)
        return right and hashed is not None, better

    def _check(self, password: str, hashed: str | None) -> tuple[bool, str | None]:
        if len(password) > _PASSLIB_READS or _UNFIT.search(password):
            # Nobody has such a one; passlib raises for some of them, and for some hashes only, which would tell.
            return False, None
        hashed = hashed or self._nobody
        if hashed.startswith("$2"):
            # bcrypt reads 72 bytes and newer versions refuse more; the old system cut them off.
            cut = password.encode()[:_BCRYPT_READS]
            right = self._context.verify(cut, hashed)
            return right, self._context.hash(password) if right else None
        right, better = self._context.verify_and_update(password, hashed)
        return right, better

    async def _off_loop(self, work: Callable[P, T], *arguments: P.args, **_: P.kwargs) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, partial(work, *arguments))


def faults(password: str, *, email: str, field: str = "password") -> list[Fault]:
    """Say what is wrong with a new password; nothing for a good one."""
    plain = password.casefold()
    message = None
    if not SHORTEST <= len(password) <= LONGEST:
        message = f"A password has {SHORTEST} to {LONGEST} characters."
    elif _UNFIT.search(password):
        message = "A password cannot hold a NUL character or broken Unicode."
    elif plain in _COMMON or plain == email.casefold() or len(set(plain)) < _FEWEST_CHARACTERS:
        message = "This password is too easy to guess."
    return [Fault((field,), message)] if message else []
