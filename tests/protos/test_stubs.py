"""The committed stubs are what the .proto files give."""

from pathlib import Path

from protos.generate import ROOT, generate


def test_committed_stubs_are_fresh(tmp_path: Path) -> None:
    made = generate(tmp_path)
    assert made, "no .proto was found"
    for stub in made:
        committed = ROOT / stub.relative_to(tmp_path)
        assert committed.read_text() == stub.read_text(), f"{committed} is stale: run make protos"


def test_every_committed_stub_has_its_proto(tmp_path: Path) -> None:
    made = {stub.relative_to(tmp_path) for stub in generate(tmp_path)}
    assert {stub.relative_to(ROOT) for stub in ROOT.glob("protos/v*/*_pb2*.py*")} == made
