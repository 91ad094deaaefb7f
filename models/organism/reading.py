"""YAML into plain values that know their line; bounded, and nothing in a file can make anything but data."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeAlias

import yaml

from models.errors import Fault, Path

MOST_BYTES: Final = 1_000_000
MOST_VALUES: Final = 100_000
MOST_LETTERS: Final = 2_500_000
MOST_LEVELS: Final = 40
_LARGEST: Final = 2**53 - 1

# libyaml where it is there: a file of 250 kB takes 0.1 s instead of 1.0 s. Only its events are used: what builds Python
# objects out of tags is not even asked.
_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# The words of YAML 1.2's core schema. In 1.1 `no` would be false, 12:30 the number 750 and a date no JSON.
_NULL: Final = frozenset({"", "~", "null", "Null", "NULL"})
_BOOL: Final = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INT: Final = re.compile(r"[-+]?[0-9]+\Z", re.ASCII)
_FLOAT: Final = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?\Z", re.ASCII)
_LONGEST_NUMBER: Final = 30
_LONGEST_STEP: Final = 100
_LONGEST_MESSAGE: Final = 500
_BROKEN: Final = re.compile("[\x00\ud800-\udfff]")

Value: TypeAlias = "dict[str, Node] | list[Node] | str | int | float | bool | None"


@dataclass(frozen=True, slots=True)
class Node:
    """A value and the line where it stands; of one in a mapping, where its key does."""

    value: Value
    line: int
    size: int = 1
    """How many values it is written out, aliases followed; long texts and keys count as several."""
    levels: int = 0
    """How many levels deep it is."""

    def at(self, path: Sequence[str | int]) -> "Node":
        """Find what stands at a path, or the last that does on the way there."""
        node = self
        for step in path:
            if not isinstance(node.value, dict | list):
                break
            inside: Any = node.value
            try:
                node = inside[step]
            except (LookupError, TypeError):
                break
        return node

    def items(self, key: str) -> Sequence["Node"]:
        """Give what stands in the list under a key; nothing where there is no list."""
        inside = self.value.get(key) if isinstance(self.value, dict) else None
        return inside.value if inside and isinstance(inside.value, list) else []

    def text(self, key: str) -> str | None:
        """Give the text under a key, without the white space around it; None where there is none."""
        inside = self.value.get(key) if isinstance(self.value, dict) else None
        return inside.value.strip() if inside and isinstance(inside.value, str) else None


def plain(node: Node) -> Any:  # noqa: ANN401  # any JSON
    """Give the value without its lines."""
    if isinstance(node.value, dict):
        return {key: plain(each) for key, each in node.value.items()}
    if isinstance(node.value, list):
        return [plain(each) for each in node.value]
    return node.value


@dataclass(slots=True)
class _Open:
    """A list or a mapping that is being read."""

    value: dict[str, Node] | list[Node]
    line: int
    anchor: str | None
    size: int = 1
    levels: int = 0
    key: str | None = None
    key_line: int = 0
    wants_value: bool = False


@dataclass(slots=True)
class Reader:
    """Reads one file and collects what is wrong with it."""

    faults: list[tuple[Path, int, str]] = field(default_factory=list)
    _open: list[_Open] = field(default_factory=list)
    _anchors: dict[str, Node] = field(default_factory=dict)
    _root: Node | None = None

    def read(self, content: bytes) -> Node | None:
        """Read the only document of a file; None when it cannot be read to its end."""
        if len(content) > MOST_BYTES:
            self._say(1, f"The file is larger than {MOST_BYTES:,} bytes.")
            return None
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            self._say(content.count(b"\n", 0, error.start) + 1, "This is not UTF-8.")
            return None
        if unfit := yaml.reader.Reader.NON_PRINTABLE.search(text):
            self._say(text.count("\n", 0, unfit.start()) + 1, "A control character stands here.")
            return None
        try:
            whole = self._follow(yaml.parse(text, Loader=_LOADER))
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            self._say(mark.line + 1 if mark else 1, f"This is not YAML: {error.problem or error.context}.")
            return None
        if whole and self._root is None:
            self._say(1, "The file is empty.")
            return None
        return self._root if whole else None

    def _follow(self, events: Iterator[Any]) -> bool:
        for event in events:
            line = event.start_mark.line + 1
            if isinstance(event, yaml.DocumentStartEvent) and self._root:
                self._say(line, "A file has one document; a second one begins here.")
                return False
            if getattr(event, "tag", None) is not None:
                self._say(line, f"Tags like {event.tag[:50]} are not read. Leave it out.")
            if isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
                if self._open and self._is_key(self._open[-1]):
                    self._say(line, "A key is text, not a list or a mapping.")
                    return False
                empty: dict[str, Node] | list[Node] = {} if isinstance(event, yaml.MappingStartEvent) else []
                self._open.append(_Open(empty, line, event.anchor))
                if len(self._open) > MOST_LEVELS:
                    self._say(line, f"It is more than {MOST_LEVELS} levels deep here.")
                    return False
            elif (node := self._node(event, line)) is not None and not self._put(node, event):
                return False
        return True

    def _node(self, event: Any, line: int) -> Node | None:  # noqa: ANN401  # PyYAML has no type for all events
        if isinstance(event, yaml.ScalarEvent):
            size = 1 + len(event.value) * MOST_VALUES // MOST_LETTERS
            return self._keep(event.anchor, Node(self._scalar(event, line), line, size))
        if isinstance(event, yaml.AliasEvent):
            known = self._anchors.get(event.anchor or "")
            if known is None:
                self._say(line, f"There is no finished anchor &{event.anchor} before this.")
            return replace(known, line=line) if known else Node(None, line)
        if isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
            done = self._open.pop()
            return self._keep(done.anchor, Node(done.value, done.line, done.size, done.levels))
        return None

    def _keep(self, anchor: str | None, node: Node) -> Node:
        if anchor is not None:
            self._anchors[anchor] = node
        return node

    def _put(self, node: Node, event: Any) -> bool:  # noqa: ANN401  # as above
        if not self._open:
            self._root = node
            return True
        into = self._open[-1]
        if self._is_key(into):
            into.size += node.size - 1
            self._key(into, node, event)
            return True
        into.size += node.size
        into.levels = max(into.levels, node.levels + 1)
        if into.size > MOST_VALUES or len(self._open) + node.levels > MOST_LEVELS:
            # Each alias counts as what it stands for: some lines of them may stand for billions of values or letters.
            size = f"{MOST_VALUES:,} values, {MOST_LETTERS:,} letters or {MOST_LEVELS} levels"
            self._say(node.line, f"Written out, it is more than {size} here.")
            return False
        if isinstance(into.value, list):
            into.value.append(node)
        else:
            if into.key is not None:
                into.value[into.key] = replace(node, line=into.key_line)
            into.wants_value, into.key = False, None
        return True

    @staticmethod
    def _is_key(into: _Open) -> bool:
        return isinstance(into.value, dict) and not into.wants_value

    def _key(self, into: _Open, node: Node, event: Any) -> None:  # noqa: ANN401  # as above
        into.wants_value, into.key_line = True, node.line
        if isinstance(node.value, str) and not (node.value == "<<" and event.implicit[0]):
            into.key = node.value
            if node.value in into.value:
                self._say(node.line, "This key is given twice.")
        elif node.value == "<<":
            self._say(node.line, "Merge keys (<<) are not read. Write it out.")
        else:
            self._say(node.line, "A key is text. Put it in quotes.")

    def _scalar(self, event: Any, line: int) -> str | int | float | bool | None:  # noqa: ANN401  # as above
        text: str = event.value
        if _BROKEN.search(text):
            self._say(line, "NUL and broken Unicode are not text.")
            return ""
        if not event.implicit[0]:
            return text
        if text in _NULL:
            return None
        if text in _BOOL:
            return _BOOL[text]
        return self._number(text, line)

    def _number(self, text: str, line: int) -> str | int | float:
        whole = _INT.match(text)
        if not whole and not _FLOAT.match(text):
            return text
        number = (int if whole else float)(text) if len(text) <= _LONGEST_NUMBER else float("inf")
        if abs(number) > _LARGEST:
            self._say(line, "This number is out of reach. Put it in quotes if it is text.")
            return 0
        return number

    def _say(self, line: int, message: str) -> None:
        path = (len(each.value) if isinstance(each.value, list) else each.key for each in self._open)
        self.faults.append((tuple(step for step in path if step is not None), line, message))


def told(faults: Sequence[tuple[Path, int, str]], *, most: int = 100) -> list[Fault]:
    """Write faults as people read them, by line, each once; the first hundred."""
    ordered = sorted(dict.fromkeys(faults), key=lambda each: each[1])
    return [
        Fault(
            tuple(step if isinstance(step, int) else step[:_LONGEST_STEP] for step in path) or ("file",),
            f"Line {line}: {message[:_LONGEST_MESSAGE]}",
        )
        for path, line, message in ordered[:most]
    ]
