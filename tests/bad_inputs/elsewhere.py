"""Rows that another test shows, because they need a server, a state or a machine of their own."""

from __future__ import annotations

from bad_inputs.row import Row

UNKNOWN_CALLER = "UNAUTHENTICATED"
LOAD_RUNS = "client/loadtest/test_load_command_runs.py"
LOAD_WORDS = (
    "client/loadtest/test_load_command_arguments.py::test_a_bad_argument_is_refused_in_one_line"
)
LOAD_STREAMS = "client/loadtest/test_load_command_streams.py"
GUARDED = "router/test_guarded_router.py"


def elsewhere(number: int, words: str, answer: str, seen_by: str, why: str = "") -> Row:
    return Row(number, words, answer, seen_by=seen_by, why=why)


ELSEWHERE_ROWS = (
    elsewhere(
        21,
        "no token",
        f"{UNKNOWN_CALLER} TOKEN_MISSING",
        f"{GUARDED}::test_no_method_answers_without_a_token_or_without_its_right",
    ),
    elsewhere(
        22,
        "a wrong token",
        f"{UNKNOWN_CALLER} TOKEN_INVALID",
        f"{GUARDED}::test_no_method_answers_without_a_token_or_without_its_right",
    ),
    elsewhere(
        22,
        "compared in equal time",
        "",
        "router/test_tokens.py::test_every_digest_is_compared_in_constant_time_to_the_end",
    ),
    elsewhere(
        23,
        "Bearer with nothing, two spaces, another scheme",
        f"{UNKNOWN_CALLER} TOKEN_INVALID",
        "router/test_access.py::test_whoever_is_not_known_is_unauthenticated",
    ),
    elsewhere(
        23,
        "a token of bytes, of nothing, twice",
        UNKNOWN_CALLER,
        f"{GUARDED}::test_a_token_that_no_library_would_send_is_refused_as_any_other",
    ),
    elsewhere(
        25,
        "a good token without the method's right",
        "PERMISSION_DENIED METHOD_NOT_ALLOWED",
        f"{GUARDED}::test_no_method_answers_without_a_token_or_without_its_right",
    ),
    elsewhere(
        26,
        "an expired token",
        f"{UNKNOWN_CALLER} TOKEN_EXPIRED",
        "router/test_tokens.py::test_a_token_is_good_until_its_time",
    ),
    elsewhere(
        26,
        "a token that was taken away",
        f"{UNKNOWN_CALLER} TOKEN_INVALID",
        f"{GUARDED}::test_tokens_are_given_and_taken_while_it_serves",
    ),
    elsewhere(
        27,
        "a hundred bad tokens in ten seconds",
        "RESOURCE_EXHAUSTED AUTH_RATE",
        f"{GUARDED}::test_too_many_bad_calls_are_told_to_wait_and_logged_once",
    ),
    elsewhere(
        28,
        "no certificate, or of another CA",
        "UNAVAILABLE",
        "router/test_secure_router.py::test_with_a_client_ca_only_its_certificates_are_let_in",
    ),
    elsewhere(
        28,
        "said in plain words",
        "UNAVAILABLE",
        "client/test_security.py::test_why_there_is_no_connection_is_said_in_plain_words",
    ),
    elsewhere(
        29,
        "a rank's stream opened wrongly",
        "FAILED_PRECONDITION",
        "shard/test_servicer.py::test_a_wrong_opening_is_refused_in_one_line_and_the_rank_lives_on",
        "a rank has no callers to deny a right to; its socket keeps others off",
    ),
    elsewhere(
        29,
        "a router that is none, at a rank's port",
        "PERMISSION_DENIED",
        "system/test_remote_shard.py::test_only_the_router_is_answered_and_only_by_the_rank_it_means",
    ),
    elsewhere(
        37,
        "1 MiB of one character, of blanks, of marks",
        "OK, or RESOURCE_EXHAUSTED TOKENIZER_BUDGET",
        "router/text/test_tokenizer.py::test_the_worst_texts_keep_within_the_budget_and_off_the_event_loop",
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
        79,
        "the id of a running request",
        "ALREADY_EXISTS REQUEST_ID_IN_USE",
        "router/test_servicer.py::test_a_request_id_in_use_is_refused_and_free_again_afterwards",
    ),
    elsewhere(
        80,
        "an id again, with another body, after its end",
        "OK",
        "router/test_servicer.py::test_a_request_id_in_use_is_refused_and_free_again_afterwards",
        "a client's resume carries its own ids, so none are kept after the end",
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
