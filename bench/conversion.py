"""``python -m bench.conversion``: how much memory does converting a huge annotation file take?

An instances file of the given size with boxes and areas only, as in Objects365: as many
annotations as such a file can hold, and it is they that memory could go to. Sixty belong to an
image, and the images share a thousand small pictures. Converted by what the command runs, in a
process of its own.
Adds a line to conversion.jsonl: seconds, and the peak of resident memory beside the promise of
300 MB and eight times the JSON.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from bench.figure import EVIDENCE, machine

OUTPUT = EVIDENCE / "bench" / "conversion.jsonl"
NUM_PICTURES = 1000
PER_IMAGE = 60
SIDE = 48

CONVERT = """
import sys
from pathlib import Path
from rewardtune.datasets.coco.convert import convert_coco

folder = Path(sys.argv[1])
report = convert_coco(
    images=folder, instances=folder / "instances.json", output=folder / "set", workers=1
)
# Not getrusage: a child starts with its parent's peak.
status = Path("/proc/self/status").read_text()
print(next(int(line.split()[1]) / 1000 for line in status.splitlines() if "VmHWM" in line))
"""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.conversion")
    parser.add_argument("--gigabytes", type=float, default=2.2, help="of JSON")
    told = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        line = measure(Path(name), num_bytes=int(told.gigabytes * 1e9))
    with OUTPUT.open("a") as file:
        file.write(f"{json.dumps(line)}\n")
    print(json.dumps(line))


def measure(folder: Path, *, num_bytes: int) -> dict[str, object]:
    """Make the file, convert it, and say what that took."""
    num_images = write_instances(folder, num_bytes=num_bytes)
    json_mb = (folder / "instances.json").stat().st_size / 1e6
    started = time.perf_counter()
    ran = subprocess.run(
        [sys.executable, "-c", CONVERT, str(folder)], stdout=subprocess.PIPE, text=True, check=True
    )
    return {
        "name": "conversion.peak_memory",
        "json_mb": round(json_mb, 1),
        "num_images": num_images,
        "num_annotations": num_images * PER_IMAGE,
        "seconds": round(time.perf_counter() - started, 1),
        "peak_mb": round(float(ran.stdout), 1),
        "promised_mb": round(300 + 8 * json_mb, 1),
        "machine": machine(),
    }


def write_instances(folder: Path, *, num_bytes: int) -> int:
    """Pictures and ``instances.json`` of about ``num_bytes``; returns the number of images.

    All annotations come after all images, and those of an image lie far apart, as in COCO's files.
    """
    rng = np.random.default_rng(0)
    for number in range(NUM_PICTURES):
        pixels_HWC = rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
        Image.fromarray(pixels_HWC).save(folder / f"{number}.jpg", quality=30)
    per_image = len(_image(10**6)) + PER_IMAGE * len(_annotation(10**7, 10**6))
    num_images = num_bytes // per_image + 1
    with (folder / "instances.json").open("w") as file:
        categories = [{"id": c + 1, "name": f"class {c + 1}"} for c in range(365)]
        file.write(f'{{"categories": {json.dumps(categories)}, "images": [')
        for image in range(num_images):
            file.write(f"{', ' if image else ''}{_image(image)}")
        file.write('], "annotations": [')
        for number in range(num_images * PER_IMAGE):
            file.write(f"{', ' if number else ''}{_annotation(number, number % num_images)}")
        file.write("]}")
    return num_images


def _image(image: int) -> str:
    name = f"images/v1/patch8/{image % NUM_PICTURES}.jpg"
    return f'{{"id": {image}, "file_name": "{name}", "height": {SIDE}, "width": {SIDE}}}'


def _annotation(number: int, image: int) -> str:
    left, top = number % 31 + 0.1253204345, number % 29 + 0.5432739257
    return (
        f'{{"id": {number}, "image_id": {image}, "category_id": {number % 365 + 1}, "iscrowd": 0, '
        f'"isfake": 0, "area": 194.6301269531, "bbox": [{left}, {top}, 13.9021606445, 14.0]}}'
    )


if __name__ == "__main__":
    main()
