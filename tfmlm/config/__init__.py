"""The configuration: what can be set, how it is read, and what does not go together."""

from tfmlm.config.schema import (
    FILE_SOURCES,
    Config,
    DataConfig,
    DistributeConfig,
    ExportConfig,
    HubConfig,
    MaskingConfig,
    ModelConfig,
    OptimizerConfig,
    RunConfig,
    TokenizerConfig,
    TrainConfig,
)

__all__ = [
    "FILE_SOURCES",
    "Config",
    "DataConfig",
    "DistributeConfig",
    "ExportConfig",
    "HubConfig",
    "MaskingConfig",
    "ModelConfig",
    "OptimizerConfig",
    "RunConfig",
    "TokenizerConfig",
    "TrainConfig",
]
