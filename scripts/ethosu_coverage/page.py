# SPDX-License-Identifier: Apache-2.0
"""The page docs/ethos-u.md, from the code as it is and the recorded evidence."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from scripts.ethosu_coverage.evidence import COMMANDS, Evidence, Seen
from scripts.ethosu_coverage.features import ASPECTS, Aspect, refusal

from npubox.hw.ethosu.commands import NOT_ON_U55, U85_ONLY, Cmd0, Cmd1
from npubox.tools.command_fields import CMD0_FIELDS, CMD1_FIELDS, Field

DEVICE = Path(__file__).parents[2] / "src" / "npubox" / "devices" / "ethosu_npu"


def page(evidence: Evidence) -> str:
    """The whole page, from the code as it is and the evidence."""
    runs = sum(evidence["runs"].values())
    parts = [
        HEAD.format(runs=runs, date=evidence["date"], vela=evidence["vela"]),
        _table(("on", "exact runs"), ((label, str(n)) for label, n in sorted(evidence["runs"].items()))),
        _not_exact(evidence),
        "## Commands and registers\n\n" + COMMANDS_TEXT + _commands(evidence),
        "## Operations, aspect by aspect\n\n"
        + ASPECTS_TEXT
        + "\n".join(_aspect(a, evidence) for a in ASPECTS),
        "## Modelled, but in no verified network\n\n" + UNVERIFIED_TEXT + _unverified_list(evidence),
        "## Every refusal\n\n" + REFUSALS_TEXT + _refusals(),
    ]
    return "\n".join(parts)


HEAD = """<!-- Written by scripts/make_coverage.py: do not edit. -->
# Ethos-U55 and U65: what is modelled, verified, refused

A feature of the command stream is **verified** if it occurs in a network that ran here and equalled its
oracle (tflite-micro's or LiteRT's reference kernels) bit for bit; **unverified** if the code executes it and
no such network has it; **refused** if the job fails with the command's name, its offset and a reason. No
hardware was compared.

Recorded {date} over {runs} runs, each with every stored vector, of the networks of `tests/corpus/networks`,
the shared networks and the digits, compiled by Vela {vela}; `tests/corpus/test_corpus.py` and
`tests/client/test_networks.py` hold them; and of random networks of one operator, made as
`tests/corpus/test_single_operators.py` makes them. The U55 and U65 differ where the first table of commands
says so, and nowhere else.
"""
NOT_EXACT_TEXT = """Run and not counted, as they differ from their oracle. All are streams of Vela's legacy
core, which the plain interpreter of `tests/plain` executes to the same bits: TRANSPOSE_CONV of stride 1 is
padded as a convolution or reads past its IFM, SQUARED_DIFFERENCE broadcasts into the wrong shape, ABS of
int16 is rounded otherwise than tflite-micro does it, MEAN of a single element becomes an empty stream.

"""
COMMANDS_TEXT = """Effect: *executed*; *read* by an operation; *cycles*: only the cost model reads it;
*none*: taken without effect on results (SHRAM layout; what orders operations, which here run in order);
*refused*.

"""
ASPECTS_TEXT = """A number: exact runs in which an operation of that kind had it. **?**: modelled, unverified.
✗: refused. What is refused for every kind is named below its table.

"""
UNVERIFIED_TEXT = """The code executes these as the facts or their pattern say; no exact run shows that it
is right.

"""
REFUSALS_TEXT = """As in the source, `…` for what depends on the command. The job ends with
STATUS.parse_error.

