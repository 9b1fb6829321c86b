"""Rows 21 to 29: who calls. Each needs a server that asks, and a test shows it there."""

from __future__ import annotations

from bad_inputs.elsewhere import elsewhere

UNKNOWN_CALLER = "UNAUTHENTICATED"
GUARDED = "router/test_guarded_router.py"

AUTH_ROWS = (
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
)
