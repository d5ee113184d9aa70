"""From localization maps to masks, a segmenter, and new photos."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tag2mask.commands import WHOSE_DEFAULTS, check_apart, command, common, method_names, new_parser, run_parser
from tag2mask.commands.maps import guess_kind
from tag2mask.errors import InputError


def with_settings_of(parser: Any, arguments: list[str], part: str, presets: Mapping[str, Any]) -> tuple[Any, Any]:
    """Parse with a part of the run's settings as options; returns the values and the run's settings with that part.

    What is not given is as in the run, or as in the one of ``presets`` that ``--preset`` names.
    """
    from dataclasses import asdict, fields, replace

    from tag2mask.config import RunConfig
    from tag2mask.settings import build, flattened, with_lists

    kind = {field.name: field.default_factory for field in fields(RunConfig)}[part]
    parser.add_class_arguments(kind, part)
    given = with_lists(arguments, part)
    first = parser.parse_args(given)  # which run, and which preset, decides the defaults of the rest
    preset = first.preset if presets else ""
    if preset and preset not in presets:
        raise InputError(f"--preset {preset!r} is unknown; expected one of {', '.join(presets)}.")
    from tag2mask.stages.pipeline import read_settings

    stored = read_settings(Path(first.run))
    defaults = presets[preset] if preset else getattr(stored, part)
    parser.set_defaults({f"{part}.{k}": v for k, v in flattened(asdict(defaults))})
    values = parser.parse_args(given)
    return values, replace(stored, **{part: build(type(defaults), values.as_dict()[part], "the settings", f"{part}.")})


def first(names: list[str], count: int) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(names[:count]) + more


@command("pseudo masks from maps: dense CRF, IRN, PSA")
def refine(arguments: list[str]) -> int:
    """Refined masks of every image, one palette PNG each."""
    parser = run_parser(
        "refine",
        "tag2mask refine RUN [--with crf|irn|psa] [--methods cam,fpr] [--split val] [--refine.OPTION ...]",
        "Refine localization maps into pseudo masks (palette PNGs, VOC colours): by a dense CRF, or by a random walk "
        "that IRN or PSA has learnt from what the CRF is sure of. Missing maps are made first; what is there is kept, "
        "unless its settings have changed.",
        methods="fpr",
    )
    parser.add_argument("--with", dest="refiner", default="irn", type=str, help="irn, psa, crf, or seed for none.")
    values, config = with_settings_of(parser, arguments, "refine", {})
    from tag2mask.progress import Reporter
    from tag2mask.stages import pipeline
    from tag2mask.stages.refine import check_refiner

    done = pipeline.refine_run(
        Path(values.run), check_refiner(values.refiner), method_names(values.methods), values.split,
        Reporter(values.quiet), config,
    )  # fmt: skip
    for masks in done:
        print(f"masks {masks.folder} (threshold {masks.threshold:.2f}, by the maps alone)")
    options = "" if values.refiner == "irn" else f" --from {values.refiner}"
    options += f" --methods {values.methods}" if values.methods else ""
    print(f"Next: tag2mask segment {values.run}{options}   or, with masks, tag2mask evaluate {values.run} --stages")
    return 0


@command("train a network on the pseudo masks; it needs no tag")
def segment(arguments: list[str]) -> int:
    """Train the segmenter."""
    parser = new_parser(
        "segment",
        "tag2mask segment RUN [--from irn|crf|psa|seed] [--methods cam,fpr] [--preset NAME] [--segment.OPTION ...]",
        "Train a segmentation network on the pseudo masks of a run. It segments new photos without any tag. Masks that "
        "are missing are made first; a training that was cut off goes on.",
    )
    parser.add_argument("run", type=str, help="Folder of a run.")
    parser.add_argument("--from", dest="source", default="irn", type=str, help="Masks: irn, crf, psa or seed.")
    parser.add_argument("--methods", default="", type=str, help="Methods, such as cam,fpr; default: fpr.")
    parser.add_argument("--preset", default="", type=str, help="small, deeplab_v1 or deeplab_v2; default: the run's.")
    common(parser)
    from tag2mask.config import SEGMENT_PRESETS

    values, config = with_settings_of(parser, arguments, "segment", SEGMENT_PRESETS)
    from tag2mask.progress import Reporter
    from tag2mask.stages import pipeline
    from tag2mask.stages.refine import check_refiner

    folders = pipeline.segment_run(
        Path(values.run), check_refiner(values.source), method_names(values.methods), Reporter(values.quiet), config
    )
    for folder in folders:
        print(f"segmenter {folder}")
    options = "" if values.source == "irn" else f" --from {values.source}"
    options += f" --method {method_names(values.methods)[0]}" if values.methods else ""
    print(f"Next: tag2mask predict {values.run} PHOTOS{options}")
    return 0


@command("segment new photos with a trained run")
def predict(arguments: list[str]) -> int:
    """Masks, overlays and areas of new photos."""
    parser = new_parser(
        "predict",
        "tag2mask predict RUN PICTURE_OR_FOLDER [--out FOLDER] [--method fpr] [--from irn] [--seed 0]",
        "Segment a picture or a folder of pictures, without any tag: masks (palette PNGs), overlays, and areas.json "
        "with the area of each class. Files that cannot be read are listed and left out; the exit code is then 1.",
    )
    parser.add_argument("run", type=str, help="Folder of a run after `tag2mask segment`.")
    parser.add_argument("source", type=str, help="A picture, or a folder of pictures.")
    parser.add_argument("--out", default="predictions", type=str, help="Folder of the results.")
    parser.add_argument("--method", default="", type=str, help="Whose segmenter; default: fpr.")
    parser.add_argument("--from", dest="masks", default="", type=str, help="Masks it has learnt from.")
    parser.add_argument("--seed", default=None, type=int | None, help="Seed of the run; default: its first.")
    parser.add_argument("--device", default="auto", type=str, help="auto, cpu, cuda ...")
    common(parser)
    values = parser.parse_args(arguments)
    from tag2mask.progress import Reporter
    from tag2mask.stages.predict import Segmenter, check_results, picture_names, predict_files

    source, out = Path(values.source), Path(values.out)
    check_results(source, out, picture_names(source))  # a mistake is told before the network is built
    segmenter = Segmenter.load(values.run, values.method, values.masks, values.seed, values.device)
    reporter = Reporter(values.quiet)
    reporter.say(f"initial weights: {segmenter.initial_weights}")
    result = predict_files(segmenter, source, out, reporter)
    for file, why in result.failures:
        reporter.warn(f"left out: {why if file in why else f'{file}: {why}'}")
    print(f"{result.done} picture{'' if result.done == 1 else 's'}: {out}/masks, {out}/overlays, {out}/areas.json")
    meanings = [f"{value} {name}" for value, name in enumerate(("background", *segmenter.classes))]
    print(f"in the masks: {first(meanings, 20)} (colours: {out}/areas.json)")
    if result.failures:
        count, files = len(result.failures), first([file for file, _ in result.failures], 3)
        print(f"{count} could not be read and {'is' if count == 1 else 'are'} listed in {out}/areas.json: {files}")
    return 1 if result.failures else 0


@command("take over localization maps that another program made", name="import")
def import_maps(arguments: list[str]) -> int:
    """Maps of IRN, AdvCAM, SEAM, ReCAM and their like, as the method `imported` of a run."""
    from tag2mask.settings import add_run_settings, run_config, with_lists

    parser = new_parser(
        "import",
        "tag2mask import MAPS --out RUN [--config FILE.yaml] [--data.OPTION ...]",
        "Read the maps of IRN, AdvCAM, SEAM, ReCAM and their like (.npy dictionaries; no code in them is run), or "
        "plain .npy and .npz arrays, for the photos of a data set. They become the method `imported` of a run: refine, "
        "segment and evaluate --stages then take --methods imported, predict and export --method imported.",
    )
    parser.add_argument("folder", type=str, help="Folder of <id>.npy or <id>.npz files.")
    parser.add_argument("--out", required=True, type=str, help="Folder of the run, new or not.")
    common(parser)
    add_run_settings(parser)
    parser.set_defaults({"methods": ()})
    values = parser.parse_args(with_lists(arguments))
    config, run = run_config(values), Path(values.out)
    check_apart(values.out, config.data.root)
    from tag2mask.progress import Reporter
    from tag2mask.stages import pipeline

    summary = pipeline.import_run(config, run, Path(values.folder), Reporter(values.quiet))
    print(f"{summary.maps} maps of {summary.images} images: {run}")
    if summary.untagged or summary.without_map:
        print(f"{summary.untagged} maps of classes without tag were left out; {summary.without_map} tags have no map")
    print(f"Next: tag2mask refine {run} --with crf --methods imported")
    return 0


@command("a segmenter or masks for other tools: ONNX, COCO, mmsegmentation, VOC")
def export(arguments: list[str]) -> int:
    """Other tools' formats."""
    parser = new_parser(
        "export",
        "tag2mask export RUN --to onnx|coco|mmseg|voc-archive --out PATH [--masks irn] [--method fpr] [--split val]",
        "Write the segmenter of a run as ONNX (checked against PyTorch on photos of the run), or its masks as COCO "
        "JSON, as a folder for mmsegmentation, or as the archive of the VOC test server. The ONNX file takes any size, "
        "but a network trained on squares (`view` in its metadata) wants the photo resized to `size` x `size` pixels.",
    )
    parser.add_argument("run", type=str, help="Folder of a run.")
    parser.add_argument("--to", required=True, type=str, help="onnx, coco, mmseg or voc-archive.")
    parser.add_argument("--out", required=True, type=str, help="File, or for mmseg folder, to write.")
    parser.add_argument(
        "--masks", default="irn", type=str,
        help="Masks to write, or for onnx those that the segmenter has learnt from: irn, crf, psa, seed; segmenter:irn "
        "for the predictions of a segmenter.",
    )  # fmt: skip
    parser.add_argument("--method", default="", type=str, help="Method; default: fpr.")
    parser.add_argument("--seed", default=None, type=int | None, help="Seed of the run; default: its first.")
    parser.add_argument("--split", default="", type=str, help="Another split than the one trained on, such as val.")
    common(parser)
    values = parser.parse_args(arguments)
    from tag2mask.progress import Reporter
    from tag2mask.stages import pipeline
    from tag2mask.stages.export import FORMATS

    if values.to not in FORMATS:
        raise InputError(f"--to {values.to!r} is unknown; expected one of {', '.join(FORMATS)}.")
    written, note = pipeline.export_run(
        Path(values.run), values.to, Path(values.out), values.masks, values.method, values.seed, values.split,
        Reporter(values.quiet),
    )  # fmt: skip
    print(f"{written}{note}")
    return 0


