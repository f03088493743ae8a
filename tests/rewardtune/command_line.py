"""The command line, called in the tests' own process."""

from __future__ import annotations

from typer.testing import CliRunner, Result

from rewardtune.cli.app import app
from rewardtune.cli.ending import BAD_INPUT


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def refused(*arguments: object) -> str:
    """The one line that says what is wrong."""
    result = run(*arguments)
    assert result.exit_code == BAD_INPUT, result.output
    assert result.stdout == ""
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1
    return result.stderr
