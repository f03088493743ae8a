from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ScorerRequest(_message.Message):
    __slots__ = ("start", "group")
    START_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    start: StartScorer
    group: bytes
    def __init__(self, start: _Optional[_Union[StartScorer, _Mapping]] = ..., group: _Optional[bytes] = ...) -> None: ...

class StartScorer(_message.Message):
    __slots__ = ("spec", "data_path", "deadline_seconds", "artefacts_path", "security")
    SPEC_FIELD_NUMBER: _ClassVar[int]
    DATA_PATH_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    ARTEFACTS_PATH_FIELD_NUMBER: _ClassVar[int]
    SECURITY_FIELD_NUMBER: _ClassVar[int]
    spec: bytes
    data_path: str
    deadline_seconds: float
    artefacts_path: str
    security: bytes
    def __init__(self, spec: _Optional[bytes] = ..., data_path: _Optional[str] = ..., deadline_seconds: _Optional[float] = ..., artefacts_path: _Optional[str] = ..., security: _Optional[bytes] = ...) -> None: ...

class ScorerReply(_message.Message):
    __slots__ = ("started", "scored", "failed", "unfit")
    STARTED_FIELD_NUMBER: _ClassVar[int]
    SCORED_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    UNFIT_FIELD_NUMBER: _ClassVar[int]
    started: ScorerStarted
    scored: GroupScored
    failed: GroupFailed
    unfit: str
    def __init__(self, started: _Optional[_Union[ScorerStarted, _Mapping]] = ..., scored: _Optional[_Union[GroupScored, _Mapping]] = ..., failed: _Optional[_Union[GroupFailed, _Mapping]] = ..., unfit: _Optional[str] = ...) -> None: ...

class ScorerStarted(_message.Message):
    __slots__ = ("reward_digest", "dataset_digest", "refusal", "is_human")
    REWARD_DIGEST_FIELD_NUMBER: _ClassVar[int]
    DATASET_DIGEST_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    IS_HUMAN_FIELD_NUMBER: _ClassVar[int]
    reward_digest: str
    dataset_digest: str
    refusal: str
    is_human: bool
    def __init__(self, reward_digest: _Optional[str] = ..., dataset_digest: _Optional[str] = ..., refusal: _Optional[str] = ..., is_human: _Optional[bool] = ...) -> None: ...

class GroupScored(_message.Message):
    __slots__ = ("scored", "load_seconds", "score_seconds")
    SCORED_FIELD_NUMBER: _ClassVar[int]
    LOAD_SECONDS_FIELD_NUMBER: _ClassVar[int]
    SCORE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    scored: bytes
    load_seconds: float
    score_seconds: float
    def __init__(self, scored: _Optional[bytes] = ..., load_seconds: _Optional[float] = ..., score_seconds: _Optional[float] = ...) -> None: ...

class GroupFailed(_message.Message):
    __slots__ = ("is_invalid", "message", "traceback")
    IS_INVALID_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    TRACEBACK_FIELD_NUMBER: _ClassVar[int]
    is_invalid: bool
    message: str
    traceback: str
    def __init__(self, is_invalid: _Optional[bool] = ..., message: _Optional[str] = ..., traceback: _Optional[str] = ...) -> None: ...
