"""Make the stubs from the .proto files: ``python -m protos.generate``, or ``make protos``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def generate(out: Path) -> list[Path]:
    """Write the stubs of every .proto below ``out``, at the same relative paths, and list them.

    Raises:
        CalledProcessError: protoc refuses a file; its message is on stderr.
    """
    sources = sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("protos/v*/*.proto"))
    flags = ["--proto_path=.", f"--python_out={out}", f"--pyi_out={out}"]
    command = [sys.executable, "-W", "ignore", "-m", "grpc_tools.protoc", *flags, *sources]
    subprocess.run(command, cwd=ROOT, check=True)
    return sorted(path for path in out.glob("protos/v*/*_pb2*.py*"))


if __name__ == "__main__":
    for stub in generate(ROOT):
        print(stub.relative_to(ROOT))
