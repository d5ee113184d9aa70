"""The house as it was meant: who may import whom, what training may see, and how large a file gets."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import tag2mask

SOURCE = Path(tag2mask.__file__).parent
PROJECT = Path(__file__).parents[2]

ORDER = (
    ("errors", "config", "presets", "progress", "atomic", "shares", "processes", "launch"),
    ("data",),
    ("hosts",),
    ("fpr",),
    ("rivals",),
    ("noise",),
    ("maps",),
    ("refine",),
    ("segment",),
    ("score",),
    ("runs", "manifests", "checkpoints", "ranks"),
    ("engine",),
    ("settings",),
    ("stages",),
    ("report", "explore"),
    ("reproduce",),
    ("stages.demo",),
    ("commands",),
    ("cli",),
)
"""What stands on a line may import from its own line and from those above; ``demo`` is the stage that also reports."""

TRAINING = ("checkpoints", "engine", "ranks", "shares", "refine", "segment", "stages.train", "stages.tags", "stages.network", "stages.rivals", "noise", "fpr", "rivals", "hosts", "maps")
"""Modules and packages through which weights come about."""
FORBIDDEN_IN_TRAINING = ("tag2mask.data.masks", "tag2mask.score", "tag2mask.report", "tag2mask.stages.evaluate")


@cache
def modules() -> dict[str, ast.Module]:
    """Every module of the package by its full name."""
    found = {}
    for path in sorted(SOURCE.rglob("*.py")):
        parts = ("tag2mask", *path.relative_to(SOURCE).with_suffix("").parts)
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = ast.parse(path.read_text(encoding="utf-8"))
    return found


def imported(name: str, node: ast.AST) -> Iterator[str]:
    """Full names of the modules of this package that an import statement reads."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "tag2mask")
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, f"{name} has a relative import"
        if (node.module or "").split(".")[0] == "tag2mask":
            for alias in node.names:
                deeper = f"{node.module}.{alias.name}"
                yield deeper if deeper in modules() else str(node.module)


def all_imports(name: str) -> set[str]:
    """What a module imports, at its top or in a function."""
    return {found for node in ast.walk(modules()[name]) for found in imported(name, node)}


def top_imports(name: str) -> set[str]:
    """What a module imports when it is imported itself, with the packages around those."""

    def statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
        for node in body:
            yield node
            if isinstance(node, (ast.Try, ast.With)) or (isinstance(node, ast.If) and "TYPE_CHECKING" not in ast.dump(node.test)):
                yield from statements(node.body)

    found = {module for node in statements(modules()[name].body) for module in imported(name, node)}
    around = {".".join(module.split(".")[:depth]) for module in found for depth in range(1, module.count(".") + 1)}
    return found | (around & set(modules()))


def line(module: str) -> int:
    inner = module.removeprefix("tag2mask").removeprefix(".")
    for number, names in reversed(list(enumerate(ORDER))):
        if any(inner == name or inner.startswith(f"{name}.") for name in names if "." in name):
            return number
    for number, names in enumerate(ORDER):
        if inner.split(".")[0] in names:
            return number
    assert inner == "", f"{module} has no place in ORDER"
    return 0  # the package itself, which holds the version


def inside(module: str, parts: tuple[str, ...]) -> bool:
    return any(module == part or module.startswith(f"{part}.") for part in parts)


@pytest.mark.parametrize("name", sorted(modules()))
def test_imports_go_in_one_direction(name: str) -> None:
    wrong = [module for module in all_imports(name) if line(module) > line(name)]
    assert not wrong, f"{name} imports {', '.join(wrong)}, which stands behind it"


