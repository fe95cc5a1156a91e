"""The last lines of a job that failed, and one plain sentence on what to do about it, where the lines are known to mean something."""

from __future__ import annotations

import re

#: Pattern in the last lines, and what it means. The first that fits speaks.
_KNOWN: tuple[tuple[str, str], ...] = (
    (
        r"CUDA out of memory|OutOfMemoryError|out of memory|DefaultCPUAllocator|Cannot allocate memory|MemoryError",
        "The memory did not suffice: use fewer --completions or --prompts, a shorter --max-new-tokens, --tune lora, or a smaller model.",
    ),
    (r"No space left on device|disk is full|quota is used up", "The disk is full: free some space, or use --keep-checkpoints last, then resume the run."),
    (r"is being \w+ by ", "Another process writes this run: wait for its end, or stop it, before this one."),
    (
        r"gated repo|GatedRepo|401 Client Error|403 Client Error|Unauthorized",
        "The hub wants a login for this: run `hf auth login` on this machine, then start again.",
    ),
    (
        r"could not be had from the hub|is not a local folder|Repository ?Not ?Found|404 Client Error|OfflineMode"
        r"|couldn't connect|Connection ?Error|Name or service not known|Max retries exceeded",
        "It was not found here, and the hub did not give it: check the name and the network, or give a folder on this machine.",
    ),
    (r"no longer a finite number|not finite|DivergedError", "Training diverged: use a smaller --learning-rate, or more --completions."),
    (r"sees no CUDA device|CUDA driver|no kernel image", "The GPU cannot be used: choose --device cpu, or install a torch that fits its driver."),
    (r"engine, and \w+ is not installed|No module named", "A package is missing: run pip install '.[train]' in the checkout."),
    (r"a run named .* exists already", "The folder is taken: leave --out empty, or choose another one."),
    (r"Permission denied|permissions", "The folder may not be written or read: check its owner and permissions."),
    (r"Killed|signal 9|SIGKILL", "The system ended the process, most often for want of memory: use fewer --completions, or a smaller model."),
)


def hint(lines: str) -> str | None:
    """What to do; None where the lines have to speak for themselves."""
    return next((text for pattern, text in _KNOWN if re.search(pattern, lines, re.IGNORECASE)), None)
