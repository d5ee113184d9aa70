"""The paper's figures as constants: what the paper says about their differences holds."""

from __future__ import annotations

import pytest

from tag2mask.report import published


def test_gains_that_the_paper_names() -> None:
    gains = {name: row.with_fpr.miou - row.without.miou for name, row in published.TABLE_1.items()}  # type: ignore[operator]
    assert gains == pytest.approx({"cam": 4.8, "seam": 2.2, "advcam": 4.2, "mctformer": 2.1})
    rows = {(row.method, row.backbone): row for row in published.TABLE_2}
    base, better = rows["AdvCAM", "ResNet101"], rows["AdvCAM + FPR", "ResNet101"]
    assert (better.val - base.val, better.test - base.test) == pytest.approx((2.8, 3.0))
    coco = {row.method: row for row in published.TABLE_3}
    assert coco["IRN + FPR"].val - coco["IRN"].val == pytest.approx(1.9)
    cam, ours = published.TABLE_4["cam"], published.TABLE_4["fpr"]
    assert (ours.train - cam.train, ours.boat - cam.boat, ours.miou - cam.miou) == pytest.approx((15.3, 11.4, 4.8))


def test_tables_agree_with_each_other() -> None:
    cam = published.TABLE_1["cam"]
    assert cam.without.miou == published.TABLE_4["cam"].miou == published.TABLE_5["continued"]
    assert cam.with_fpr.miou == published.TABLE_4["fpr"].miou == published.TABLE_5["fpr"] == published.FIGURE_7B[10]
    assert published.FIGURE_7A[15e-5][published.FIGURE_7A_REGION.index(0.12)].mean == 54.3
    assert all(len(row) == len(published.FIGURE_7A_REGION) for row in published.FIGURE_7A.values())
    assert published.TABLE_1["advcam"].with_fpr.miou == published.TABLE_4["advcam+fpr"].miou
