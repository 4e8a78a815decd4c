# The public names, in the order of the floors. Plugins import from here and nothing deeper.
from .cache import cache_folder
from .cargo import Load, Piece
from .carrier import Carrier
from .check import Check, Finding
from .chunks import ChunkPool
from .cli.options import DeviceOption, JsonOption, ModelsDirOption, SetOption
from .countdown import Countdown, duration
from .decoding import decode
from .device import check_device, compute_capability
from .document import Document, load_document
from .errors import (
    Cancelled,
    GatekitError,
    InputError,
    NumericsError,
    OutputError,
    PluginError,
    ScheduleError,
    UserError,
    WeightsError,
    one_line,
)
from .execute import run
from .execution import Execution, PhaseAsk
from .family import Components, ComponentSpec, Inputs, ModelFamily, VideoSpec
from .filebytes import cut_short, read_into
from .functional import FunctionPhase, sample, sample_phases
from .guidance import Guidance, Predict
from .guided import Guided
from .history import Auto, Carry, Close, HistoryPolicy, Reset
from .hooks import hookimpl
from .identity import file_identity
from .jsontext import read_json
from .linear import Linear, evaluate, lazy
from .load import Override, load_schedule
from .lookup import Finder, finder
from .measures import find_metric, list_metrics
from .metric import Metric, Sample
from .multistep import multistep_weights
from .noise import NoiseSource
from .opening import open_variant
from .output import check_out, make_folder, write_atomic
from .params import (
    AdjustParams,
    CacheParams,
    FamilyParams,
    GridParams,
    GuidanceParams,
    HistoryParams,
    Params,
    PhaseParams,
    SamplerParams,
    VariantParams,
)
from .path import Path, RectifiedFlow, VarianceExploding
from .phase import Phase, Renoise, Step
from .placement import Footprint, Placement
from .plan import Plan, PlannedPhase
from .registry import list_samplers
from .resolver import resolve
from .result import Result
from .sampler import Sampler, StepContext, StepResult, StretchContext
from .schedule import Schedule
from .serving import variant_spec
from .sigmas import SigmaGrid
from .state import Evaluation, Record, State, Trajectory
from .stepcache import Block, Body, Cached, StepCache
from .suggest import install_extra
from .variant import Conditioning, ModelVariant, Precision, VariantFacts
from .warm import Warm

__version__: str

__all__ = [
    "AdjustParams",
    "Auto",
    "Block",
    "Body",
    "CacheParams",
    "Cached",
    "Cancelled",
    "Carrier",
    "Carry",
    "Check",
    "ChunkPool",
    "Close",
    "ComponentSpec",
    "Components",
    "Conditioning",
    "Countdown",
    "DeviceOption",
    "Document",
    "Evaluation",
    "Execution",
    "FamilyParams",
    "Finder",
    "Finding",
    "Footprint",
    "FunctionPhase",
    "GatekitError",
    "GridParams",
    "Guidance",
    "GuidanceParams",
    "Guided",
    "HistoryParams",
    "HistoryPolicy",
    "InputError",
    "Inputs",
    "JsonOption",
    "Linear",
    "Load",
    "Metric",
    "ModelFamily",
    "ModelVariant",
    "ModelsDirOption",
    "NoiseSource",
    "NumericsError",
    "OutputError",
    "Override",
    "Params",
    "Path",
    "Phase",
    "PhaseAsk",
    "PhaseParams",
    "Piece",
    "Placement",
    "Plan",
    "PlannedPhase",
    "PluginError",
    "Precision",
    "Predict",
    "Record",
    "RectifiedFlow",
    "Renoise",
    "Reset",
    "Result",
    "Sample",
    "Sampler",
    "SamplerParams",
    "Schedule",
    "ScheduleError",
    "SetOption",
    "SigmaGrid",
    "State",
    "Step",
    "StepCache",
    "StepContext",
    "StepResult",
    "StretchContext",
    "Trajectory",
    "UserError",
    "VarianceExploding",
    "VariantFacts",
    "VariantParams",
    "VideoSpec",
    "Warm",
    "WeightsError",
    "cache_folder",
    "check_device",
    "check_out",
    "compute_capability",
    "cut_short",
    "decode",
    "duration",
    "evaluate",
    "file_identity",
    "find_metric",
    "finder",
    "hookimpl",
    "install_extra",
    "lazy",
    "list_metrics",
    "list_samplers",
    "load_document",
    "load_schedule",
    "make_folder",
    "multistep_weights",
    "one_line",
    "open_variant",
    "read_into",
    "read_json",
    "resolve",
    "run",
    "sample",
    "sample_phases",
    "variant_spec",
    "write_atomic",
]
