"""A reward server written against protos/v1/reward.proto alone, as one in any language would be.

    python counting_server.py --data FOLDER [--port 50051] [--human]

It reads detection's tokens by itself: six to a box, of which the last is 0 where there is none
(the layout stands in every question's ``vocabulary``), and takes from this project no more than
the digest of the data set. It rewards few boxes. In a run's config::

    reward = "grpc://127.0.0.1:50051"

With ``--human`` it plays a person: it shows each group and waits for a line of numbers on stdin.

A function in Python needs no server of its own: ``rewardtune reward-server MODULE:FUNCTION``.
"""

from __future__ import annotations

import argparse
import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
from numpy.typing import NDArray

from protos.v1 import group_pb2
from protos.v1 import reward_pb2 as pb
from protos.v1 import reward_pb2_grpc as pb_grpc
from rewardtune.datasets.shards.dataset import open_dataset

DIGEST = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
_STDIN = threading.Lock()


class CountingServicer(pb_grpc.RewardServicer):
    def __init__(self, *, dataset_digest: str, is_human: bool) -> None:
        self._dataset_digest = dataset_digest
        self._is_human = is_human

    def Describe(
        self, request: pb.DescribeRequest, context: grpc.ServicerContext
    ) -> pb.DescribeResponse:
        return pb.DescribeResponse(
            task="detection",
            reward_digest=DIGEST,
            dataset_digest=self._dataset_digest,
            latency_class=pb.LATENCY_CLASS_HUMAN if self._is_human else pb.LATENCY_CLASS_MACHINE,
        )

    def Score(self, request: pb.ScoreRequest, context: grpc.ServicerContext) -> pb.ScoreResponse:
        if (request.reward_digest, request.dataset_digest) != (DIGEST, self._dataset_digest):
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "another reward, or other data")
        tokens = request.group.tokens
        token_ST = np.frombuffer(tokens.data, dtype="<i4").reshape(tuple(tokens.shape))
        num_boxes_S = (token_ST[:, 5::6] > 0).sum(axis=1)
        reward_S = self._ask(request.group.example, num_boxes_S) if self._is_human else -num_boxes_S
        return pb.ScoreResponse(
            ordinal=request.group.ordinal,
            score=group_pb2.Score(
                reward=group_pb2.Array(
                    dtype=group_pb2.DTYPE_FLOAT64,
                    shape=[len(reward_S)],
                    data=reward_S.astype("<f8").tobytes(),
                ),
                is_valid=True,
            ),
        )

    def _ask(self, example: int, num_boxes_S: NDArray[np.int64]) -> NDArray[np.float64]:
        with _STDIN:
            print(f"example {example}: {num_boxes_S.tolist()} boxes; rewards?", flush=True)
            return np.array(input().split(), dtype=np.float64)


def main() -> None:
    parser = argparse.ArgumentParser(description="Serve a reward for few boxes.")
    parser.add_argument("--data", type=Path, required=True, help="the run's training data")
    parser.add_argument("--port", type=int, default=0, help="0: any that is free")
    parser.add_argument("--human", action="store_true")
    told = parser.parse_args()
    digest = open_dataset(told.data).digest
    servicer = CountingServicer(dataset_digest=digest, is_human=told.human)
    server = grpc.server(ThreadPoolExecutor(max_workers=4), options=[("grpc.so_reuseport", 0)])
    pb_grpc.add_RewardServicer_to_server(servicer, server)
    port = server.add_insecure_port(f"127.0.0.1:{told.port}")
    server.start()
    print(f"grpc://127.0.0.1:{port}", flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    main()
