"""All results in one page, to browse without a server; and as Markdown, for where no page is shown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, PackageLoader, select_autoescape

from tag2mask.reproduce.result import VERDICTS, Result
from tag2mask.runs import versions, write_text

INTRODUCTION = (
    "Each with the command that computes it, the paper's figures beside ours, and what came of its claims. A gain "
    "counts above two controls: the class activation map trained on for as long, and halo, the same push without "
    "prototypes. It has to be there in each seed, and one seed alone agrees with nothing. FPR is what --preset says, "
    "usually this program's own form; claims about the terms, the weights, the prototypes and missing tags (Table 5, "
    "Figures 5 and 7, section 4.3) are held against the paper's form, which elsewhere is told beside it. The paper's "
    "figures are of PASCAL VOC and COCO; compare signs, not sizes."
)


def write_page(results: Sequence[Result], out: Path) -> Path:
    """``index.html`` with tables, claims and pictures of all results, and the command of each; ``README.md`` beside it.

    The latter lists the claims and links to the Markdown of each result.
    """
    environment = Environment(loader=PackageLoader("tag2mask.reproduce", "."), autoescape=select_autoescape())
    page = environment.get_template("page.html").render(
        results=results, versions=versions(), introduction=INTRODUCTION, verdicts=VERDICTS, counted=counted(results),
        vectors={p for r in results for p in r.pictures if (out / p).with_suffix(".svg").is_file()},
        several=len({claim.about for result in results for claim in result.claims if claim.about}) > 1,
    )  # fmt: skip
    path = out / "index.html"
    write_text(path, page)
    write_text(out / "README.md", overview(results))
    return path


def counted(results: Sequence[Result]) -> str:
    """``12 agree, 9 do not, 4 cannot be told here.``"""
    claims = [claim for result in results for claim in result.claims]
    found, sentences = [claim.agrees for claim in claims], {claim.paper for claim in claims}
    begin = f"Of {len(claims)} claims of the paper"
    if len(claims) > len(sentences):
        begin = f"{len(sentences)} claims of the paper were held against the sets here, {len(claims)} times in all:"
    return (
        f"{begin} {found.count(True)} agree with what came out here, {found.count(False)} do not, "
        f"{found.count(None)} cannot be told here."
    )


def overview(results: Sequence[Result]) -> str:
    """Claims by result, with a link to each."""
    parts = ["# The paper's tables and figures, computed here", INTRODUCTION, counted(results)]
    for result in results:
        parts.append(f"## [{result.title}]({result.name}.md)")
        parts += ["\n".join(claim.markdown() for claim in result.claims)] if result.claims else []
    return "\n\n".join(parts) + "\n"
