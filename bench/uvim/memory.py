"""How much of one stage I the scorers of a machine hold: ``python -m bench.uvim.memory``.

A stage I of random weights at the paper's size is written, and read whole by one process and by
two at once, as scorers read it. Adds up the proportional set size of the file's pages, which
counts a page that two share by half in each. Writes evidence/bench/uvim_memory.jsonl.
"""

from __future__ import annotations

import json
import multiprocessing
import tempfile
from multiprocessing.synchronize import Barrier
from pathlib import Path

from bench.figure import EVIDENCE, machine
from bench.uvim.decode import SIZES, random_stage_one
from rewardtune.tasks.uvim.stage_one_file import load_stage_one, save_stage_one

# Decoding, which SIZES is for, does not need the paper's encoder; the file has it.
WHOLE = SIZES.model_copy(update={"encoder_depth": 6})
OUTPUT = EVIDENCE / "bench" / "uvim_memory.jsonl"
_START_SECONDS = 300.0


def main() -> None:
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "stage_one.safetensors"
        save_stage_one(path, random_stage_one(WHOLE), class_names=None, provenance={})
        for num_processes in (1, 2):
            rows.append(
                {
                    "processes": num_processes,
                    "file_mib": round(path.stat().st_size / 2**20, 1),
                    "pss_mib": [round(each, 1) for each in held(path, num_processes)],
                    "machine": machine(),
                }
            )
            print(json.dumps(rows[-1]), flush=True)
    OUTPUT.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")


def held(path: Path, num_processes: int) -> list[float]:
    """Proportional set size in MiB of the file's pages, of processes that have all read it."""
    context = multiprocessing.get_context("spawn")
    turns = context.Barrier(num_processes + 1, timeout=_START_SECONDS)
    processes = [
        context.Process(target=_hold, args=(path, turns), daemon=True) for _ in range(num_processes)
    ]
    for process in processes:
        process.start()
    turns.wait()
    found = [_pss(path, process.pid) for process in processes]
    turns.wait()
    for process in processes:
        process.join()
    return found


def _hold(path: Path, turns: Barrier) -> None:
    loaded = load_stage_one(path)
    for tensor in loaded.network.state_dict().values():
        tensor.sum()
    turns.wait()  # all have read all
    turns.wait()  # it has been measured


def _pss(path: Path, pid: int | None) -> float:
    total, is_file = 0, False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        name, _, rest = line.partition(" ")
        if not name.endswith(":"):
            is_file = line.endswith(str(path))
        elif is_file and name == "Pss:":
            total += int(rest.split()[0])
    return total / 1024


if __name__ == "__main__":
    main()
