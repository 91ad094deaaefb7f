"""The organism's file: what it may say, each fault with its line, and nothing that makes anything but a clear fault."""

import json
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from models.errors import BadInput
from models.organism.declaring import declared

WHOLE = """\
name: Harbour Desk
description: |
  Answers guests.
budget:
  maxTokens: 50000
capabilities:
  - name: translate
    description: Between languages.
    schema: {type: object, required: [text]}
    example: {text: Guten Tag}
agents:
  - name: Greeter
    description: Says hello.
    peers: [Scribe]
    capabilities: [translate]
    endpoint: https://greeter:secret@agents.example.com/inbox?token=hidden
    payloadTypes:
      - &task
        name: task
        description: Work to do.
        schema: {type: object, properties: {text: {type: string}}}
        example: {text: Hello}
  - name: Scribe
    isAgent: false
    payloadTypes: [*task]
alertRules:
  - name: Chatty
    metric: MESSAGES
    window: DAY
    threshold: 100
    percents: [80, 100]
    agent: Scribe
    channels: [EMAIL]
"""


def faults(text: str | bytes) -> list[str]:
    """Give what a file is refused for."""
    with pytest.raises(BadInput) as refused:
        declared(text if isinstance(text, bytes) else text.encode())
    return [fault.message for fault in refused.value.faults]


def test_a_file_is_read_as_it_stands() -> None:
    read = declared(WHOLE.encode())

    greeter, scribe = read.agents
    assert (read.name, read.description, read.budget) == ("Harbour Desk", "Answers guests.", 50_000)
    assert (greeter.name, greeter.peers, greeter.capabilities, greeter.is_agent) == (
        "Greeter", ["Scribe"], ["translate"], True,
    )  # fmt: skip
    assert scribe.is_agent is False
    assert scribe.payload_types == greeter.payload_types
    assert json.loads(greeter.payload_types[0].example or "") == {"text": "Hello"}
    assert [each.name for each in read.capabilities] == ["translate"]
    assert [(each["name"], each["threshold"], each["agent"]) for each in read.alert_rules] == [
        ("Chatty", 100, "Scribe")
    ]


def test_the_words_of_yaml_1_2_are_read_and_no_others() -> None:
    values = "[no, on, 12:30, 2026-01-01, 0x1f, 1_000, .inf, true, ~, 1.5, -3]"
    example = f"name: x\ncapabilities: [{{name: c, schema: true, example: {values}}}]"

    read = json.loads(declared(example.encode()).capabilities[0].example or "")

    assert read == ["no", "on", "12:30", "2026-01-01", "0x1f", "1_000", ".inf", True, None, 1.5, -3]


def agent(*lines: str) -> str:
    return "\n".join(["name: x", "agents:", "  - name: A", *(f"    {line}" for line in lines)])


def rule(**values: Any) -> str:
    return "name: x\nalertRules:\n  - " + json.dumps(
        {"name": "r", "metric": "MESSAGES", "window": "DAY", "threshold": 5, **values}
    )


