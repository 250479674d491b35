import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GetForecastRequest(_message.Message):
    __slots__ = ("horizon", "devices")
    HORIZON_FIELD_NUMBER: _ClassVar[int]
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    horizon: _duration_pb2.Duration
    devices: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, horizon: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., devices: _Optional[_Iterable[str]] = ...) -> None: ...

class GetForecastResponse(_message.Message):
    __slots__ = ("time", "horizon", "forecasts")
    TIME_FIELD_NUMBER: _ClassVar[int]
    HORIZON_FIELD_NUMBER: _ClassVar[int]
    FORECASTS_FIELD_NUMBER: _ClassVar[int]
    time: _timestamp_pb2.Timestamp
    horizon: _duration_pb2.Duration
    forecasts: _containers.RepeatedCompositeFieldContainer[Forecast]
    def __init__(self, time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., horizon: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., forecasts: _Optional[_Iterable[_Union[Forecast, _Mapping]]] = ...) -> None: ...

class Forecast(_message.Message):
    __slots__ = ("device", "alias", "field", "now", "expected", "low", "high", "confidence", "method", "basis", "past_error", "past_coverage", "known", "refusal", "reaches_limit_time", "may_reach_limit")
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    ALIAS_FIELD_NUMBER: _ClassVar[int]
    FIELD_FIELD_NUMBER: _ClassVar[int]
    NOW_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_FIELD_NUMBER: _ClassVar[int]
    LOW_FIELD_NUMBER: _ClassVar[int]
    HIGH_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    BASIS_FIELD_NUMBER: _ClassVar[int]
    PAST_ERROR_FIELD_NUMBER: _ClassVar[int]
    PAST_COVERAGE_FIELD_NUMBER: _ClassVar[int]
    KNOWN_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    REACHES_LIMIT_TIME_FIELD_NUMBER: _ClassVar[int]
    MAY_REACH_LIMIT_FIELD_NUMBER: _ClassVar[int]
    device: str
    alias: str
    field: str
    now: float
    expected: float
    low: float
    high: float
    confidence: float
    method: str
    basis: str
    past_error: float
    past_coverage: float
    known: _containers.RepeatedCompositeFieldContainer[KnownChange]
    refusal: str
    reaches_limit_time: _timestamp_pb2.Timestamp
    may_reach_limit: bool
    def __init__(self, device: _Optional[str] = ..., alias: _Optional[str] = ..., field: _Optional[str] = ..., now: _Optional[float] = ..., expected: _Optional[float] = ..., low: _Optional[float] = ..., high: _Optional[float] = ..., confidence: _Optional[float] = ..., method: _Optional[str] = ..., basis: _Optional[str] = ..., past_error: _Optional[float] = ..., past_coverage: _Optional[float] = ..., known: _Optional[_Iterable[_Union[KnownChange, _Mapping]]] = ..., refusal: _Optional[str] = ..., reaches_limit_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., may_reach_limit: bool = ...) -> None: ...

class KnownChange(_message.Message):
    __slots__ = ("time", "bytes", "subject", "what")
    TIME_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    WHAT_FIELD_NUMBER: _ClassVar[int]
    time: _timestamp_pb2.Timestamp
    bytes: int
    subject: str
    what: str
    def __init__(self, time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., bytes: _Optional[int] = ..., subject: _Optional[str] = ..., what: _Optional[str] = ...) -> None: ...
