from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DTYPE_UNSPECIFIED: _ClassVar[DType]
    DTYPE_INT32: _ClassVar[DType]
    DTYPE_FLOAT32: _ClassVar[DType]
    DTYPE_FLOAT64: _ClassVar[DType]
DTYPE_UNSPECIFIED: DType
DTYPE_INT32: DType
DTYPE_FLOAT32: DType
DTYPE_FLOAT64: DType

class View(_message.Message):
    __slots__ = ("flip", "scale", "offset_y", "offset_x", "window")
    FLIP_FIELD_NUMBER: _ClassVar[int]
    SCALE_FIELD_NUMBER: _ClassVar[int]
    OFFSET_Y_FIELD_NUMBER: _ClassVar[int]
    OFFSET_X_FIELD_NUMBER: _ClassVar[int]
    WINDOW_FIELD_NUMBER: _ClassVar[int]
    flip: bool
    scale: float
    offset_y: float
    offset_x: float
    window: Window
    def __init__(self, flip: _Optional[bool] = ..., scale: _Optional[float] = ..., offset_y: _Optional[float] = ..., offset_x: _Optional[float] = ..., window: _Optional[_Union[Window, _Mapping]] = ...) -> None: ...

class Window(_message.Message):
    __slots__ = ("aspect", "min_area", "size")
    ASPECT_FIELD_NUMBER: _ClassVar[int]
    MIN_AREA_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    aspect: float
    min_area: float
    size: float
    def __init__(self, aspect: _Optional[float] = ..., min_area: _Optional[float] = ..., size: _Optional[float] = ...) -> None: ...

class Published(_message.Message):
    __slots__ = ("term", "policy_version")
    TERM_FIELD_NUMBER: _ClassVar[int]
    POLICY_VERSION_FIELD_NUMBER: _ClassVar[int]
    term: int
    policy_version: int
    def __init__(self, term: _Optional[int] = ..., policy_version: _Optional[int] = ...) -> None: ...

class Array(_message.Message):
    __slots__ = ("dtype", "shape", "data")
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    dtype: DType
    shape: _containers.RepeatedScalarFieldContainer[int]
    data: bytes
    def __init__(self, dtype: _Optional[_Union[DType, str]] = ..., shape: _Optional[_Iterable[int]] = ..., data: _Optional[bytes] = ...) -> None: ...

class Group(_message.Message):
    __slots__ = ("ordinal", "example", "view", "published", "tokens", "log_probs", "probe_log_probs", "num_tokens")
    ORDINAL_FIELD_NUMBER: _ClassVar[int]
    EXAMPLE_FIELD_NUMBER: _ClassVar[int]
    VIEW_FIELD_NUMBER: _ClassVar[int]
    PUBLISHED_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    LOG_PROBS_FIELD_NUMBER: _ClassVar[int]
    PROBE_LOG_PROBS_FIELD_NUMBER: _ClassVar[int]
    NUM_TOKENS_FIELD_NUMBER: _ClassVar[int]
    ordinal: int
    example: int
    view: View
    published: Published
    tokens: Array
    log_probs: Array
    probe_log_probs: Array
    num_tokens: int
    def __init__(self, ordinal: _Optional[int] = ..., example: _Optional[int] = ..., view: _Optional[_Union[View, _Mapping]] = ..., published: _Optional[_Union[Published, _Mapping]] = ..., tokens: _Optional[_Union[Array, _Mapping]] = ..., log_probs: _Optional[_Union[Array, _Mapping]] = ..., probe_log_probs: _Optional[_Union[Array, _Mapping]] = ..., num_tokens: _Optional[int] = ...) -> None: ...

class Score(_message.Message):
    __slots__ = ("reward", "components", "aux", "is_valid")
    class ComponentsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: Array
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[Array, _Mapping]] = ...) -> None: ...
    class AuxEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: Array
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[Array, _Mapping]] = ...) -> None: ...
    REWARD_FIELD_NUMBER: _ClassVar[int]
    COMPONENTS_FIELD_NUMBER: _ClassVar[int]
    AUX_FIELD_NUMBER: _ClassVar[int]
    IS_VALID_FIELD_NUMBER: _ClassVar[int]
    reward: Array
    components: _containers.MessageMap[str, Array]
    aux: _containers.MessageMap[str, Array]
    is_valid: bool
    def __init__(self, reward: _Optional[_Union[Array, _Mapping]] = ..., components: _Optional[_Mapping[str, Array]] = ..., aux: _Optional[_Mapping[str, Array]] = ..., is_valid: _Optional[bool] = ...) -> None: ...

class ScoredGroup(_message.Message):
    __slots__ = ("group", "score")
    GROUP_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    group: Group
    score: Score
    def __init__(self, group: _Optional[_Union[Group, _Mapping]] = ..., score: _Optional[_Union[Score, _Mapping]] = ...) -> None: ...
