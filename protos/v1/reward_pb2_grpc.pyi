# Made by protos.generate. DO NOT EDIT!
# ruff: noqa
# fmt: off
import grpc

from protos.v1 import reward_pb2 as pb

class RewardStub:
    def __init__(self, channel: grpc.Channel) -> None: ...
    Describe: grpc.UnaryUnaryMultiCallable[pb.DescribeRequest, pb.DescribeResponse]
    Score: grpc.UnaryUnaryMultiCallable[pb.ScoreRequest, pb.ScoreResponse]

class RewardServicer:
    def Describe(
        self, request: pb.DescribeRequest, context: grpc.ServicerContext
    ) -> pb.DescribeResponse: ...
    def Score(
        self, request: pb.ScoreRequest, context: grpc.ServicerContext
    ) -> pb.ScoreResponse: ...

def add_RewardServicer_to_server(
    servicer: RewardServicer, server: grpc.Server
) -> None: ...
