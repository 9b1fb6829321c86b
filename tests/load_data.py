"""Sources of the load tester's data as a command line makes them."""

from __future__ import annotations

import argparse
from collections.abc import Iterable

from hypothesis import settings

from santacoder_client.loadtest.data.options import (
    PreparedData,
    add_data_arguments,
    build_source,
    prepare_data,
)
from santacoder_client.loadtest.data.source import DescribedSource, ModelFacts, Prompt

SAME_EXAMPLES = settings(deadline=None, derandomize=True, database=None, max_examples=60)
"""For properties: no clock decides, and every run tries the same."""
MODEL = ModelFacts(
    token_count=1000,
    special_token_ids=frozenset({0, 7, 998, 999}),
    context_token_count=2048,
)


def prepared(*argv: object) -> PreparedData:
    """What `--data ...` reads before a server is asked."""
    parser = argparse.ArgumentParser()
    add_data_arguments(parser)
    return prepare_data(parser.parse_args([str(each) for each in argv]))


def source(*argv: object, model: ModelFacts = MODEL) -> DescribedSource:
    """The source of `--data ...` for a model."""
    return build_source(prepared(*argv), model)


def prompts(made: DescribedSource, indices: Iterable[int] = range(50)) -> list[Prompt]:
    """Some of its prompts."""
    return [made.prompt(index) for index in indices]
