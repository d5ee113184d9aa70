"""Tables and figures of the paper: runs are shared and resumed, and what is told is what the runs say."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from tag2mask.cli import main
from tag2mask.commands.reproduce import data_options
from tag2mask.config import DataConfig, FPRConfig, RunConfig
from tag2mask.errors import InputError
from tag2mask.presets import AUTHORS, PAPER, PAPER_AT_SCALE
from tag2mask.progress import Reporter
from tag2mask.report.published import FIGURE_7A, FIGURE_7A_REGION, TABLE_5
from tag2mask.reproduce import cells as cells_module
from tag2mask.reproduce import fig7, table5
from tag2mask.reproduce.cells import Cell, compute
from tag2mask.reproduce.items import ITEMS, chosen_items, reproduce
from tag2mask.reproduce.over_seeds import in_seeds, over_seeds, spread, verdict
from tag2mask.reproduce.scales import Scale, scale_of
from tag2mask.settings import flattened
from tests.reproduce.conftest import QUIET, run_items


def test_three_items_share_their_runs_and_tell_what_these_say(tiny_scale: Scale, tmp_path: Path) -> None:
    names = ("table5", "fig8", "scalars")
    texts = run_items(names, tiny_scale, tmp_path)
    folders = sorted((tmp_path / "runs" / "scenes" / "cam").iterdir())
    assert [folder.name for folder in folders] == ["seed0", "seed1"], "one run for each seed, whatever the items"
    summaries = [json.loads((folder / "summary.json").read_text()) for folder in folders]
    assert set(summaries[0]["methods"]) == {"cam", "continued", "halo", "focal", "rc", "pr", "paper", "fpr"}

    figures = json.loads((tmp_path / "table5.json").read_text())
    for method, (_, published) in table5.ROWS.items():
        values = [s["methods"][method]["gtfree"]["miou"]["mean"] for s in summaries]
        ours = figures["figures"]["sets"]["scenes"]["ours"][method]
        assert np.isclose(ours, np.mean(values))
        assert f"{np.mean(values):.1f} ±{np.std(values, ddof=1):.1f}" in texts["table5"]
        if published:
            difference = figures["figures"]["sets"]["scenes"]["difference"][method]
            assert np.isclose(difference, ours - TABLE_5[published], atol=0.01)
    assert {"torch", "tag2mask"} <= set(figures["versions"]) and figures["command"] == "tag2mask reproduce table5"

    details = [json.loads((folder / "details.json").read_text()) for folder in folders]
    for c, name in enumerate(details[0]["classes"]):
        values = [d["by_seed"][str(s)]["fpr"]["gtfree"]["class_fdr"][c] for s, d in enumerate(details)]
        known = [value for value in values if value is not None]
        row = next(line for line in texts["fig8"].splitlines() if line.startswith(f"| {name} |"))
        assert row.split("|")[-2].strip() == spread([np.nan if v is None else v for v in values])
        assert all(0 <= value <= 100 for value in known)
    with Image.open(tmp_path / "fig8_scenes.png") as picture:
        assert min(picture.size) > 400
    assert (tmp_path / "fig8_scenes.svg").read_text().count("<path") > 10
    lost = [json.loads((tmp_path / f"runs/scenes/missing/seed{s}/summary.json").read_text()) for s in (0, 1)]
    values = [s["methods"]["paper"]["gtfree"]["miou"]["mean"] for s in lost]
    assert f"| {spread(values)} |" in texts["scalars"] and "10% of the tags missing" in texts["scalars"]
    assert "halo" in texts["scalars"] and "protocol gtfree, seeds 0, 1" in texts["scalars"]


def test_a_grid_trains_on_from_one_cam(tiny_scale: Scale, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fig7, "FIGURE_7A_REGION", FIGURE_7A_REGION[:2])
    monkeypatch.setattr(fig7, "FIGURE_7A", {15e-5: FIGURE_7A[15e-5][:2]})
    monkeypatch.setattr(fig7, "THETAS", (0.1,))
    monkeypatch.setattr(fig7, "TEMPERATURES", (10.0,))
    monkeypatch.setattr(fig7, "COUNTS", (1,))
    scale = replace(tiny_scale, seeds=(0,))
    text = run_items(("fig7",), scale, tmp_path)["fig7"]
    cams = list((tmp_path / "runs").rglob("cam/weights.safetensors"))
    assert len(cams) == 8 and len({path.read_bytes() for path in cams}) == 1
    home = tmp_path / "runs/scenes/fig7"
    fpr = {p.relative_to(home).parts[0]: p.read_bytes() for p in home.rglob("fpr/weights.safetensors")}
    assert len(fpr) == 7
    assert fpr["weights_0.12_0.00015"] == fpr["theta_0.1"] == fpr["temperature_10"], "the paper's setting itself"
    assert fpr["momentum_0.0001"] != fpr["momentum_0.9"]
    assert "CAM trained on" in text and "halo" in text and (tmp_path / "fig7.svg").is_file()


def test_pictures_and_masks_of_the_first_seed(tiny_scale: Scale, tmp_path: Path) -> None:
    scale = replace(tiny_scale, seeds=(0,))
    texts = run_items(("table2", "table3", "table4", "fig3", "fig4", "fig5", "fig6"), scale, tmp_path)
    for name in ("fig3_scenes", "fig4_scenes", "fig5", "fig6_scenes"):
        with Image.open(tmp_path / f"{name}.png") as picture:
            values = np.asarray(picture.convert("RGB"))
        assert min(values.shape[:2]) > 300 and len(np.unique(values.reshape(-1, 3), axis=0)) > 20
        assert (tmp_path / f"{name}.svg").is_file()
    stages = json.loads((tmp_path / "runs/scenes/cam/seed0/stages.val.json").read_text())["stages"]
    assert f"{stages['fpr']['segmenter:irn']['miou']['mean']:.1f}" in texts["table2"]
    trained_on = json.loads((tmp_path / "runs/scenes/cam/seed0/stages.json").read_text())["stages"]
    row = next(line for line in texts["table3"].splitlines() if line.startswith("| FPR, the default"))
    assert row.split("|")[4].strip() == f"{trained_on['fpr']['irn']['miou']['mean']:.1f}", "masks of IRN, on the training photos"
    assert "AdvCAM + FPR" in texts["table2"] and "IRN + FPR" in texts["table3"]
    assert "decision boundary" in texts["fig5"] and "initial negative" in texts["fig5"]
    assert texts["table4"].count("W-OoD (photos without classes)") == 2, "by its maps, and with AdvCAM"
    assert "split val" in texts["fig4"] and "not trained on" in texts["fig4"] and "split train" in texts["fig3"]
    assert len(list((tmp_path / "out_of_distribution").iterdir())) == 80
    summary = json.loads((tmp_path / "runs/scenes/table4/seed0/summary.json").read_text())
    assert f"{summary['methods']['wood']['gtfree']['miou']['mean']:.1f}" in texts["table4"]
    overview = (tmp_path / "README.md").read_text()
    claims = [claim for name in texts for claim in json.loads((tmp_path / f"{name}.json").read_text())["claims"]]
    assert f"Of {len(claims)} claims" in overview and all(claim["paper"] in overview for claim in claims)
    assert all((tmp_path / f"{name}.md").is_file() and f"({name}.md)" in overview for name in texts)
    for name in ("table2_scenes", "table3_scenes", "table4_scenes"):
        assert (tmp_path / f"{name}.png").is_file() and (tmp_path / f"{name}.svg").is_file()
    page = (tmp_path / "index.html").read_text()
    assert "class=\"overview\"" in page and all(f'id="{name}"' in page for name in texts)
    assert page.count("<section") == 7 and "tag2mask reproduce fig6" in page and "http" not in page.replace("http-equiv", "")


@pytest.mark.parametrize("name", ["fig5", "table4"])
def test_an_item_by_itself_trains_what_it_needs(name: str, tiny_scale: Scale, tmp_path: Path) -> None:
    """Cells without any step after training are runs like others."""
    text = run_items((name,), replace(tiny_scale, seeds=(0,)), tmp_path)[name]
    assert (tmp_path / "runs/scenes/cam/seed0/seed0/cam/weights.safetensors").is_file()
    assert "FPR, the default" in text and "Could not be computed" not in text and "nan" not in text.lower()


def test_a_set_without_another_split_does_not_say_that_it_has_one(tiny_scale: Scale, tmp_path: Path) -> None:
    alone = replace(tiny_scale, seeds=(0,), sets=(replace(tiny_scale.sets[0], val=""),))
    texts = run_items(("table2", "fig4"), alone, tmp_path)
    assert "not trained on" not in texts["table2"] + texts["fig4"]
    assert "on photos that were trained on" in texts["table2"] and "photos that were trained on" in texts["fig4"]


def test_the_gain_of_every_host_counts_above_both_controls(tiny_scale: Scale, tmp_path: Path) -> None:
    text = run_items(("table1",), replace(tiny_scale, seeds=(0,)), tmp_path)["table1"]
    for host, title in (("cam", "CAM"), ("seam", "SEAM"), ("mctformer", "MCTformer")):
        run = tmp_path / "runs/scenes" / host / "seed0"
        summary = json.loads((run / "summary.json").read_text())["methods"]
        miou = {m: summary[m]["matched"]["miou"]["mean"] for m in ("continued", "halo", "fpr")}
        gain = miou["fpr"] - max(miou["continued"], miou["halo"])
        control = max(("continued", "halo"), key=lambda m: miou[m])
        (by_control,) = json.loads((run / "details.json").read_text())["differences"].values()
        low = by_control[control]["matched"]["low"]
        row = [line for line in text.splitlines() if line.startswith(f"| {title} |")][1]
        assert f"**{gain:+.1f}**" in row and f"{low:+.1f} to" in row
        verdict = "does not agree" if gain <= 0 else "cannot be told here"  # by one seed
        claim = next(line for line in text.splitlines() if line.startswith(f"- FPR improves {title} by"))
        assert f"**{verdict}**" in claim
    assert "matched*" in text and "* reads masks" in text and "seeds 0" in text and "8 images" in text


def test_what_could_not_be_computed_is_told_in_every_result(
    tiny_scale: Scale, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    do = cells_module.do

    def fails(step: str, cell: Cell, folder: Path, report: Reporter) -> None:
        if cell.name == "scenes/cam/seed1":
            raise RuntimeError("there is no room")
        do(step, cell, folder, report)  # type: ignore[arg-type]

    monkeypatch.setattr(cells_module, "do", fails)
    results = reproduce(("fig8", "fig3"), tiny_scale, tmp_path, "gtfree", 1, "tag2mask reproduce fig8 fig3", QUIET)
    assert list(results[0].missing) == ["scenes/cam/seed1"] and not results[1].missing
    assert results[0].missing["scenes/cam/seed1"].startswith("RuntimeError: there is no room (")
    assert "Traceback" in (tmp_path / "runs/scenes/cam/seed1/warnings.txt").read_text()
    (tmp_path / "index.html").unlink()
    reproduce(("fig8",), tiny_scale, tmp_path, "gtfree", 1, "tag2mask reproduce fig8", QUIET)
    assert "tag2mask reproduce fig3" in (tmp_path / "index.html").read_text(), "the page has what is there already"
    assert "Could not be computed" in (tmp_path / "fig8.md").read_text()
    assert "there is no room" in (tmp_path / "index.html").read_text()
    assert json.loads((tmp_path / "fig8.json").read_text())["missing"]


def test_figures_without_a_method_are_none(tiny_scale: Scale, tmp_path: Path) -> None:
    """As where a method is added, and one seed's training of it breaks down."""
    for seed, methods in ((0, {"cam": {}, "fpr": {}, "rc": {}}), (1, {"cam": {}, "fpr": {}})):
        folder = tmp_path / f"runs/scenes/cam/seed{seed}"
        folder.mkdir(parents=True)
        (folder / "summary.json").write_text(json.dumps({"methods": methods}))
        (folder / "details.json").write_text(json.dumps({"classes": ["car"]}))
    assert over_seeds(tiny_scale, "scenes/cam", tmp_path, ("fpr",)) is not None
    assert over_seeds(tiny_scale, "scenes/cam", tmp_path, ("fpr", "rc")) is None


