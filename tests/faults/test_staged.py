"""Real ranks of a real service break in every way: clients see a pause and the same answers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from faults.plots import PLOTS, Plot
from faults.stage import Stage, perform

# A machine of two cores that others use; and 2 s in which it may do nothing at all.
PATIENCE = 3.0


def marked(plot: Plot) -> object:
    marks = [pytest.mark.fault(*plot.fault_ids), pytest.mark.long]
    return pytest.param(plot, marks=marks, id=plot.name.replace(" ", "-"))


@pytest.mark.parametrize("plot", [marked(plot) for plot in PLOTS])
def test_a_rank_breaks_and_no_answer_changes(
    two_ranks: Stage, plot: Plot, record_property: Callable[[str, object], None]
) -> None:
    earlier = two_ranks.reports()
    seconds = perform(two_ranks, plot)
    assert two_ranks.reports()[-1] not in earlier
    report = two_ranks.report()
    assert plot.cause in report, report
    assert "request_ids: " in report and "last_step: " in report
    record_property(
        "figure",
        f"{plot.name:40} noticed after {seconds['noticed']:5.2f} s,"
        f" next token after {seconds['next token']:5.2f} s",
    )
    assert seconds["noticed"] < PATIENCE * plot.detection_seconds + 2.0
