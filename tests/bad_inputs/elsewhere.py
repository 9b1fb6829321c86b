"""Rows that another test shows, because they need a server, a state or a machine of their own."""

from __future__ import annotations

from bad_inputs.row import Row

LOAD_RUNS = "client/loadtest/test_load_command_runs.py"
LOAD_WORDS = (
    "client/loadtest/test_load_command_arguments.py::test_a_bad_argument_is_refused_in_one_line"
)
LOAD_STREAMS = "client/loadtest/test_load_command_streams.py"
OVERLOAD = "router/test_overload.py"


def elsewhere(number: int, words: str, answer: str, seen_by: str, why: str = "") -> Row:
    return Row(number, words, answer, seen_by=seen_by, why=why)


ELSEWHERE_ROWS = (
    elsewhere(
        37,
        "1 MiB of one character, of blanks, of marks",
        "OK, or RESOURCE_EXHAUSTED TOKENIZER_BUDGET",
        "router/text/test_tokenizer.py::test_the_worst_texts_are_encoded_or_refused_off_the_event_loop",
    ),
    elsewhere(
        37,
        "a text past the tokenizer's time",
        "RESOURCE_EXHAUSTED TOKENIZER_BUDGET",
        "router/text/test_tokenizer.py::test_tokenizing_past_its_budget_is_refused_and_what_waits_is_never_run",
    ),
    elsewhere(
        49,
        "an infill where there is none",
        "FAILED_PRECONDITION FIM_UNSUPPORTED",
        "system/test_infill.py::test_where_there_is_no_infill_it_is_refused_and_completion_goes_on",
    ),
    elsewhere(
        56,
        "penalties over a whole context in a full batch",
        "OK",
        "system/test_equalities.py::test_each_of_32_requests_at_once_equals_itself_alone",
    ),
    elsewhere(
        68,
        "a priority above the caller's right",
        "PERMISSION_DENIED PRIORITY_DENIED",
        f"{OVERLOAD}::test_a_class_above_the_callers_right_is_denied_everywhere",
    ),
    elsewhere(
        79,
        "the id of a running request",
        "ALREADY_EXISTS REQUEST_ID_IN_USE",
        "router/test_servicer.py::test_a_request_id_in_use_is_refused_and_free_again_afterwards",
    ),
    elsewhere(
        79,
        "another caller's id",
        "OK",
        f"{OVERLOAD}::test_a_request_id_is_its_callers_own",
    ),
    elsewhere(
        80,
        "an id again, with another body, soon after its end",
        "FAILED_PRECONDITION IDEMPOTENCY_MISMATCH",
        f"{OVERLOAD}::test_an_id_stays_its_requests_for_a_while_after_the_answer",
    ),
    elsewhere(
        82,
        "another model's revision",
        "FAILED_PRECONDITION RESUME_MODEL",
        "router/test_resume.py::test_what_a_resumed_request_cannot_have_is_refused",
    ),
    elsewhere(
        89,
        "more sessions than a caller may have",
        "RESOURCE_EXHAUSTED SESSION_LIMIT",
        "router/test_session.py::test_a_connection_has_so_many_sessions_and_gets_them_back",
    ),
    elsewhere(
        89,
        "more sessions than a caller may have, over several connections",
        "RESOURCE_EXHAUSTED SESSION_LIMIT",
        f"{OVERLOAD}::test_sessions_are_counted_by_caller_whatever_the_connection",
    ),
    elsewhere(
        90,
        "a request while the shards load",
        "UNAVAILABLE WARMING",
        "router/test_server.py::test_a_router_without_shards_says_that_it_is_warming",
    ),
    elsewhere(
        91,
        "a request to a full queue",
        "RESOURCE_EXHAUSTED QUEUE_FULL",
        "router/test_servicer.py::test_a_full_queue_refuses_with_a_time_to_come_back",
    ),
    elsewhere(
        91,
        "a caller whose own queue is full",
        "RESOURCE_EXHAUSTED CALLER_QUEUE_FULL",
        f"{OVERLOAD}::test_a_caller_waits_in_its_own_queue_and_is_refused_beyond_it",
    ),
    elsewhere(
        92,
        "calls too often, of any kind",
        "RESOURCE_EXHAUSTED RATE",
        f"{OVERLOAD}::test_a_caller_asks_so_often_in_all_its_ways",
    ),
    elsewhere(
        98,
        "values of the wrong type in a line of JSONL",
        "exit 2",
        "client/loadtest/test_data_jsonl.py::test_a_broken_line_is_refused_with_its_file_and_line",
    ),
    elsewhere(
        102,
        "odd methods at the metrics port",
        "closed or 4xx",
        "system/test_bad_inputs.py::test_the_metrics_port_answers_get_alone",
    ),
    elsewhere(
        105,
        "a client that is gone in mid-answer",
        "",
        "router/test_servicer.py::test_a_client_that_disappears_frees_its_blocks",
    ),
    elsewhere(
        113,
        "closed standard streams",
        "exit 0",
        f"{LOAD_STREAMS}::test_closed_standard_streams_are_no_failure",
    ),
    elsewhere(
        113,
        "a terminal without colours at any width",
        "exit 0",
        f"{LOAD_STREAMS}::test_a_terminal_without_colours_gets_none_at_any_width",
    ),
    elsewhere(
        113,
        "a reader that leaves",
        "exit 0",
        "client/test_cli.py::test_a_reader_that_leaves_is_no_error_and_cancels",
    ),
    elsewhere(
        116, "no server", "exit 5", "client/test_cli.py::test_no_server_is_exit_5_with_a_hint"
    ),
    elsewhere(
        116,
        "a server that dies half way",
        "exit 1",
        f"{LOAD_RUNS}::test_a_server_that_dies_half_way_is_1_with_what_was_measured",
    ),
    elsewhere(
        118, "Ctrl-C", "exit 130", f"{LOAD_RUNS}::test_ctrl_c_is_130_and_keeps_what_was_measured"
    ),
    elsewhere(
        119,
        "a threshold that was missed",
        "exit 6",
        f"{LOAD_RUNS}::test_a_threshold_missed_is_6_and_shows_which",
    ),
    elsewhere(
        120,
        "a full disk",
        "exit 1",
        f"{LOAD_RUNS}::test_a_full_disk_is_1_and_leaves_no_half_of_a_file",
    ),
    elsewhere(120, "every other wrong word of the load tester", "exit 2", LOAD_WORDS),
    elsewhere(
        121,
        "every field, to the SDK and to the server",
        "the same reason",
        "bad_inputs/test_same_verdicts.py::test_sdk_and_server_judge_every_request_alike",
    ),
    elsewhere(
        124,
        "use after fork",
        "RuntimeError",
        "client/test_client.py::test_use_after_fork_is_a_clear_runtime_error",
    ),
)