@command("from a folder of tagged photos to a model that segments new ones")
def run(arguments: list[str]) -> int:
    """Every stage, one after the other; what is finished is not done again."""
    from tag2mask.settings import add_run_settings, host_of, preset_of, run_config, with_lists

    parser = new_parser(
        "run",
        "tag2mask run FOLDER --out RUN [--host seam] [--config FILE.yaml] [OPTION ...]",
        "Train the classifier, rectify it, write maps, refine them into masks, and train a segmenter on these. The "
        "same command again goes on where it was cut off. Example: tag2mask run photos --out runs/mine",
    )
    parser.add_argument("root", nargs="?", default="", type=str, help="Folder of the data set (same as --data.root).")
    parser.add_argument("--out", required=True, type=str, help="Folder of the run.")
    parser.add_argument("--preset", default="laptop", type=str, help=WHOSE_DEFAULTS)
    parser.add_argument("--with", dest="refiner", default="irn", type=str, help="Refinement: irn, crf, psa or seed.")
    common(parser)
    arguments, host = host_of(arguments)
    add_run_settings(parser, preset_of(arguments), host)
    parser.set_defaults({"methods": ("fpr",)})
    values = parser.parse_args(with_lists(guess_kind(arguments, everything=False)))
    if values.root:
        values.data.root = values.root
    config = run_config(values)
    check_apart(values.out, config.data.root)
    from tag2mask.progress import Reporter
    from tag2mask.stages.demo import run_everything
    from tag2mask.stages.refine import check_refiner

    return run_everything(config, Path(values.out), check_refiner(values.refiner), Reporter(values.quiet))
