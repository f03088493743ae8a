from protos.v1 import group_pb2 as _group_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class LatencyClass(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LATENCY_CLASS_UNSPECIFIED: _ClassVar[LatencyClass]
    LATENCY_CLASS_MACHINE: _ClassVar[LatencyClass]
    LATENCY_CLASS_HUMAN: _ClassVar[LatencyClass]
LATENCY_CLASS_UNSPECIFIED: LatencyClass
LATENCY_CLASS_MACHINE: LatencyClass
LATENCY_CLASS_HUMAN: LatencyClass

class DescribeRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DescribeResponse(_message.Message):
    __slots__ = ("task", "reward_digest", "dataset_digest", "components", "max_concurrency", "latency_class")
    TASK_FIELD_NUMBER: _ClassVar[int]
    REWARD_DIGEST_FIELD_NUMBER: _ClassVar[int]
    DATASET_DIGEST_FIELD_NUMBER: _ClassVar[int]
    COMPONENTS_FIELD_NUMBER: _ClassVar[int]
    MAX_CONCURRENCY_FIELD_NUMBER: _ClassVar[int]
    LATENCY_CLASS_FIELD_NUMBER: _ClassVar[int]
    task: str
    reward_digest: str
    dataset_digest: str
    components: _containers.RepeatedScalarFieldContainer[str]
    max_concurrency: int
    latency_class: LatencyClass
    def __init__(self, task: _Optional[str] = ..., reward_digest: _Optional[str] = ..., dataset_digest: _Optional[str] = ..., components: _Optional[_Iterable[str]] = ..., max_concurrency: _Optional[int] = ..., latency_class: _Optional[_Union[LatencyClass, str]] = ...) -> None: ...

class ScoreRequest(_message.Message):
    __slots__ = ("group", "input_size", "dataset_digest", "reward_digest", "vocabulary", "task_options")
    GROUP_FIELD_NUMBER: _ClassVar[int]
    INPUT_SIZE_FIELD_NUMBER: _ClassVar[int]
    DATASET_DIGEST_FIELD_NUMBER: _ClassVar[int]
    REWARD_DIGEST_FIELD_NUMBER: _ClassVar[int]
    VOCABULARY_FIELD_NUMBER: _ClassVar[int]
    TASK_OPTIONS_FIELD_NUMBER: _ClassVar[int]
    group: _group_pb2.Group
    input_size: int
    dataset_digest: str
    reward_digest: str
    vocabulary: str
    task_options: str
    def __init__(self, group: _Optional[_Union[_group_pb2.Group, _Mapping]] = ..., input_size: _Optional[int] = ..., dataset_digest: _Optional[str] = ..., reward_digest: _Optional[str] = ..., vocabulary: _Optional[str] = ..., task_options: _Optional[str] = ...) -> None: ...

class ScoreResponse(_message.Message):
    __slots__ = ("ordinal", "score")
    ORDINAL_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    ordinal: int
    score: _group_pb2.Score
    def __init__(self, ordinal: _Optional[int] = ..., score: _Optional[_Union[_group_pb2.Score, _Mapping]] = ...) -> None: ...
