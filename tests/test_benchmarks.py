"""What the benchmarks keep beside them is what the library says now."""

import importlib.util
import json
from pathlib import Path

GPU = Path(__file__).parents[1] / "benchmarks" / "gpu.py"


def test_the_gpu_benchmark_has_the_papers_settings():
    spec = importlib.util.spec_from_file_location("gpu", GPU)
    gpu = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(gpu)
    kept = json.loads(gpu.SETTINGS.read_text(encoding="utf-8"))
    assert kept == gpu.current_settings(), "python benchmarks/gpu.py --write-settings"
    assert gpu.settings(phase_1__batch_size=7).phase_1.batch_size == 7
