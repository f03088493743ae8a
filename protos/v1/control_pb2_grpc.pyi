# Made by protos.generate. DO NOT EDIT!
# ruff: noqa
# fmt: off
import grpc

from protos.v1 import control_pb2 as pb

class ControlStub:
    def __init__(self, channel: grpc.Channel) -> None: ...
    Status: grpc.UnaryUnaryMultiCallable[pb.StatusRequest, pb.StatusResponse]
    Explain: grpc.UnaryUnaryMultiCallable[pb.ExplainRequest, pb.ExplainResponse]
    Drain: grpc.UnaryUnaryMultiCallable[pb.DrainRequest, pb.DrainResponse]
    Pause: grpc.UnaryUnaryMultiCallable[pb.PauseRequest, pb.PauseResponse]
    Resume: grpc.UnaryUnaryMultiCallable[pb.ResumeRequest, pb.ResumeResponse]
    Checkpoint: grpc.UnaryUnaryMultiCallable[pb.CheckpointRequest, pb.CheckpointResponse]
    ScaleRewardWorkers: grpc.UnaryUnaryMultiCallable[pb.ScaleRewardWorkersRequest, pb.ScaleRewardWorkersResponse]
    DeadLetters: grpc.UnaryUnaryMultiCallable[pb.DeadLettersRequest, pb.DeadLettersResponse]

class ControlServicer:
    def Status(
        self, request: pb.StatusRequest, context: grpc.ServicerContext
    ) -> pb.StatusResponse: ...
    def Explain(
        self, request: pb.ExplainRequest, context: grpc.ServicerContext
    ) -> pb.ExplainResponse: ...
    def Drain(
        self, request: pb.DrainRequest, context: grpc.ServicerContext
    ) -> pb.DrainResponse: ...
    def Pause(
        self, request: pb.PauseRequest, context: grpc.ServicerContext
    ) -> pb.PauseResponse: ...
    def Resume(
        self, request: pb.ResumeRequest, context: grpc.ServicerContext
    ) -> pb.ResumeResponse: ...
    def Checkpoint(
        self, request: pb.CheckpointRequest, context: grpc.ServicerContext
    ) -> pb.CheckpointResponse: ...
    def ScaleRewardWorkers(
        self, request: pb.ScaleRewardWorkersRequest, context: grpc.ServicerContext
    ) -> pb.ScaleRewardWorkersResponse: ...
    def DeadLetters(
        self, request: pb.DeadLettersRequest, context: grpc.ServicerContext
    ) -> pb.DeadLettersResponse: ...

def add_ControlServicer_to_server(
    servicer: ControlServicer, server: grpc.Server
) -> None: ...