NO_PATTERN = "is no regular expression that is read here, where none has look-around or back-references."
TOO_MUCH = "Written out, it is more than 100,000 values, 2,500,000 letters or 40 levels here."
CORPUS: dict[str, tuple[str | bytes, list[str]]] = {
    "nothing": ("", ["Line 1: The file is empty."]),
    "only a comment": ("# to do", ["Line 1: The file is empty."]),
    "no mapping": ("- a", ["Line 1: A mapping of keys to values is expected here."]),
    "no name": ("agents: []", ["Line 1: `name` is missing here."]),
    "an unknown key": (
        "name: x\nagnets: []", ["Line 2: There is no key `agnets` here. Leave it out, or mend its spelling."],
    ),
    "syntax": ("name: x\nagents: [", ["Line 3: This is not YAML: did not find expected node content."]),
    "tabs": (
        "name: x\nagents:\n\t- name: A", ["Line 3: This is not YAML: found character that cannot start any token."],
    ),
    "two documents": ("name: x\n---\nname: y", ["Line 2: A file has one document; a second one begins here."]),
    "a key given twice": ("name: x\nname: y", ["Line 2: This key is given twice."]),
    "a key that is no text": ("name: x\n1: y", ["Line 2: A key is text. Put it in quotes."]),
    "a key that is a list": ("name: x\n[a]: y", ["Line 2: A key is text, not a list or a mapping."]),
    "a merge key": ("name: x\n<<: {}", ["Line 2: Merge keys (<<) are not read. Write it out."]),
    "a tag": (
        "name: !!python/object/apply:os.system [ls]",
        ["Line 1: Tags like tag:yaml.org,2002:python/object/apply:os.system are not read. Leave it out.",
         "Line 1: Input should be a valid string"],
    ),
    "an unknown alias": (
        "name: *x",
        ["Line 1: Input should be a valid string", "Line 1: There is no finished anchor &x before this."],
    ),
    "an alias of itself": (
        "name: x\nagents: &a [*a]",
        ["Line 2: A mapping of keys to values is expected here.",
         "Line 2: There is no finished anchor &a before this."],
    ),
    "a bomb": (
        "a: &a [x, x, x, x, x, x, x, x, x, x]\n"
        + "".join(
            f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
        ),
        [f"Line 5: {TOO_MUCH}"],
    ),
    "a bomb of letters": (
        f"name: x\ndescription: &a {'x' * 400_000}\nagents:\n" + "  - *a\n" * 20_000, [f"Line 10: {TOO_MUCH}"],
    ),
    "a bomb of keys": (
        f'name: x\nagents:\n  - &a {{"{"x" * 1000}": 1}}\n' + "  - *a\n" * 20_000, [f"Line 2383: {TOO_MUCH}"],
    ),
    "too deep": ("name: " + "[" * 60 + "]" * 60, ["Line 1: It is more than 40 levels deep here."]),
    "too large": (b"name: x" + b" " * 1_000_000, ["Line 1: The file is larger than 1,000,000 bytes."]),
    "too many values": (
        "name: x\nagents:\n" + "  - x\n" * 100_000,
        [f"Line 100002: {TOO_MUCH}"],
    ),
    "not UTF-8": (b"name: x\nagents: \xff", ["Line 2: This is not UTF-8."]),
    "a control character": (b"name: x\n\x07", ["Line 2: A control character stands here."]),
    "NUL": ('name: "a\\0"', ["Line 1: It cannot be empty.", "Line 1: NUL and broken Unicode are not text."]),
    "a number out of reach": (
        "name: x\nbudget: {maxTokens: 1e400}",
        ["Line 2: Input should be greater than or equal to 1",
         "Line 2: This number is out of reach. Put it in quotes if it is text."],
    ),
    "a name that is no text": ("name: 5", ["Line 1: Input should be a valid string"]),
    "an empty name": ("name: ' '", ["Line 1: It cannot be empty."]),
    "a long name": (f"name: {'x' * 201}", ["Line 1: At most 200 characters."]),
    "a budget of nothing": ("name: x\nbudget: {maxTokens: 0}", ["Line 2: Input should be greater than or equal to 1"]),
    "a budget beyond what the API takes": (
        f"name: x\nbudget: {{maxTokens: {10**12 + 1}}}",
        ["Line 2: Input should be less than or equal to 1000000000000"],
    ),
    "a budget in words": ("name: x\nbudget: {maxTokens: '5'}", ["Line 2: Input should be a valid integer"]),
    "agents as a mapping": ("name: x\nagents: {A: {}}", ["Line 2: Input should be a valid list"]),
    "an agent without a name": ("name: x\nagents:\n  - peers: []", ["Line 3: `name` is missing here."]),
    "an agent declared twice": (agent() + "\n  - name: A", ["Line 4: 'A' is declared already, in line 3."]),
    "an unknown peer": (agent("peers:", "  - B"), ["Line 5: There is no agent 'B' in this file."]),
    "a peer named twice": (agent("peers: [A, A]"), ["Line 4: 'A' stands twice in this list."]),
    "too many peers": (
        agent(f"peers: [{', '.join(f'P{n}' for n in range(51))}]"),
        ["Line 4: List should have at most 50 items after validation, not 51",
         *(f"Line 4: There is no agent 'P{n}' in this file." for n in range(51))],
    ),
    "an unknown capability": (agent("capabilities: [fly]"), ["Line 4: There is no capability 'fly' in this file."]),
    "isAgent in words": (agent('isAgent: "no"'), ["Line 4: Input should be a valid boolean"]),
    "isAgent in YAML 1.1": (agent("isAgent: no"), ["Line 4: Input should be a valid boolean"]),
    "an endpoint elsewhere": (agent("endpoint: ftp://a/b"), ["Line 4: URL scheme should be 'http' or 'https'"]),
    "an endpoint that is none": (
        agent("endpoint: nowhere"), ["Line 4: Input should be a valid URL, relative URL without a base"],
    ),
    "a payload type without schema": (agent("payloadTypes: [{name: t}]"), ["Line 4: `schema` is missing here."]),
    "a payload type declared twice": (
        agent("payloadTypes:", "  - {name: t, schema: {}}", "  - {name: t, schema: {}}"),
        ["Line 6: 't' is declared already, in line 5."],
    ),
    "a payload type with a long name": (
        agent(f"payloadTypes: [{{name: {'t' * 101}, schema: {{}}}}]"), ["Line 4: At most 100 characters."],
    ),
    "a payload type of ours": (
        agent("payloadTypes: [{name: budget, schema: {}}]"),
        ["Line 4: 'budget' is what the service itself tells agents of their budget. Choose another name."],
    ),
    "a schema that is none": (
        agent("payloadTypes:", "  - name: t", "    schema:", "      type: objekt"),
        ["Line 7: 'objekt' is not valid under any of the given schemas"],
    ),
    "a schema that is text": (agent("payloadTypes: [{name: t, schema: x}]"), ["Line 4: A JSON Schema is a mapping."]),
    "a schema of another draft": (
        agent("payloadTypes: [{name: t, schema: {$schema: 'http://json-schema.org/draft-07/schema#'}}]"),
        ["Line 4: Schemas are of Draft 2020-12: write https://json-schema.org/draft/2020-12/schema, or leave it out."],
    ),
    "a schema from elsewhere": (
        agent("payloadTypes: [{name: t, schema: {$ref: 'https://example.com/schema.json'}}]"),
        ["Line 4: It refers to https://example.com/schema.json, which is not in it. Write it out under $defs."],
    ),
    "a schema that lacks a part": (
        agent("payloadTypes: [{name: t, schema: {properties: {a: {$ref: '#/$defs/a'}}}}]"),
        ["Line 4: It refers to #/$defs/a, which is not in it. Write it out under $defs."],
    ),
    "a schema without end": (
        agent("payloadTypes: [{name: t, schema: {$ref: '#'}}]"), ["Line 4: It refers to itself without end."],
    ),
    "a schema with a broken pattern": (
        agent("payloadTypes: [{name: t, schema: {pattern: '('}}]"), [f"Line 4: '(' {NO_PATTERN}"],
    ),
    "a schema with a pattern that looks around": (
        agent("payloadTypes: [{name: t, schema: {patternProperties: {'(?=a)': true}}}]"),
        [f"Line 4: '(?=a)' {NO_PATTERN}"],
    ),
    "a schema that matches patterns by itself": (
        agent("payloadTypes: [{name: t, schema: {patternProperties: {a: true}, unevaluatedProperties: false}}]"),
        ["Line 4: Write out what stands under patternProperties: with unevaluatedProperties it is not read."],
    ),
    "a schema that refers to what is none": (
        agent("payloadTypes: [{name: t, schema: {x: {multipleOf: 0}, required: [a], properties: {"
              "a: {$ref: '#/required'}, b: {$ref: '#/x'}}}}]"),
        ["Line 4: It refers to #/required, which is no sound schema.",
         "Line 4: It refers to #/x, which is no sound schema."],
    ),
    "a schema with a part of another draft": (
        agent("payloadTypes: [{name: t, schema: {items: {$schema: 'http://json-schema.org/draft-07/schema#'}}}]"),
        ["Line 4: Only the top of a schema says its draft."],
    ),
    "a schema that doubles": (
        agent("payloadTypes:", "  - name: t", "    schema:", "      $ref: '#/$defs/n0'", "      $defs:", *(
            f"        n{n}: {{allOf: [{{$ref: '#/$defs/n{n + 1}'}}, {{$ref: '#/$defs/n{n + 1}'}}]}}" for n in range(30)
        ), "        n30: true"),
        ["Line 6: It takes more than 2,000,000 steps to check. Send less, or have the schema simplified."],
    ),
    "an example that does not fit": (
        agent("payloadTypes:", "  - name: t", "    schema: {type: object}", "    example: 5"),
        ["Line 7: The example does not fit the schema: 5 is not of type 'object'"],
    ),
    "a capability declared twice": (
        "name: x\ncapabilities:\n  - {name: c, schema: {}}\n  - {name: c, schema: {}}",
        ["Line 4: 'c' is declared already, in line 3."],
    ),
    "a rule about nobody": (rule(agent="A"), ["Line 3: There is no agent 'A' in this file."]),
    "a rule that measures nothing": (
        rule(metric="SMILES"),
        ["Line 3: Input should be 'TOTAL_TOKENS', 'PROMPT_TOKENS', 'COMPLETION_TOKENS', 'MESSAGES' or 'COST'"],
    ),
    "a rule at nothing": (rule(threshold=0), ["Line 3: Input should be greater than 0"]),
    "a rule at half a message": (rule(threshold=1.5), ["Line 3: A threshold is a whole number of tokens or messages."]),
    "a rule without a webhook": (
        rule(channels=["WEBHOOK"]), ["Line 3: A rule with the channel WEBHOOK needs a webhookUrl."],
    ),
    "a rule with a key of ours": (
        rule(webhook_url="https://a.example"),
        ["Line 3: There is no key `webhook_url` here. Leave it out, or mend its spelling."],
    ),
    "many at once": (
        "agents:\n  - nam: A\n    peers: [B]\n  - name: C\n    isAgent: 5\n  - name: C\nbudget: 5",
        [
            "Line 1: `name` is missing here.",
            "Line 2: `name` is missing here.",
            "Line 2: There is no key `nam` here. Leave it out, or mend its spelling.",
            "Line 3: There is no agent 'B' in this file.",
            "Line 5: Input should be a valid boolean",
            "Line 6: 'C' is declared already, in line 4.",
            "Line 7: A mapping of keys to values is expected here.",
        ],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CORPUS)
def test_a_bad_file_is_told_by_line_and_reason(case: str) -> None:
    text, expected = CORPUS[case]

    assert sorted(faults(text)) == sorted(expected)


def test_no_more_than_a_hundred_faults_are_told() -> None:
    assert len(faults("name: x\n" + "".join(f"k{n}: 1\n" for n in range(500)))) == 100


def test_of_many_faults_the_message_tells_three_and_how_many_more_there_are() -> None:
    with pytest.raises(BadInput) as refused:
        declared(agent("peers: [B, C, D, E, F]").encode())

    assert refused.value.message == (
        "Line 4: There is no agent 'B' in this file; Line 4: There is no agent 'C' in this file; "
        "Line 4: There is no agent 'D' in this file; and 2 more."
    )


def test_a_fault_is_told_briefly_whatever_the_file_says() -> None:
    told = faults(f"name: x\n{'k' * 1000}: 1\nagents: [{{name: A, peers: [{'p' * 100_000}]}}]")

    assert len(told) == 3
    assert all(len(each) < 600 for each in told)


_LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.dates()
_KEYS = st.sampled_from(
    ["name", "description", "budget", "maxTokens", "agents", "peers", "payloadTypes", "schema", "example", "$ref",
     "type", "properties", "capabilities", "alertRules", "metric", "window", "threshold", "endpoint", "isAgent",
     "$defs", "$id"]
)  # fmt: skip
_VALUES = st.recursive(
    _LEAVES, lambda inside: st.lists(inside) | st.dictionaries(_KEYS | st.text(), inside), max_leaves=30
)
_FILES = st.fixed_dictionaries(
    {"name": _LEAVES},
    optional={
        "agents": st.lists(
            st.fixed_dictionaries(
                {"name": st.sampled_from(["A", "B"])},
                optional={
                    "peers": st.lists(st.sampled_from(["A", "B", "C"])),
                    "endpoint": st.text(),
                    "payloadTypes": st.lists(
                        st.fixed_dictionaries({"name": st.just("t"), "schema": _VALUES}, optional={"example": _VALUES})
                    ),
                },
            )
        ),
        "alertRules": st.lists(_VALUES),
        "capabilities": _VALUES,
    },
)


def never_surprises(content: bytes) -> None:
    """Read a file: it is good, or refused with at least one fault that says a line and a reason."""
    try:
        declared(content)
    except BadInput as error:
        assert error.faults  # noqa: PT017  # a file may be good as well
        assert all(fault.message.startswith("Line ") for fault in error.faults)  # noqa: PT017  # as above


@given(st.binary(max_size=200))
def test_no_bytes_make_anything_but_a_clear_fault(content: bytes) -> None:
    never_surprises(content)


@given(st.lists(st.sampled_from([*"[]{}:,-?&*!|>'\"%@`#\n ab1~.", ": ", "- ", "? ", "\n  ", "<<", "&a ", "*a", "!!", "---\n", "name", "agents"]), max_size=40))  # fmt: skip  # noqa: E501
def test_no_signs_of_yaml_make_anything_but_a_clear_fault(signs: list[str]) -> None:
    never_surprises("".join(signs).encode())


@given(_FILES | _VALUES, st.booleans())
def test_no_values_make_anything_but_a_clear_fault(values: Any, flow: bool) -> None:
    never_surprises(yaml.safe_dump(values, default_flow_style=flow, allow_unicode=True).encode("utf-8", "replace"))
