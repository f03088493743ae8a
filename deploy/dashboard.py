"""What a Grafana dashboard asks Prometheus, and whether it can be answered."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.promql import problems
from rewardtune.transport.telemetry.metric_table import METRICS, TARGET_LABELS

OLDEST_SCHEMA = 39
"""Of Grafana 11; older dashboards are migrated when they are opened."""
PANEL_TYPES = ("row", "timeseries", "stat", "heatmap", "table", "bargauge", "gauge")
_DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
_LABEL_VALUES = re.compile(r"label_values\((\w+), *(\w+)\)")


@dataclass(frozen=True, slots=True)
class Target:
    """One query of one panel."""

    panel: str
    ref: str
    expression: str
    legend: str

    @property
    def needs_gpu(self) -> bool:
        """It asks for a metric that a process without a GPU does not have."""
        named = re.findall(r"rewardtune_(\w+)", self.expression)
        return any(name in METRICS and METRICS[name].needs_gpu for name in named)

    def filled(self, variables: Mapping[str, str], *, rate_seconds: int) -> str:
        """The expression as Grafana would send it."""
        values = {
            **variables,
            "__rate_interval": f"{rate_seconds}s",
            "__interval": f"{rate_seconds}s",
            "__range": f"{10 * rate_seconds}s",
        }
        return re.sub(
            r"\$(?:(\w+)|\{(\w+)\})",
            lambda found: values[found.group(1) or found.group(2)],
            self.expression,
        )


@dataclass(frozen=True, slots=True)
class Variable:
    """One that the values of a label fill in."""

    name: str
    metric: str
    label: str


class Dashboard:
    """A dashboard as its JSON file has it."""

    def __init__(self, content: Mapping[str, Any]) -> None:
        self._content = content

    @classmethod
    def read(cls, path: Path) -> Dashboard:
        """Raises ValueError if it is not JSON."""
        return cls(json.loads(path.read_text()))

    def panels(self) -> Iterator[Mapping[str, Any]]:
        """Rows and what is in them."""
        for panel in self._content["panels"]:
            yield panel
            yield from panel.get("panels", [])

    def targets(self) -> list[Target]:
        return [
            Target(panel["title"], target["refId"], target["expr"], target["legendFormat"])
            for panel in self.panels()
            for target in panel.get("targets", [])
        ]

    def variables(self) -> list[Variable]:
        """Raises ValueError for a query that is not label_values(metric, label)."""
        found = []
        for variable in self._content["templating"]["list"]:
            if variable["type"] == "query":
                query = variable["query"]["query"]
                match = _LABEL_VALUES.fullmatch(query)
                if match is None:
                    raise ValueError(f"variable {variable['name']}: cannot read '{query}'")
                found.append(Variable(variable["name"], *match.groups()))
        return found

    def problems(self) -> list[str]:
        """What Grafana would stumble over or show nothing for; empty if nothing."""
        return [*self._wrong_structure(), *self._unanswerable()]

    def _wrong_structure(self) -> Iterator[str]:
        if self._content.get("schemaVersion", 0) < OLDEST_SCHEMA:
            yield f"schemaVersion must be {OLDEST_SCHEMA} or more"
        if not any(v["type"] == "datasource" for v in self._content["templating"]["list"]):
            yield "no datasource variable"
        seen: set[int] = set()
        for panel in self.panels():
            where = f"panel '{panel['title']}'"
            if panel["id"] in seen:
                yield f"{where}: id {panel['id']} is another panel's"
            seen.add(panel["id"])
            if panel["type"] not in PANEL_TYPES:
                yield f"{where}: no panel of type {panel['type']}"
            if panel["type"] == "row":
                continue
            refs = [target["refId"] for target in panel["targets"]]
            if not refs or len(refs) != len(set(refs)):
                yield f"{where}: needs queries with a refId each, has {refs}"
            if any(each["datasource"] != _DATASOURCE for each in [panel, *panel["targets"]]):
                yield f"{where}: its datasource must be the variable"
            box = panel["gridPos"]
            if box["x"] + box["w"] > 24 or box["w"] <= 0 or box["h"] <= 0:
                yield f"{where}: does not fit the grid of 24 columns"

    def _unanswerable(self) -> Iterator[str]:
        variables = self.variables()
        for variable in variables:
            metric = METRICS.get(variable.metric.removeprefix("rewardtune_"))
            if metric is None:
                yield f"variable {variable.name}: no process reports {variable.metric}"
            elif variable.label not in {*metric.labels, *TARGET_LABELS}:
                yield f"variable {variable.name}: {variable.metric} has no {variable.label}"
        fill = {variable.name: "any" for variable in variables}
        for target in self.targets():
            where = f"panel '{target.panel}' {target.ref}"
            try:
                expression = target.filled(fill, rate_seconds=60)
            except KeyError as missing:
                yield f"{where}: no variable is called {missing}"
                continue
            shown = frozenset(re.findall(r"\{\{\s*(\w+)\s*\}\}", target.legend))
            yield from (f"{where}: {p}" for p in problems(expression, shown_labels=shown))
