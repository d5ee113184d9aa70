"""From a tick on the page to another training: the list, what training makes of it, and what is wrong with a list."""

from __future__ import annotations

import csv
import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tag2mask.checkpoints import load_prototypes
from tag2mask.cli import main
from tag2mask.config import CooccurConfig, DataConfig, RunConfig, TagsConfig
from tag2mask.data import open_images
from tag2mask.errors import InputError
from tag2mask.stages.blocked import blocked_pairs, read_blocked, write_blocked
from tag2mask.stages.pipeline import read_settings
from tests.explore.conftest import HOSTILE_ID, NAMES, Talk

Serve = Callable[[Path], Talk]


def block(talk: Talk, image: int, c: int, blocked: bool = True) -> dict[str, object]:
    answer = talk.post("/api/blocked", json.dumps({"image": image, "class": c, "blocked": blocked}))
    assert answer.status == 200, answer.content
    return answer.values  # type: ignore[no-any-return]


def test_a_tick_is_written_at_once_and_can_be_taken_back(talk: Talk, run: Path, serve: Serve) -> None:
    block(talk, 9, 2)
    told = block(talk, 7, 1)
    with (run / "blocked.csv").open(encoding="utf-8", newline="") as file:
        assert list(csv.reader(file)) == [["image", "class"], [HOSTILE_ID, NAMES[1]], ["p09", "pond"]]
    assert [(row["image"], row["class"]) for row in told["blocked"]] == [(7, 1), (9, 2)]  # type: ignore[attr-defined]
    again = serve(run)
    assert again.ask("/api/blocked") == told, "it is read again at the next start"
    assert len(block(again, 7, 1, False)["blocked"]) == 1  # type: ignore[arg-type]
    block(again, 9, 2, False)
    assert (run / "blocked.csv").read_text() == "image,class\n"
    assert block(talk, 9, 2, False)["blocked"] == [], "twice does no harm"


def test_the_command_of_the_page_trains_without_the_wrong_prototype(talk: Talk, run: Path, serve: Serve) -> None:
    """The whole loop: a prototype is ticked, the command is run, the prototype is gone and weights have changed."""
    first = {"seed": 0, "method": "fpr", "moment": "first", "class": 0}
    row = talk.ask("/api/negatives", **first)["prototypes"][0]
    told = block(talk, row["image"], 0)
    command = shlex.split(str(told["command"]))
    assert command[:2] == ["tag2mask", "train"] and str(run.with_name("run-2")) in command
    assert main([*command[1:], "--quiet"]) == 0
    after = run.with_name("run-2")
    tags = json.loads((after / "seed0" / "tags.json").read_text())
    assert tags["unknown, not tagged"] == [[row["id"], "kite"]] and tags["unknown, tagged"] == []
    for method in ("cam", "fpr"):
        one, two = ((home / "seed0" / method / "weights.safetensors").read_bytes() for home in (run, after))
        assert one != two
    for epoch in (1, 2, 3):
        prototypes = load_prototypes(after / "seed0" / "fpr" / "prototypes" / f"epoch{epoch:03}.safetensors")
        assert row["image"] not in prototypes.negative_source[0, prototypes.negative_valid[0]].tolist()
    other = serve(after)
    assert row["image"] not in [each["image"] for each in other.ask("/api/negatives", **first)["prototypes"]]
    listed = other.ask("/api/blocked")
    assert [(each["image"], each["class"]) for each in listed["blocked"]] == [(row["image"], 0)], "the next list goes on from it"
    block(other, 3, 2)
    assert len(read_blocked(after / "blocked.csv", open_images(read_settings(after).data))) == 2
    assert str(run.with_name("run-3")) in str(listed["command"])


def test_an_empty_list_changes_nothing(run: Path, tmp_path: Path) -> None:
    (tmp_path / "b.csv").write_text("image,class\n")
    again = ["train", "--config", str(run / "settings.yaml"), "--out", str(tmp_path / "again"), "--quiet", "--methods", "fpr"]
    assert main([*again, "--tags.blocked", str(tmp_path / "b.csv")]) == 0
    one, two = ((home / "seed0" / "fpr" / "weights.safetensors").read_bytes() for home in (run, tmp_path / "again"))
    assert one == two