def test_no_module_needs_itself() -> None:
    def visit(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, " -> ".join([*way, name])
        if name not in done:
            for module in top_imports(name) - {".".join(name.split(".")[:n]) for n in range(1, name.count(".") + 2)}:
                visit(module, (*way, name))
            done.add(name)

    done: set[str] = set()
    for name in modules():
        visit(name, ())
    assert done == set(modules())


def training_modules() -> list[str]:
    wanted = tuple(f"tag2mask.{part}" for part in TRAINING)
    return [name for name in modules() if inside(name, wanted)]


def test_no_training_module_names_masks_or_scores() -> None:
    assert len(training_modules()) > 15
    for name in training_modules():
        assert not [module for module in all_imports(name) if inside(module, FORBIDDEN_IN_TRAINING)], name


def test_no_import_of_a_training_module_leads_to_masks_or_scores() -> None:
    reached, queue = set(), training_modules()
    while queue:
        name = queue.pop()
        if name not in reached:
            reached.add(name)
            queue += top_imports(name)
    assert "tag2mask.data.images" in reached
    assert not [module for module in reached if inside(module, FORBIDDEN_IN_TRAINING)]


def test_masks_and_scores_are_not_there_while_a_process_trains(environment: dict[str, str], tmp_path: Path) -> None:
    script = f"""
import json, sys
from dataclasses import replace
from pathlib import Path
import tag2mask.engine, tag2mask.fpr, tag2mask.maps.merge, tag2mask.maps.store
from tag2mask.config import *
from tag2mask.presets import PRESETS
from tag2mask.progress import Reporter
from tag2mask.stages.network import set_up_seed
from tag2mask.stages.train import prepare_tags, train_classifier, train_method
host = replace(PRESETS["paper"].host, backbone="test_efficientnet", weights="none", freeze="blocks.3")
phase = OptimiserConfig(epochs=1, batch_size=4, learning_rate=0.5)
data = DataConfig(cooccur=CooccurConfig(images=8, size=64))
config = RunConfig(data=data, host=host, views=ViewsConfig(size=64), classify=phase, rectify=phase)
run, report = Path({str(tmp_path)!r}), Reporter(quiet=True)
setup = set_up_seed(config, run, 0, tag2mask.engine.set_up_torch(1, "cpu"), report)
tags = prepare_tags(config, setup, run, report, False)
train_classifier(config, setup, tags, run, report, False)
train_method(config, setup, tags, "fpr", run, report, False)
print(json.dumps(sorted(name for name in sys.modules if name.startswith("tag2mask"))))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    loaded = json.loads(done.stdout)
    assert (tmp_path / "seed0" / "fpr" / "weights.safetensors").is_file()
    assert {"tag2mask.engine", "tag2mask.fpr.objective", "tag2mask.hosts.inputs", "tag2mask.data.cooccur"} <= set(loaded)
    assert not [name for name in loaded if inside(name, FORBIDDEN_IN_TRAINING)]


def roots(name: str) -> set[str]:
    """Top-level packages that a module imports, of anybody."""
    found = set()
    for node in ast.walk(modules()[name]):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").split(".")[0])
    return found


def test_rectification_knows_tensors_and_nothing_else() -> None:
    for name in [n for n in modules() if inside(n, ("tag2mask.fpr",))]:
        assert all(inside(m, ("tag2mask.fpr", "tag2mask.config", "tag2mask.presets", "tag2mask.shares")) for m in all_imports(name)), name
        outside = {"torch", "numpy", "sklearn", "threadpoolctl", "tag2mask", "__future__", "collections", "dataclasses", "typing", "math"}
        assert roots(name) <= outside, f"{name} imports {roots(name) - outside}"


def test_noise_knows_arrays_and_no_disk() -> None:
    for name in [n for n in modules() if inside(n, ("tag2mask.noise",))]:
        assert all(inside(m, ("tag2mask.noise", "tag2mask.fpr")) for m in all_imports(name)), name
        assert not roots(name) & {"os", "pathlib", "io", "PIL", "json", "csv"}, name


def test_scores_and_settings_need_no_torch() -> None:
    light = [n for n in modules() if inside(n, ("tag2mask.score", "tag2mask.config", "tag2mask.settings", "tag2mask.runs"))]
    for name in light:
        assert not roots(name) & {"torch", "torchvision", "timm"}, name


def calls(name: str) -> Iterator[tuple[str, ast.Call]]:
    """Every call of a module with the dotted name of what is called."""
    for node in ast.walk(modules()[name]):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


@pytest.mark.parametrize("name", sorted(modules()))
def test_nothing_is_executed_on_load_and_libraries_do_not_print(name: str) -> None:
    assert not roots(name) & {"pickle", "shelve", "marshal", "dill", "joblib"}
    prints = name.startswith("tag2mask.commands.") or name in ("tag2mask.cli", "tag2mask.launch", "tag2mask.stages.demo", "tag2mask.progress")
    for called, call in calls(name):
        options = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        assert called not in ("eval", "exec", "yaml.load", "os.system", "__import__"), called
        assert called != "print" or prints, "libraries do not print"
        if called == "torch.load":
            assert options.get("weights_only") == "True"
        if called in ("np.load", "numpy.load"):
            assert options.get("allow_pickle", "False") == "False"


def files(*folders: str) -> list[Path]:
    return [p for folder in folders for p in (PROJECT / folder).rglob("*") if p.is_file() and "__pycache__" not in p.parts]


def test_no_file_is_long() -> None:
    lengths = {p: len(p.read_text(encoding="utf-8").splitlines()) for p in files("src", "tests", "benchmarks") if p.suffix == ".py"}
    assert len(lengths) > 50
    assert not {str(p.relative_to(PROJECT)): n for p, n in lengths.items() if n >= 400}


def test_the_paper_stays_short() -> None:
    lengths = [len(p.read_text(encoding="utf-8").splitlines()) for p in (SOURCE / "fpr").glob("*.py")]
    assert len(lengths) >= 8 and sum(lengths) < 1150


def test_there_is_no_drawer() -> None:
    drawers = {"util", "utils", "common", "helper", "helpers", "misc", "tools", "manager", "managers"}
    for path in files("src", "tests", "benchmarks", "docs"):
        words = {word for part in path.relative_to(PROJECT).parts for word in part.split(".")[0].lower().split("_")}
        assert not words & drawers, path


def test_every_module_says_what_it_is_for() -> None:
    assert not [name for name, tree in modules().items() if not ast.get_docstring(tree)]