def test_at_the_papers_settings_its_row_is_fpr_itself() -> None:
    scale = scale_of("voc", DataConfig(kind="voc", root="/voc"), (0,))
    assert scale.papers_form == "fpr" and table5.rows_of(scale)["fpr"][1] == "fpr" and not table5.rows_of(scale)["paper"][1]
    laptop = scale_of("laptop", None, (0,))
    assert laptop.papers_form == "paper" and table5.rows_of(laptop)["paper"][1] == "fpr"


def test_photos_without_masks_are_told_of_before_anything_starts(
    write_folder: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_folder("mine", masks=False)
    assert main(["reproduce", "fig8", "--out", str(tmp_path / "out"), "--data.root", str(root)]) == 2
    error = capsys.readouterr().err
    assert f"{root} has no masks" in error and error.count("\n") == 1 and not (tmp_path / "out").exists()


@pytest.mark.parametrize("arguments", [["--data.root", "ROOT"], ["--data.root", "ROOT", "--data.classes", "cat,dog"]])
def test_the_layout_of_ones_own_photos_need_not_be_said(
    arguments: list[str], write_folder: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    found: list[Scale] = []

    def nothing(names: tuple[str, ...], scale: Scale, *rest: object) -> list[object]:
        found.append(scale)
        return [SimpleNamespace(markdown=str, missing={})]

    monkeypatch.setattr("tag2mask.reproduce.items.reproduce", nothing)
    root = write_folder()
    given = [str(root) if each == "ROOT" else each for each in arguments]
    assert main(["reproduce", "fig8", "--out", str(tmp_path / "out"), *given]) == 0
    own = found[0].sets[1].data
    assert own.kind == "folder" and own.root == str(root) and own.classes == (("cat", "dog") if len(given) > 2 else ())


def test_the_json_holds_the_settings_of_its_runs(tiny_scale: Scale, tmp_path: Path) -> None:
    run_items(("fig8",), tiny_scale, tmp_path)
    settings = json.loads((tmp_path / "fig8.json").read_text())["settings"]
    assert settings["scenes/cam/seed0"]["fpr.prototypes"] == tiny_scale.sets[0].settings().fpr.prototypes
    assert settings["scenes/cam/seed1"] == {"seeds": [1]}


@pytest.mark.parametrize(
    ("gains", "expected", "words"),
    [
        ([0.5, 0.1, 2.0], True, ", in 3 of 3 seeds"), ([2.0, -0.1, 1.0], None, ", in 2 of 3 seeds"), ([-1.0], False, ", in 0 of 1 seed"),
        ([0.2, -0.4], False, ", in 1 of 2 seeds"), ([1.0], None, ", in 1 of 1 seed"), ([np.nan, 1.0], None, ", in 1 of 2 seeds"),
    ],
)  # fmt: skip
def test_a_claim_holds_if_every_seed_says_so(gains: list[float], expected: bool | None, words: str) -> None:
    assert verdict(gains) is expected and in_seeds(gains) == words


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["table9"], "expected one of table1"),
        (["table1", "--scale", "moon"], "expected one of laptop, voc, coco"),
        (["table1", "--scale", "voc"], "--data.root"),
        (["table1", "--jobs", "0"], "--jobs"),
        (["table1", "--seeds", "a"], "--seeds"),
        (["table1", "--protocol", "best"], "gtfree"),
        (["table1", "--preset", "ours"], "expected one of default, paper, authors"),
    ],
)
def test_mistakes_are_told_before_anything_starts(
    arguments: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["reproduce", *arguments, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1 and not (tmp_path / "out").exists()


def test_a_large_scale_says_what_it_costs_and_waits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["reproduce", "table1", "--scale", "voc", "--data.kind", "voc", "--data.root", str(tmp_path)]
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 2
    told = capsys.readouterr()
    assert "10582 photos" in told.out and "hours" in told.out and "--yes" in told.err


def test_all_stands_for_every_item() -> None:
    assert chosen_items(("all",)) == tuple(ITEMS) and chosen_items(("fig8", "fig8")) == ("fig8",)
    with pytest.raises(InputError, match="fig9"):
        chosen_items(("fig9",))


def test_a_large_scale_trains_on_what_the_paper_does_and_has_another_split() -> None:
    voc = scale_of("voc", DataConfig(kind="voc", root="/voc"), ()).sets[0]
    assert (voc.data.split, voc.val) == ("train_aug", "val")
    coco = scale_of("coco", DataConfig(kind="coco", root="/coco", split="train2014"), ())
    assert coco.sets[0].val == "val2014" and "82783 photos" in coco.cost


def test_a_folder_with_the_name_of_the_built_in_set_is_refused() -> None:
    with pytest.raises(InputError, match="rename the folder"):
        scale_of("laptop", DataConfig(kind="folder", root="/photos/scenes"), ())


def test_the_command_beside_a_result_is_the_one_that_computes_it() -> None:
    given = dict(flattened(asdict(DataConfig(kind="voc", root="/my photos", classes=("cat", "dog")))))
    given["classes"] = ["cat", "dog"]
    assert list(data_options(given)) == ["--data.kind", "voc", "--data.root", "/my photos", "--data.classes", "cat,dog"]
    assert list(data_options(asdict(DataConfig()) | {"classes": []})) == []


def test_the_preset_is_what_fpr_computes_and_is_named_so() -> None:
    found = {form: scale_of("laptop", None, (0,), form) for form in ("", "default", "paper", "authors")}
    forms = {form: scale.sets[0].settings().fpr for form, scale in found.items()}
    assert forms[""] == forms["default"] == FPRConfig() and forms["paper"] == PAPER_AT_SCALE
    assert forms["authors"].distance == "rms" and forms["authors"].singleton_superclass == "skip"
    assert found["authors"].titles["fpr"] == "FPR, preset authors" and found[""].titles["fpr"] == "FPR, the default"
    voc = DataConfig(kind="voc", root="/voc")
    large = {form: scale_of("voc", voc, (0,), form).sets[0] for form in ("", "default", "paper", "authors")}
    assert large[""].settings().fpr == large["paper"].settings().fpr == PAPER and large["authors"].settings().fpr == AUTHORS
    default = replace(large["default"].settings(), data=DataConfig(), seeds=RunConfig().seeds)
    assert default == RunConfig(), "what `tag2mask train` does: the default is for a frozen network"
    with pytest.raises(InputError, match="--preset 'ours' is unknown; expected one of default, paper, authors"):
        scale_of("laptop", None, (0,), "ours")


def test_tables_name_the_form_that_was_computed(tiny_scale: Scale, tmp_path: Path) -> None:
    released = replace(tiny_scale, seeds=(0,), sets=(replace(tiny_scale.sets[0], form="authors"),))
    text = run_items(("fig8",), released, tmp_path)["fig8"]
    assert "FPR, preset authors" in text and "FPR, the default" not in text


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_run_that_others_wait_for_comes_first(
    jobs: int, tiny_scale: Scale, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In chains as well; what waits for a run that failed is told and not begun."""
    base = replace(tiny_scale.sets[0].settings(), methods=("continued",))
    cells = [
        Cell("last", base, frozenset()), Cell("c", base, frozenset(), start="b"), Cell("b", base, frozenset(), start="a"),
        Cell("a", base, frozenset()), Cell("lost", base, frozenset(), start="bad"), Cell("bad", base, frozenset()),
        Cell("lost too", base, frozenset(), start="lost"),
    ]  # fmt: skip
    begun: list[str] = []
    lock = threading.Lock()

    def work(cell: Cell, out: Path) -> str:
        with lock:
            begun.append(cell.name)
        return "no room" if cell.name == "bad" else ""

    monkeypatch.setattr(cells_module, "work", work)
    monkeypatch.setattr(cells_module, "worker_pool", ThreadPoolExecutor)
    failed = {cell.name: why for cell, why in cells_module.outcomes(cells, tmp_path, jobs) if why}
    assert begun.index("a") < begun.index("b") < begun.index("c") and begun.index("last") >= 2
    assert set(begun) == {"a", "b", "c", "last", "bad"} and set(failed) == {"bad", "lost", "lost too"}
    assert failed["lost too"].startswith("lost, from which it trains on")


def test_a_run_in_another_process_trains_on_from_the_first(tiny_scale: Scale, tmp_path: Path) -> None:
    base = replace(tiny_scale.sets[0].settings(), methods=("continued",))
    cells = [Cell("b", base, frozenset({"evaluate"}), start="a"), Cell("a", base, frozenset())]
    assert compute(cells, tmp_path, 2, QUIET) == {}
    weights = [tmp_path / "runs" / name / "seed0/cam/weights.safetensors" for name in "ab"]
    assert weights[0].read_bytes() == weights[1].read_bytes() and (tmp_path / "runs/b/summary.json").is_file()


def test_photos_of_ones_own_are_a_further_set() -> None:
    scale = scale_of("laptop", DataConfig(kind="folder", root="/photos/mine"), (4,))
    assert [dataset.name for dataset in scale.sets] == ["scenes", "mine"] and scale.seeds == (4,)
