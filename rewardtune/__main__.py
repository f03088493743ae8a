"""``python -m rewardtune``, the same as ``rewardtune``."""

from rewardtune.cli.app import app

if __name__ == "__main__":
    app(prog_name="rewardtune")