"""


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [list(head)]
    lines += [["---"] * len(lines[0]), *map(list, rows)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _not_exact(evidence: Evidence) -> str:
    return NOT_EXACT_TEXT + _table(
        ("network", "runs"), ((k, str(n)) for k, n in evidence["not_exact"].items())
    )


def _seen(evidence: Evidence, kind: str, aspect: str, value: str) -> Seen | None:
    return evidence["seen"].get(kind, {}).get(aspect, {}).get(value)


def _commands(evidence: Evidence) -> str:
    fields: dict[str, Iterable[Field]] = {code.name: named for code, named in CMD0_FIELDS.items()}
    fields |= {code.name: named for code, named in CMD1_FIELDS.items()}
    rows = []
    for kind in (Cmd0, Cmd1):
        for code in kind:
            seen = _seen(evidence, COMMANDS, "written", code.name)
            only_u85, not_u55 = _is_in(code, U85_ONLY), _is_in(code, NOT_ON_U55)
            rows.append(
                (
                    f"{kind.__name__.lower()} {code.value}",
                    code.name,
                    "no" if only_u85 or not_u55 else "yes",
                    "no" if only_u85 else "yes",
                    ", ".join(field.name for field in fields[code.name] if field.name != "value"),
                    "refused" if only_u85 else _effect(code.name),
                    str(seen["runs"]) if seen else "none",
                )
            )
    return _table(("code", "name", "U55", "U65", "fields", "effect", "exact runs"), rows)


def _effect(name: str) -> str:
    if name.startswith("OP_"):
        return "executed" if name in EXECUTED else "cycles" if name in _named_in("cycles.py") else "none"
    return (
        "read" if name in _named_in("decode.py") else "cycles" if name in _named_in("cycles.py") else "none"
    )


EXECUTED = ("OP_STOP", "OP_IRQ", "OP_CONV", "OP_DEPTHWISE", "OP_POOL", "OP_ELEMENTWISE", "OP_DMA_START")


def _is_in(code: Cmd0 | Cmd1, codes: frozenset[Cmd0 | Cmd1]) -> bool:
    """By identity: members of Cmd0 and Cmd1 with one number are equal."""
    return any(other is code for other in codes)


@cache
def _named_in(module: str) -> set[str]:
    """The members of Cmd0 and Cmd1 that a module of the device names."""
    return {
        node.attr
        for node in ast.walk(ast.parse((DEVICE / module).read_text("utf-8")))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id in ("Cmd0", "Cmd1")
    }


def _aspect(aspect: Aspect, evidence: Evidence) -> str:
    rows, refused = [], []
    for value in aspect.values:
        cells = [_cell(kind, aspect, value, evidence) for kind in aspect.kinds]
        if set(cells) == {"✗"}:
            refused.append(value)
        else:
            rows.append((value, *cells))
    head = ("", *(kind.replace("ELEMENTWISE ", "").replace("POOL ", "POOL<br>") for kind in aspect.kinds))
    note = f"\nRefused: {', '.join(refused)}.\n" if refused else ""
    return f"### {aspect.name}\n\n{_table(head, rows)}{note}"


def _cell(kind: str, aspect: Aspect, value: str, evidence: Evidence) -> str:
    seen = _seen(evidence, kind, aspect.name, value)
    if seen is not None:
        return str(seen["runs"])
    return "?" if refusal(kind, aspect, value) is None else "✗"


def unverified(evidence: Evidence) -> list[tuple[str, str, list[str]]]:
    """Aspect, value and kinds of what the code executes and no exact network has."""
    found = []
    for aspect in ASPECTS:
        for value in aspect.values:
            kinds = [kind for kind in aspect.kinds if _cell(kind, aspect, value, evidence) == "?"]
            if kinds:
                found.append((aspect.name, value, kinds))
    return found


def _unverified_list(evidence: Evidence) -> str:
    rows = []
    for aspect, value, kinds in unverified(evidence):
        (asked,) = [a for a in ASPECTS if a.name == aspect]
        rows.append((aspect, value, "all" if len(kinds) == len(asked.kinds) > 1 else ", ".join(kinds)))
    return _table(("aspect", "value", "of"), rows)


def _refusals() -> str:
    rows = []
    for path in sorted(DEVICE.glob("*.py")):
        tree = ast.parse(path.read_text("utf-8"))
        texts = {
            target.id: [text for value in node.value.values if (text := _text(value))]
            for node in tree.body
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
            for reason in _reasons(function):
                lookup = isinstance(reason, ast.Subscript) and isinstance(reason.value, ast.Name)
                many = texts[reason.value.id] if lookup else [_text(reason)]  # type: ignore[attr-defined]
                rows += [(f"`{path.stem}.{function.name}`", text) for text in many if text]
    return _table(("where", "reason"), rows)


def _reasons(function: ast.FunctionDef) -> Iterator[ast.expr]:
    """What a function raises Refused and its kin with."""
    for node in ast.walk(function):
        match node:
            case ast.Raise(
                exc=ast.Call(func=ast.Name(id="Refused" | "BadCommand" | "WeightsDamaged"), args=args)
            ):
                yield args[-1]


def _text(node: ast.expr) -> str | None:
    """A string in the source, `…` for what is filled in."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value.replace("|", "\\|")
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part) or "…" for part in node.values)
    return None
