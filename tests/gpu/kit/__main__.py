"""Measures and checks scPaLM on an NVIDIA machine; see tests/gpu/README.md. Prints one table, and JSON.

    python -m tests.gpu.kit [--small] [--json kit.json] [--minutes 8] [--only parity rates] [--device cpu]

Needs torch, numpy, scipy, safetensors, pyarrow and pandas. Without a GPU it runs on the CPU. ``--small`` is a
rehearsal: every section with tiny sizes, and a smaller network in place of `base`.
"""

from __future__ import annotations

import argparse
import gc
import os
import platform
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch

from scpalm.model.bundle import Bundle
from scpalm.model.genes.rows import Rows
from scpalm.model.read_out.basis import Basis
from tests.gpu.kit.ceilings import DTYPES, device_copy_rate, matrix_rate, transfer_rate
from tests.gpu.kit.cells import draw
from tests.gpu.kit.host import host_to_answer
from tests.gpu.kit.parity import check_parity
from tests.gpu.kit.random_bundle import basis_of, write_random_bundle
from tests.gpu.kit.rates import Limits, Shapes, measure_rates
from tests.gpu.kit.report import Report
from tests.gpu.kit.sessions import Opened, onnx_session, reference, torch_session
from tests.gpu.kit.training_steps import Steps, measure_steps

# Cells per second from host memory, and the share of the matrix product from device memory.
WANTED = {"mini": {"from_host": 150_000.0}, "base": {"from_host": 25_000.0, "resident": 0.4}}
WANTED_TRAINING = {"base": 5000.0}


@dataclass(frozen=True)
class Sizes:
    """How much is measured.

    Attributes:
        matrix: rows of the matrix product. copy_bytes: of each copy.
        parity_cells: compared ones. drawn_cells: different ones, repeated as needed.
        expressed: genes of a cell. num_cells: in a call, ascending. seconds_a_shape: most for each.
        host_cells: from host to answer. training: the steps.
        smaller: replaces sizes of `base`. graphs: whether to write its ONNX graphs.
    """

    matrix: int
    copy_bytes: int
    parity_cells: int
    drawn_cells: int
    expressed: tuple[int, ...]
    num_cells: tuple[int, ...]
    seconds_a_shape: float
    host_cells: int
    training: Steps
    smaller: Mapping[str, int] = field(default_factory=dict)
    graphs: bool = True


SMALL = Sizes(
    matrix=512,
    copy_bytes=1 << 23,
    parity_cells=12,
    drawn_cells=12,
    expressed=(1000,),
    num_cells=(16,),  # the first size is always measured, however busy the machine is
    seconds_a_shape=0.5,
    host_cells=64,
    training=Steps(("mini",), batch=4, steps=1, genes=2000, variants=((),), seconds=300.0),
    smaller={"num_tokens": 64, "width": 64, "num_layers": 2, "num_heads": 4},
    graphs=False,
)
FULL = Sizes(
    matrix=8192,
    copy_bytes=1 << 28,
    parity_cells=192,
    drawn_cells=256,
    expressed=(1000, 500, 3000),
    num_cells=(64, 512, 4096, 16384),
    seconds_a_shape=3.0,
    host_cells=16384,
    training=Steps(("mini", "base"), batch=512, steps=20, genes=28373, variants=((), ("compile=true",)), seconds=75.0),
)


@dataclass
class Kit:
    """What the sections share.

    Attributes:
        ceilings: measured so far, by name.
    """

    device: torch.device
    sizes: Sizes
    report: Report
    folder: Path
    ceilings: dict[str, float] = field(default_factory=dict)

    @cached_property
    def mini(self) -> Bundle:
        return Bundle.load()

    @cached_property
    def basis(self) -> Basis:
        return basis_of(self.mini)

    @cached_property
    def base(self) -> Bundle:
        smaller, graphs = self.sizes.smaller, self.sizes.graphs
        return write_random_bundle(self.folder / "base", "base", self.mini, smaller=smaller, graphs=graphs)

    @cached_property
    def rows(self) -> dict[int, Rows]:
        """Cells by their number of expressed genes."""
        return {count: draw(self.basis, self.sizes.drawn_cells, count).rows() for count in self.sizes.expressed}

    @property
    def on_gpu(self) -> bool:
        return self.device.type == "cuda"

    def limits(self) -> Limits:
        """The ceilings that predictions use, NaN for one that failed. They are measured if --only left them out."""
        if not self.ceilings:
            ceilings(self)
        name = "bf16" if self.on_gpu else "fp32"
        return Limits(self.ceilings.get(name, float("nan")), self.ceilings.get("to device", float("nan")))

    def each(self, bundle: Bundle, use: Callable[[Opened], None]) -> None:
        """Open both sessions one after the other. One that cannot be opened is noted."""
        for open_one in (torch_session, onnx_session):
            try:
                opened = open_one(bundle, self.device)
            except (ImportError, ValueError) as error:
                self.report.add("no_session", f"{bundle.name}, {open_one.__name__}", None, note=f"skipped: {error}")
                continue
            use(opened)
            del opened
            _release(self.device)


