from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RunState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    RUN_STATE_UNSPECIFIED: _ClassVar[RunState]
    RUN_STATE_STARTING: _ClassVar[RunState]
    RUN_STATE_RUNNING: _ClassVar[RunState]
    RUN_STATE_PAUSED: _ClassVar[RunState]
    RUN_STATE_DRAINING: _ClassVar[RunState]
    RUN_STATE_FAILED: _ClassVar[RunState]
    RUN_STATE_FINISHED: _ClassVar[RunState]
    RUN_STATE_STOPPED: _ClassVar[RunState]
    RUN_STATE_DRAINED: _ClassVar[RunState]

class ServiceState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SERVICE_STATE_UNSPECIFIED: _ClassVar[ServiceState]
    SERVICE_STATE_STARTING: _ClassVar[ServiceState]
    SERVICE_STATE_IDLE: _ClassVar[ServiceState]
    SERVICE_STATE_BUSY: _ClassVar[ServiceState]

class Whereabouts(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    WHEREABOUTS_UNSPECIFIED: _ClassVar[Whereabouts]
    WHEREABOUTS_BEYOND_THE_END: _ClassVar[Whereabouts]
    WHEREABOUTS_NOT_DUE: _ClassVar[Whereabouts]
    WHEREABOUTS_WANTED: _ClassVar[Whereabouts]
    WHEREABOUTS_BEING_DRAWN: _ClassVar[Whereabouts]
    WHEREABOUTS_QUEUED: _ClassVar[Whereabouts]
    WHEREABOUTS_LEASED: _ClassVar[Whereabouts]
    WHEREABOUTS_QUEUED_OR_LEASED: _ClassVar[Whereabouts]
    WHEREABOUTS_MISSING: _ClassVar[Whereabouts]
    WHEREABOUTS_SCORED: _ClassVar[Whereabouts]
    WHEREABOUTS_INVALID: _ClassVar[Whereabouts]
    WHEREABOUTS_SKIPPED: _ClassVar[Whereabouts]
    WHEREABOUTS_TRAINED: _ClassVar[Whereabouts]
RUN_STATE_UNSPECIFIED: RunState
RUN_STATE_STARTING: RunState
RUN_STATE_RUNNING: RunState
RUN_STATE_PAUSED: RunState
RUN_STATE_DRAINING: RunState
RUN_STATE_FAILED: RunState
RUN_STATE_FINISHED: RunState
RUN_STATE_STOPPED: RunState
RUN_STATE_DRAINED: RunState
SERVICE_STATE_UNSPECIFIED: ServiceState
SERVICE_STATE_STARTING: ServiceState
SERVICE_STATE_IDLE: ServiceState
SERVICE_STATE_BUSY: ServiceState
WHEREABOUTS_UNSPECIFIED: Whereabouts
WHEREABOUTS_BEYOND_THE_END: Whereabouts
WHEREABOUTS_NOT_DUE: Whereabouts
WHEREABOUTS_WANTED: Whereabouts
WHEREABOUTS_BEING_DRAWN: Whereabouts
WHEREABOUTS_QUEUED: Whereabouts
WHEREABOUTS_LEASED: Whereabouts
WHEREABOUTS_QUEUED_OR_LEASED: Whereabouts
WHEREABOUTS_MISSING: Whereabouts
WHEREABOUTS_SCORED: Whereabouts
WHEREABOUTS_INVALID: Whereabouts
WHEREABOUTS_SKIPPED: Whereabouts
WHEREABOUTS_TRAINED: Whereabouts

class StatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class StatusResponse(_message.Message):
    __slots__ = ("run", "directory", "state", "term", "step", "num_steps", "depth", "staleness", "reward", "step_seconds", "wait_ratio", "steps_per_second", "phases", "best", "evaluations_skipped", "redraws", "draws_in_flight", "services", "reward_workers_wanted", "reward_workers_required", "reward_workers", "queue", "depth_required")
    class PhasesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    class BestEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    RUN_FIELD_NUMBER: _ClassVar[int]
    DIRECTORY_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    NUM_STEPS_FIELD_NUMBER: _ClassVar[int]
    DEPTH_FIELD_NUMBER: _ClassVar[int]
    STALENESS_FIELD_NUMBER: _ClassVar[int]
    REWARD_FIELD_NUMBER: _ClassVar[int]
    STEP_SECONDS_FIELD_NUMBER: _ClassVar[int]
    WAIT_RATIO_FIELD_NUMBER: _ClassVar[int]
    STEPS_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    PHASES_FIELD_NUMBER: _ClassVar[int]
    BEST_FIELD_NUMBER: _ClassVar[int]
    EVALUATIONS_SKIPPED_FIELD_NUMBER: _ClassVar[int]
    REDRAWS_FIELD_NUMBER: _ClassVar[int]
    DRAWS_IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    SERVICES_FIELD_NUMBER: _ClassVar[int]
    REWARD_WORKERS_WANTED_FIELD_NUMBER: _ClassVar[int]
    REWARD_WORKERS_REQUIRED_FIELD_NUMBER: _ClassVar[int]
    REWARD_WORKERS_FIELD_NUMBER: _ClassVar[int]
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    DEPTH_REQUIRED_FIELD_NUMBER: _ClassVar[int]
    run: str
    directory: str
    state: RunState
    term: int
    step: int
    num_steps: int
    depth: int
    staleness: float
    reward: float
    step_seconds: float
    wait_ratio: float
    steps_per_second: float
    phases: _containers.ScalarMap[str, float]
    best: _containers.ScalarMap[str, float]
    evaluations_skipped: int
    redraws: int
    draws_in_flight: int
    services: _containers.RepeatedCompositeFieldContainer[ServiceStatus]
    reward_workers_wanted: int
    reward_workers_required: int
    reward_workers: _containers.RepeatedCompositeFieldContainer[RewardWorkerStatus]
    queue: QueueStatus
    depth_required: int
    def __init__(self, run: _Optional[str] = ..., directory: _Optional[str] = ..., state: _Optional[_Union[RunState, str]] = ..., term: _Optional[int] = ..., step: _Optional[int] = ..., num_steps: _Optional[int] = ..., depth: _Optional[int] = ..., staleness: _Optional[float] = ..., reward: _Optional[float] = ..., step_seconds: _Optional[float] = ..., wait_ratio: _Optional[float] = ..., steps_per_second: _Optional[float] = ..., phases: _Optional[_Mapping[str, float]] = ..., best: _Optional[_Mapping[str, float]] = ..., evaluations_skipped: _Optional[int] = ..., redraws: _Optional[int] = ..., draws_in_flight: _Optional[int] = ..., services: _Optional[_Iterable[_Union[ServiceStatus, _Mapping]]] = ..., reward_workers_wanted: _Optional[int] = ..., reward_workers_required: _Optional[int] = ..., reward_workers: _Optional[_Iterable[_Union[RewardWorkerStatus, _Mapping]]] = ..., queue: _Optional[_Union[QueueStatus, _Mapping]] = ..., depth_required: _Optional[int] = ...) -> None: ...

class ServiceStatus(_message.Message):
    __slots__ = ("name", "kind", "pid", "state", "restarts")
    NAME_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    RESTARTS_FIELD_NUMBER: _ClassVar[int]
    name: str
    kind: str
    pid: int
    state: ServiceState
    restarts: int
    def __init__(self, name: _Optional[str] = ..., kind: _Optional[str] = ..., pid: _Optional[int] = ..., state: _Optional[_Union[ServiceState, str]] = ..., restarts: _Optional[int] = ...) -> None: ...

class RewardWorkerStatus(_message.Message):
    __slots__ = ("worker", "state", "message", "num_scorers", "busy", "num_groups", "core_seconds", "metrics_address", "is_in_ray", "reward_digest", "dataset_digest")
    WORKER_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    NUM_SCORERS_FIELD_NUMBER: _ClassVar[int]
    BUSY_FIELD_NUMBER: _ClassVar[int]
    NUM_GROUPS_FIELD_NUMBER: _ClassVar[int]
    CORE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    METRICS_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    IS_IN_RAY_FIELD_NUMBER: _ClassVar[int]
    REWARD_DIGEST_FIELD_NUMBER: _ClassVar[int]
    DATASET_DIGEST_FIELD_NUMBER: _ClassVar[int]
    worker: str
    state: str
    message: str
    num_scorers: int
    busy: int
    num_groups: int
    core_seconds: float
    metrics_address: str
    is_in_ray: bool
    reward_digest: str
    dataset_digest: str
    def __init__(self, worker: _Optional[str] = ..., state: _Optional[str] = ..., message: _Optional[str] = ..., num_scorers: _Optional[int] = ..., busy: _Optional[int] = ..., num_groups: _Optional[int] = ..., core_seconds: _Optional[float] = ..., metrics_address: _Optional[str] = ..., is_in_ray: _Optional[bool] = ..., reward_digest: _Optional[str] = ..., dataset_digest: _Optional[str] = ...) -> None: ...

class QueueStatus(_message.Message):
    __slots__ = ("term", "frontier", "backlog", "leased", "results", "oldest_seconds", "redeliveries", "duplicate_commits", "stale_commits", "dead", "failures", "refused", "bad_entries")
    class FailuresEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    class RefusedEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    TERM_FIELD_NUMBER: _ClassVar[int]
    FRONTIER_FIELD_NUMBER: _ClassVar[int]
    BACKLOG_FIELD_NUMBER: _ClassVar[int]
    LEASED_FIELD_NUMBER: _ClassVar[int]
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    OLDEST_SECONDS_FIELD_NUMBER: _ClassVar[int]
    REDELIVERIES_FIELD_NUMBER: _ClassVar[int]
    DUPLICATE_COMMITS_FIELD_NUMBER: _ClassVar[int]
    STALE_COMMITS_FIELD_NUMBER: _ClassVar[int]
    DEAD_FIELD_NUMBER: _ClassVar[int]
    FAILURES_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    BAD_ENTRIES_FIELD_NUMBER: _ClassVar[int]
    term: int
    frontier: int
    backlog: int
    leased: int
    results: int
    oldest_seconds: float
    redeliveries: int
    duplicate_commits: int
    stale_commits: int
    dead: int
    failures: _containers.ScalarMap[str, int]
    refused: _containers.ScalarMap[str, int]
    bad_entries: int
    def __init__(self, term: _Optional[int] = ..., frontier: _Optional[int] = ..., backlog: _Optional[int] = ..., leased: _Optional[int] = ..., results: _Optional[int] = ..., oldest_seconds: _Optional[float] = ..., redeliveries: _Optional[int] = ..., duplicate_commits: _Optional[int] = ..., stale_commits: _Optional[int] = ..., dead: _Optional[int] = ..., failures: _Optional[_Mapping[str, int]] = ..., refused: _Optional[_Mapping[str, int]] = ..., bad_entries: _Optional[int] = ...) -> None: ...

class ExplainRequest(_message.Message):
    __slots__ = ("ordinal",)
    ORDINAL_FIELD_NUMBER: _ClassVar[int]
    ordinal: int
    def __init__(self, ordinal: _Optional[int] = ...) -> None: ...

class ExplainResponse(_message.Message):
    __slots__ = ("ordinal", "whereabouts", "batch", "policy_version", "detail")
    ORDINAL_FIELD_NUMBER: _ClassVar[int]
    WHEREABOUTS_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    POLICY_VERSION_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    ordinal: int
    whereabouts: Whereabouts
    batch: int
    policy_version: int
    detail: str
    def __init__(self, ordinal: _Optional[int] = ..., whereabouts: _Optional[_Union[Whereabouts, str]] = ..., batch: _Optional[int] = ..., policy_version: _Optional[int] = ..., detail: _Optional[str] = ...) -> None: ...

class DrainRequest(_message.Message):
    __slots__ = ("for_restart",)
    FOR_RESTART_FIELD_NUMBER: _ClassVar[int]
    for_restart: bool
    def __init__(self, for_restart: _Optional[bool] = ...) -> None: ...

class DrainResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class PauseRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class PauseResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ResumeRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ResumeResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class CheckpointRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class CheckpointResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ScaleRewardWorkersRequest(_message.Message):
    __slots__ = ("count",)
    COUNT_FIELD_NUMBER: _ClassVar[int]
    count: int
    def __init__(self, count: _Optional[int] = ...) -> None: ...

class ScaleRewardWorkersResponse(_message.Message):
    __slots__ = ("previous",)
    PREVIOUS_FIELD_NUMBER: _ClassVar[int]
    previous: int
    def __init__(self, previous: _Optional[int] = ...) -> None: ...

class DeadLettersRequest(_message.Message):
    __slots__ = ("max_letters",)
    MAX_LETTERS_FIELD_NUMBER: _ClassVar[int]
    max_letters: int
    def __init__(self, max_letters: _Optional[int] = ...) -> None: ...

class DeadLettersResponse(_message.Message):
    __slots__ = ("letters", "total")
    LETTERS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    letters: _containers.RepeatedCompositeFieldContainer[DeadLetter]
    total: int
    def __init__(self, letters: _Optional[_Iterable[_Union[DeadLetter, _Mapping]]] = ..., total: _Optional[int] = ...) -> None: ...

class DeadLetter(_message.Message):
    __slots__ = ("term", "ordinal", "example", "failures", "worker", "reward_digest")
    TERM_FIELD_NUMBER: _ClassVar[int]
    ORDINAL_FIELD_NUMBER: _ClassVar[int]
    EXAMPLE_FIELD_NUMBER: _ClassVar[int]
    FAILURES_FIELD_NUMBER: _ClassVar[int]
    WORKER_FIELD_NUMBER: _ClassVar[int]
    REWARD_DIGEST_FIELD_NUMBER: _ClassVar[int]
    term: int
    ordinal: int
    example: int
    failures: _containers.RepeatedCompositeFieldContainer[ScoringFailure]
    worker: str
    reward_digest: str
    def __init__(self, term: _Optional[int] = ..., ordinal: _Optional[int] = ..., example: _Optional[int] = ..., failures: _Optional[_Iterable[_Union[ScoringFailure, _Mapping]]] = ..., worker: _Optional[str] = ..., reward_digest: _Optional[str] = ...) -> None: ...

class ScoringFailure(_message.Message):
    __slots__ = ("kind", "message", "traceback")
    KIND_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    TRACEBACK_FIELD_NUMBER: _ClassVar[int]
    kind: str
    message: str
    traceback: str
    def __init__(self, kind: _Optional[str] = ..., message: _Optional[str] = ..., traceback: _Optional[str] = ...) -> None: ...
