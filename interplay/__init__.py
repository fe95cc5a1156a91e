"""Interplay trains a policy against a reward model and records every optimiser step of both.

Import what you need from its rooms; `RecorderCallback` and `UpdateRecorder` are also here, loaded
on first use so that the viewer never imports torch.
"""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"
__all__ = ["RecorderCallback", "UpdateRecorder", "__version__"]


def __getattr__(name: str) -> Any:
    if name == "RecorderCallback":
        from interplay.callback import RecorderCallback

        return RecorderCallback
    if name == "UpdateRecorder":
        from interplay.recorder import UpdateRecorder

        return UpdateRecorder
    raise AttributeError(f"module 'interplay' has no attribute {name!r}")