def _release(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


# --- sections


def ceilings(kit: Kit) -> None:
    add, device, sizes = kit.report.add, kit.device, kit.sizes
    rows = sizes.matrix if kit.on_gpu else min(sizes.matrix, 1024)  # few processors have fast products in 16 bits
    for name, dtype in DTYPES.items():
        kit.ceilings[name] = rate = matrix_rate(device, dtype, rows)
        add("matrix_product", f"matrix product {rows:,}, {name}", rate / 1e12, "TFLOP/s")
    add(
        "device_copy",
        "copy in device memory, read and written",
        device_copy_rate(device, sizes.copy_bytes) / 1e9,
        "GB/s",
    )
    for to_device in (True, False):
        for pinned in (True, False) if kit.on_gpu else (False,):
            rate = transfer_rate(device, sizes.copy_bytes, pinned=pinned, to_device=to_device)
            if to_device and (pinned or not kit.on_gpu):
                kit.ceilings["to device"] = rate
            way = "host to device" if to_device else "device to host"
            add("transfer", f"{way}, {'pinned' if pinned else 'pageable'}", rate / 1e9, "GB/s")


def parity(kit: Kit, bundle: Bundle) -> None:
    half = kit.sizes.parity_cells // 2
    rows = Rows.concat([draw(kit.basis, half, count, seed=count).rows() for count in (1000, 3000)])
    expected = reference(bundle)
    kit.each(bundle, lambda opened: check_parity(kit.report, opened, expected, bundle, rows))


def rates(kit: Kit, bundle: Bundle, preset: str) -> None:
    shapes = Shapes(kit.sizes.num_cells, kit.rows, kit.sizes.seconds_a_shape)
    wanted = WANTED[preset] if kit.on_gpu else {}

    def measure(opened: Opened) -> None:
        speed = opened.session.warm_up()
        kit.report.add(
            "warm_up_rate",
            f"{bundle.name}, {opened.name}: rate of its warm-up",
            speed.cells_per_second,
            "cells/s",
            note=f"chosen batch: {speed.batch_cells} cells",
        )
        measure_rates(kit.report, opened, bundle, shapes, kit.limits(), wanted)
        used = torch.cuda.max_memory_allocated(kit.device) if kit.on_gpu else 0
        if used:
            kit.report.add("device_memory", f"{bundle.name}, {opened.name}: most device memory", used / 2**20, "MiB")

    kit.each(bundle, measure)


def host(kit: Kit) -> None:
    cells = draw(kit.basis, min(kit.sizes.host_cells, 512), 1000)
    times = -(-kit.sizes.host_cells // (len(cells.indptr) - 1))
    matrix = cells.repeated(times).matrix(kit.mini.vocabulary.symbols)
    opened = torch_session(kit.mini, kit.device)
    opened.session.warm_up()
    host_to_answer(kit.report, opened, kit.mini, matrix, min(4096, kit.sizes.host_cells))


def training(kit: Kit) -> None:
    measure_steps(kit.report, kit.sizes.training, WANTED_TRAINING if kit.on_gpu else {})


# Most seconds of each. Together more than the default of --minutes: what is not used is left to the others.
SECTIONS: dict[str, tuple[float, Callable[[Kit], None]]] = {
    "ceilings": (40, ceilings),
    "parity mini": (60, lambda kit: parity(kit, kit.mini)),
    "rates mini": (90, lambda kit: rates(kit, kit.mini, "mini")),
    "rates base": (120, lambda kit: rates(kit, kit.base, "base")),
    "parity base": (60, lambda kit: parity(kit, kit.base)),
    "host": (45, host),
    "training": (300, training),
}


def facts_of(device: torch.device) -> dict[str, object]:
    """About the card, its driver and the software."""
    facts: dict[str, object] = {
        "device": str(device),
        "card": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "CPU",
        "cores": len(os.sched_getaffinity(0)),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "python": platform.python_version(),
        "numpy": np.__version__,
    }
    try:
        import onnxruntime

        facts["onnxruntime"] = f"{onnxruntime.__version__}, {', '.join(onnxruntime.get_available_providers())}"
    except ImportError:
        facts["onnxruntime"] = None
    query = [
        "nvidia-smi",
        "--query-gpu=name,driver_version,memory.total,power.limit,clocks.max.sm",
        "--format=csv,noheader",
    ]
    try:
        facts["nvidia-smi"] = subprocess.run(
            query, capture_output=True, text=True, timeout=20, check=True
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        facts["nvidia-smi"] = None
    return facts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="a rehearsal: every section, tiny sizes")
    parser.add_argument("--json", type=Path, help="also write the results here")
    parser.add_argument("--minutes", type=float, default=8.0, help="stop after this time")
    parser.add_argument("--only", nargs="+", default=[], help="only sections whose names contain one of these words")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    device = torch.device("cuda:0" if options.device == "cuda" else options.device)
    if device.type == "cuda":
        torch.set_num_threads(1)  # the sessions on the CPU have a thread for each batch
    facts = facts_of(device) | {"small": options.small}
    print(", ".join(f"{name} {value}" for name, value in facts.items() if value is not None), flush=True)
    report = Report(options.json, minutes=options.minutes, facts=facts)
    with tempfile.TemporaryDirectory() as folder:
        kit = Kit(device, SMALL if options.small else FULL, report, Path(folder))
        for name, (seconds, run) in SECTIONS.items():
            if not options.only or any(word in name for word in options.only):
                # A rehearsal may run on a busy machine; only --minutes ends it.
                report.run(name, 60 * options.minutes if options.small else seconds, partial(run, kit))
    report.end_sections()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    report.add("host_memory", "most host memory of this process", peak, "MiB")
    report.write()
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main())
