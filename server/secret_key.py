"""The key that signs tokens: one that can be guessed is refused, and a demo makes one of its own."""

import os
import secrets
from pathlib import Path

from models.errors import Refused

_SHORTEST_SECRET = 32
# Long enough, and printed in tutorials and examples all over the world.
_KNOWN_SECRETS = frozenset(
    {
        "09d25e094faa6ca2556c818166b7a9563b93f7099f6f0f4caa6cf63b88e8d3e7",
        "your-secret-key-change-in-production",
        "your-secret-key-change-this-in-production",
        "your-super-secret-key-change-in-production",
        "change-this-secret-key-in-production",
    }
)
_FEWEST_CHARACTERS = 8


def checked(key: str | None) -> str:
    """Give the key. Raises `Refused` for a missing, short or well-known one."""
    if key is None:
        raise Refused(
            "SECRET_KEY is not set. Give it 32 random bytes or more, for example from `openssl rand -hex 32`, "
            "or start with --demo to try things out."
        )
    if len(key.encode()) < _SHORTEST_SECRET:
        raise Refused(f"SECRET_KEY is too short: it has {len(key.encode())} bytes and needs {_SHORTEST_SECRET}.")
    if key.lower() in _KNOWN_SECRETS or len(set(key)) < _FEWEST_CHARACTERS:
        raise Refused("SECRET_KEY can be guessed. Make one with `openssl rand -hex 32`.")
    return key


def kept(path: Path) -> str:
    """Give the key that a file holds, made when there is none."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            # Written whole under another name first, so that a second process never reads half a key.
            draft = path.with_name(f"{path.name}.{os.getpid()}")
            with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
                file.write(secrets.token_hex(32))
            os.link(draft, path)
        except FileExistsError:
            pass
        finally:
            draft.unlink(missing_ok=True)
        return path.read_text().strip()
    except OSError as error:
        raise Refused(f"The data directory {path.parent} cannot be used: {error.strerror}.") from None
