"""Documents to rows of equal length, made by processes that never stop. Knows no model.

A row is five lines of integers, one number a token: its id, its weight in the loss, and three
places in the row that say what it sees: where its segment begins, where its document begins, and up
to where it sees that document.
"""

from __future__ import annotations

import multiprocessing
import os
import random
from dataclasses import dataclass
from multiprocessing.queues import Queue
from typing import Any

import numpy as np
from corpus import SourceFile
from documents import DocumentMaker, Segment, cut_windows, identifiers
from numpy.typing import NDArray
from tokenizers import Tokenizer

POSITIONS = 1024
ROW_TOKENS = 2048
IDS, WEIGHTS, SEGMENT, DOCUMENT, FORK = range(5)
FILES_PER_DRAW = 24
WAITING_PACKS = 160

Pack = NDArray[np.int16]


@dataclass(frozen=True, slots=True)
class Production:
    """What a process makes rows from."""

    tokenizer: Tokenizer
    files: list[SourceFile]
    names: list[str]


def pack(documents: list[list[Segment]], rng: random.Random) -> Pack:
    """Rows [count, 5, ROW_TOKENS]: whole documents, the longest first, where one first fits."""
    lengths = [sum(len(segment.ids) for segment in document) for document in documents]
    rows: list[list[list[Segment]]] = []
    rooms: list[int] = []
    for number in sorted(range(len(documents)), key=lambda n: -lengths[n]):
        length = lengths[number]
        row = next((r for r, room in enumerate(rooms) if room >= length), len(rows))
        if row == len(rows):
            rows.append([])
            rooms.append(ROW_TOKENS)
        rows[row].append(documents[number])
        rooms[row] -= length
    packed = np.zeros((len(rows), 5, ROW_TOKENS), np.int16)
    # Padding sees itself alone, and has no weight.
    packed[:, SEGMENT:] = np.arange(ROW_TOKENS)
    for content, target in zip(rows, packed, strict=True):
        rng.shuffle(content)
        lay_out(content, target)
    return packed


def lay_out(documents: list[list[Segment]], row: Pack) -> None:
    """Write the documents' segments into the row, one after the other."""
    place = 0
    for document in documents:
        document_begin = place
        for segment in document:
            end = place + len(segment.ids)
            row[IDS, place:end] = segment.ids
            row[WEIGHTS, place:end] = segment.weights
            row[SEGMENT, place:end] = place
            row[DOCUMENT, place:end] = document_begin if segment.fork else place
            row[FORK, place:end] = document_begin + segment.fork if segment.fork else place
            place = end


def produce(production: Production, seed: int, packs: Queue[Pack]) -> None:
    """Put rows into `packs` without end: files drawn anew, cut anew each time."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    rng, files = random.Random(seed), list(production.files)
    maker = DocumentMaker(production.tokenizer, POSITIONS, ROW_TOKENS)
    while True:
        rng.shuffle(files)
        for begin in range(0, len(files), FILES_PER_DRAW):
            windows = cut_windows(files[begin : begin + FILES_PER_DRAW], production.names, rng)
            if windows:
                packs.put(pack([maker.make(window, rng) for window in windows], rng))


def start_producing(
    tokenizer: Tokenizer, files: list[SourceFile], seed: int, process_count: int
) -> Queue[Pack]:
    """Start the processes, before anything has touched the GPU; they end with this one."""
    context: Any = multiprocessing.get_context("fork")
    packs: Queue[Pack] = context.Queue(WAITING_PACKS)
    production = Production(tokenizer, files, identifiers(files))
    for number in range(process_count):
        arguments = (production, seed * 1_000_003 + number, packs)
        context.Process(target=produce, args=arguments, daemon=True).start()
    return packs
