"""What this machine is, for records of how fast it was."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path

_VERSIONED = ("torch", "transformers", "pillow", "ray", "pyarrow")


def cpu_name() -> str:
    """The processor's name, as the system has it."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def count_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def describe_hardware() -> dict[str, str]:
    """Processor, cores, memory, GPUs."""
    import torch

    described = {
        "cpu": cpu_name(),
        "cores": str(count_cores()),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:,.0f} GiB",
        "system": platform.platform(),
    }
    if torch.cuda.is_available():
        described["gpus"] = f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}, CUDA {torch.version.cuda}"
    return described


def installed_versions() -> dict[str, str]:
    """Versions of what decides the labels."""
    versions = {name: importlib.metadata.version(name) for name in _VERSIONED}
    return {"python": platform.python_version(), **versions}
