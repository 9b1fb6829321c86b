"""Every row of bad inputs, and what prints them: `make bad-inputs`."""

from __future__ import annotations

from bad_inputs.absent_rows import ABSENT_ROWS
from bad_inputs.auth_rows import AUTH_ROWS
from bad_inputs.command_rows import COMMAND_ROWS
from bad_inputs.elsewhere import ELSEWHERE_ROWS
from bad_inputs.option_rows import OTHER_ROWS, SAMPLING_ROWS
from bad_inputs.prompt_rows import PROMPT_ROWS
from bad_inputs.row import Row
from bad_inputs.sdk_rows import SDK_ROWS
from bad_inputs.transport_rows import TRANSPORT_ROWS

ROWS: tuple[Row, ...] = tuple(
    sorted(
        (
            *TRANSPORT_ROWS,
            *PROMPT_ROWS,
            *SAMPLING_ROWS,
            *OTHER_ROWS,
            *ABSENT_ROWS,
            *AUTH_ROWS,
            *COMMAND_ROWS,
            *SDK_ROWS,
            *ELSEWHERE_ROWS,
        ),
        key=lambda row: row.number,
    )
)
# Numbers that are no row any more.
UNUSED = frozenset({3, 18, 24, 35, 36, 43, 64, 70, 71, 77, 87, 97, 101, 117, 122})


def lines() -> list[str]:
    """A line a row: number, input, ways in or the test that shows it, answer."""
    return [
        f"{row.number:>3}  {row.input:<58.58}  {row.seen_by or ', '.join(row.tries):<62}"
        f"  {row.answer}{'  (' + row.why + ')' if row.why else ''}"
        for row in ROWS
    ]


if __name__ == "__main__":
    print("\n".join(lines()))
