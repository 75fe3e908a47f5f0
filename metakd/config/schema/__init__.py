"""The typed schema of every config group: one dataclass a group, whatever the choice.

A setting is accepted whatever the choices are; one that a choice does not use changes nothing and
is named in a warning. Settings that only one choice has live in its `options`, whose keys and
default values are in that choice's YAML file.

`_target_` and what stands under `supports` are facts about a choice, written in its YAML: they let
impossible combinations be refused before torch is imported.

A field declares all that is known of its setting: type, default, words, range, what it decides
(`metakd.config.schema.field.Setting`), and in the docstring below it what it means.
"""

from metakd.config.schema.choices import (
    FROZEN_MODES,
    LEARNED_MODES,
    REGRESSION_MODES,
    AlgorithmConfig,
    AlgorithmSupports,
    ArchitectureConfig,
    ArchitectureSupports,
    DatasetConfig,
    DatasetSupports,
    DistillConfig,
    DistillSupports,
)
from metakd.config.schema.compress import CompressConfig, CompressSupports
from metakd.config.schema.field import Setting
from metakd.config.schema.run import Config, EvaluateConfig, SweepConfig, TaskConfig, TrackerConfig
from metakd.config.schema.stages import (
    FinetuneConfig,
    IngredientsConfig,
    MetaTrainConfig,
    OptimizerConfig,
    PretrainConfig,
    WarmstartConfig,
)

__all__ = [
    "FROZEN_MODES",
    "LEARNED_MODES",
    "REGRESSION_MODES",
    "AlgorithmConfig",
    "AlgorithmSupports",
    "ArchitectureConfig",
    "ArchitectureSupports",
    "CompressConfig",
    "CompressSupports",
    "Config",
    "DatasetConfig",
    "DatasetSupports",
    "DistillConfig",
    "DistillSupports",
    "EvaluateConfig",
    "FinetuneConfig",
    "IngredientsConfig",
    "MetaTrainConfig",
    "OptimizerConfig",
    "PretrainConfig",
    "Setting",
    "SweepConfig",
    "TaskConfig",
    "TrackerConfig",
    "WarmstartConfig",
]
