"""Which series a PromQL expression asks for, and whether anybody reports them.

Reads as much of the language as that takes: names, label matchers, groupings. Whether an
expression is valid is Prometheus' to say.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from rewardtune.transport.telemetry.metric_table import METRICS, TARGET_LABELS, Metric

_TOKEN = re.compile(
    r"""
      (?P<space>\s+|\#[^\n]*)
    | (?P<string>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|`[^`]*`)
    | (?P<range>\[[^\]]*\])
    | (?P<number>(?:\d+(?:ms|[smhdwy]))+|\d+\.?\d*(?:[eE][+-]?\d+)?|\.\d+)
    | (?P<name>[a-zA-Z_:$][a-zA-Z0-9_:$]*)
    | (?P<operator>=~|!~|!=|==|>=|<=|[-+*/%^=<>@])
    | (?P<bracket>[(){},])
    """,
    re.VERBOSE,
)
_GROUPINGS = ("by", "without", "on", "ignoring", "group_left", "group_right")
_WORDS = ("and", "or", "unless", "bool", "offset", "inf", "nan")

FOREIGN = {
    name: frozenset[str]()
    for name in ("up", "process_resident_memory_bytes", "process_cpu_seconds_total")
}
"""What Prometheus and prometheus_client report of every process, with its own labels."""

_BY_SAMPLE: Mapping[str, Metric] = {
    sample: metric for metric in METRICS.values() for sample in metric.sample_names
}


@dataclass(frozen=True, slots=True)
class Matcher:
    label: str
    operator: str
    """One of = != =~ !~."""
    value: str


@dataclass(frozen=True, slots=True)
class Selector:
    metric: str
    matchers: tuple[Matcher, ...]


@dataclass(frozen=True, slots=True)
class Query:
    """What an expression names."""

    selectors: tuple[Selector, ...]
    groupings: frozenset[str]
    """Labels after by, without, on, ignoring and group_left."""


def read_query(expression: str) -> Query:
    """Raises ValueError where it cannot be taken apart."""
    tokens = [*_tokens(expression), ("end", "")]
    selectors: list[Selector] = []
    groupings: set[str] = set()
    i = 0
    while i < len(tokens):
        kind, text = tokens[i]
        following = tokens[i + 1][1] if i + 1 < len(tokens) else ""
        if kind == "bracket" and text == "{":
            raise ValueError(f"a selector without a metric's name in: {expression}")
        i += 1
        if kind != "name" or text.lower() in _WORDS:
            continue
        if text.lower() in _GROUPINGS:
            if following == "(":
                end = tokens.index(("bracket", ")"), i)
                groupings |= {name for kind, name in tokens[i:end] if kind == "name"}
                i = end + 1
        elif following == "{":
            end = tokens.index(("bracket", "}"), i)
            selectors.append(Selector(text, tuple(_matchers(tokens[i + 1 : end], expression))))
            i = end + 1
        elif following != "(" and following.lower() not in ("by", "without"):
            selectors.append(Selector(text, ()))
    return Query(tuple(selectors), frozenset(groupings))


def problems(expression: str, *, shown_labels: frozenset[str] = frozenset()) -> list[str]:
    """What an expression asks for that no process reports; empty if it is all there.

    Args:
        shown_labels: labels that a legend or an annotation prints.
    """
    try:
        query = read_query(expression)
    except ValueError as error:
        return [str(error)]
    found: list[str] = []
    known = {*TARGET_LABELS, "le"}
    for selector in query.selectors:
        metric = _BY_SAMPLE.get(selector.metric)
        if metric is None and selector.metric not in FOREIGN:
            found.append(f"no process reports {selector.metric}")
            continue
        labels: Mapping[str, tuple[str, ...] | None] = metric.labels if metric else {}
        known |= set(labels)
        for matcher in selector.matchers:
            if matcher.label in labels:
                found += _wrong_values(selector.metric, matcher, labels[matcher.label])
            elif matcher.label not in {*TARGET_LABELS, "le"}:
                found.append(f"{selector.metric} has no label {matcher.label}")
    if not query.selectors:
        found.append(f"no metric in: {expression}")
    found += [
        f"no metric of the expression has the label {label}"
        for label in sorted((query.groupings | shown_labels) - known)
    ]
    return found


def _tokens(expression: str) -> Iterator[tuple[str, str]]:
    position = 0
    while position < len(expression):
        found = _TOKEN.match(expression, position)
        if found is None:
            raise ValueError(f"not PromQL from {expression[position : position + 20]!r} on")
        position = found.end()
        if found.lastgroup != "space":
            yield str(found.lastgroup), found.group()


def _matchers(tokens: list[tuple[str, str]], expression: str) -> Iterator[Matcher]:
    inner = [token for token in tokens if token[1] != ","]
    if len(inner) % 3:
        raise ValueError(f"label matchers cannot be read in: {expression}")
    for (_, label), (_, operator), (kind, value) in zip(
        inner[::3], inner[1::3], inner[2::3], strict=True
    ):
        if kind != "string" or operator not in ("=", "!=", "=~", "!~"):
            raise ValueError(f"label matchers cannot be read in: {expression}")
        yield Matcher(label, operator, value[1:-1])


def _wrong_values(metric: str, matcher: Matcher, allowed: tuple[str, ...] | None) -> Iterator[str]:
    """Values that the label never has; a regular expression is taken apart at its bars."""
    if allowed is None or "$" in matcher.value:
        return
    is_regex = matcher.operator in ("=~", "!~")
    for value in matcher.value.split("|") if is_regex else [matcher.value]:
        if not any(re.fullmatch(value, each) if is_regex else value == each for each in allowed):
            yield f"{matcher.label} of {metric} is never '{value}'"
