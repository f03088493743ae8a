"""Make the stubs from the .proto files: ``python -m protos.generate``, or ``make protos``."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

ROOT = Path(__file__).resolve().parent.parent


def generate(out: Path) -> list[Path]:
    """Write the stubs of every .proto below ``out``, at the same relative paths, and list them.

    Raises:
        CalledProcessError: protoc refuses a file; its message is on stderr.
    """
    sources = sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("protos/v*/*.proto"))
    described = _described(sources)
    _protoc([f"--python_out={out}", f"--pyi_out={out}"], sources)
    services = [file for file in described if file.service]
    _protoc([f"--grpc_python_out={out}"], [file.name for file in services])
    for file in services:
        # protoc's own plugin for gRPC writes no types.
        path = out / file.name.replace(".proto", "_pb2_grpc.pyi")
        path.write_text("\n".join(_typed_stub(file)) + "\n", encoding="utf-8")
    return sorted(path for path in out.glob("protos/v*/*_pb2*.py*"))


def _described(sources: list[str]) -> list[FileDescriptorProto]:
    with tempfile.NamedTemporaryFile() as file:
        _protoc([f"--descriptor_set_out={file.name}"], sources)
        return list(FileDescriptorSet.FromString(file.read()).file)


def _protoc(flags: list[str], sources: list[str]) -> None:
    command = [sys.executable, "-W", "ignore", "-m", "grpc_tools.protoc", "--proto_path=."]
    subprocess.run([*command, *flags, *sources], cwd=ROOT, check=True)


def _typed_stub(file: FileDescriptorProto) -> Iterator[str]:
    """Of calls with one message each way, which is all that there are."""
    module = Path(file.name).stem + "_pb2"
    yield from ("# Made by protos.generate. DO NOT EDIT!", "# ruff: noqa", "# fmt: off")
    yield from ("import grpc", "", f"from protos.v1 import {module} as pb")
    for service in file.service:
        calls = [
            (
                call.name,
                *(f"pb.{kind.rpartition('.')[2]}" for kind in (call.input_type, call.output_type)),
            )
            for call in service.method
        ]
        yield from ("", f"class {service.name}Stub:")
        yield "    def __init__(self, channel: grpc.Channel) -> None: ..."
        for name, request, response in calls:
            yield f"    {name}: grpc.UnaryUnaryMultiCallable[{request}, {response}]"
        yield from ("", f"class {service.name}Servicer:")
        for name, request, response in calls:
            yield f"    def {name}("
            yield f"        self, request: {request}, context: grpc.ServicerContext"
            yield f"    ) -> {response}: ..."
        yield from ("", f"def add_{service.name}Servicer_to_server(")
        yield f"    servicer: {service.name}Servicer, server: grpc.Server"
        yield ") -> None: ..."


if __name__ == "__main__":
    for stub in generate(ROOT):
        print(stub.relative_to(ROOT))