def test_a_tagged_pair_may_be_blocked_too_and_training_says_how_many(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "b.csv").write_text("class,image,why\nkite,p02,hidden\npond,p00,\n")
    command = ["train", "--config", str(run / "settings.yaml"), "--out", str(tmp_path / "new"), "--methods", "[]"]
    assert main([*command, "--tags.blocked", str(tmp_path / "b.csv")]) == 0
    tags = json.loads((tmp_path / "new" / "seed0" / "tags.json").read_text())
    assert tags["unknown, tagged"] == [["p02", "kite"]] and tags["unknown, not tagged"] == [["p00", "pond"]]
    assert "2 pairs of photo and class are blocked and will not be learnt from" in capsys.readouterr().err
    assert main([*command, "--tags.blocked", str(tmp_path / "b.csv"), "--resume"]) == 0


@pytest.mark.parametrize(
    "text, message",
    [
        ("image,class\np00,kite\np99,kite\n", "row 3: there is no image 'p99' in the data"),
        ("image,class\np00,kitee\n", "row 2: unknown class 'kitee'; did you mean 'kite'"),
        ("image\np00\n", "row 1: the column class is missing"),
        ("p00,kite\n", "row 1: the column image is missing"),
        ("image,class\np00,kite,1\n", "row 2: the row has 3 cells, the header 2"),
        ('image,class\n"p00,kite\n', "this is not CSV"),
        ("", "the file is empty"), (None, "there is no such file"),
    ],
)  # fmt: skip
def test_a_faulty_list_names_its_row_and_nothing_is_trained(
    run: Path, tmp_path: Path, text: str | None, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = tmp_path / "b.csv", tmp_path / "new"
    if text is not None:
        path.write_text(text)
    command = ["train", "--config", str(run / "settings.yaml"), "--out", str(out), "--tags.blocked", str(path), "--quiet"]
    assert main(command) == 2
    assert message in capsys.readouterr().err
    assert not list(out.rglob("*.safetensors"))


def test_lists_come_back_as_they_were_written(run: Path, tmp_path: Path) -> None:
    images = open_images(read_settings(run).data)
    pairs = {(7, 1), (0, 2), (7, 0)}
    write_blocked(tmp_path / "b.csv", pairs, images)
    assert read_blocked(tmp_path / "b.csv", images) == pairs
    config = RunConfig(data=read_settings(run).data, tags=TagsConfig(blocked=str(tmp_path / "b.csv")))
    assert {tuple(pair) for pair in np.argwhere(blocked_pairs(config, images)).tolist()} == pairs
    assert not blocked_pairs(RunConfig(), images).any()


def test_scenes_of_several_seeds_take_no_list(tmp_path: Path) -> None:
    data = DataConfig(cooccur=CooccurConfig(images=4, size=64))
    (tmp_path / "b.csv").write_text("image,class\n")
    config = RunConfig(data=data, seeds=(0, 1), tags=TagsConfig(blocked=str(tmp_path / "b.csv")))
    with pytest.raises(InputError, match="a block list fits a run of one seed alone"):
        blocked_pairs(config, open_images(data))
    assert not blocked_pairs(RunConfig(data=data, tags=config.tags), open_images(data)).any()


def test_a_list_that_is_damaged_is_told_on_the_page(run: Path, serve: Serve) -> None:
    (run / "blocked.csv").write_text("image,class\nnobody,kite\n")
    talk = serve(run)
    told = talk.ask("/api/run")
    assert told["blocked"] == [] and "there is no image 'nobody'" in told["blocked_fault"]
    assert talk.ask("/api/negatives", seed=0, method="fpr", moment="last", **{"class": 0})["prototypes"], "the rest goes on"
    shutil.copy(run / "settings.yaml", run / "blocked.csv")
    assert talk.post("/api/blocked", json.dumps({"image": 0, "class": 0, "blocked": True})).status == 409
    assert (run / "blocked.csv").read_text() == (run / "settings.yaml").read_text(), "it is not written over"
