"""Ranks on GPUs break in every way: clients see a pause and the same answers."""

from __future__ import annotations

import importlib.util
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import make_checkpoint
from faults.history import Judge, What, truth_of
from faults.plots import GPU_GROUP_PLOTS, GPU_PLOTS, Plot
from faults.stage import KINDS, Stage, perform, staged
from running_service import Service

Record = Callable[[str, object], None]
PATIENCE = 3.0
BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
LEFT_BYTES = 256 << 20
# What a CUDA context and its libraries may keep of a device.
SPARE_BYTES = 64 << 20


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    # A short path, as sockets need.
    folder = Path(tempfile.mkdtemp(prefix="sf-"))
    yield folder
    shutil.rmtree(folder)
    shutil.rmtree(f"{folder}.state", ignore_errors=True)


@pytest.fixture(scope="module")
def model(folder: Path) -> Path:
    sizes: dict[str, Any] = {"positions": 2048, "embd": 256, "layers": 4}
    return make_checkpoint(folder / "small", dtype=torch.float16, **sizes)


@pytest.fixture(scope="module")
def one_gpu(model: Path, folder: Path) -> Iterator[Stage]:
    (folder / "1").mkdir()
    with staged(model, folder / "1", GPU_PLOTS, "--device=cuda", "--max-running=8") as stage:
        yield stage


def marked(plot: Plot, *more: pytest.MarkDecorator) -> Any:
    marks = [pytest.mark.fault(*plot.fault_ids), pytest.mark.long, *more]
    return pytest.param(plot, marks=marks, id=plot.name.replace(" ", "-"))


def hold(stage: Stage, plot: Plot, record_property: Record) -> None:
    seconds = perform(stage, plot)
    assert plot.cause in stage.report()
    record_property(
        "figure",
        f"{plot.name:40} noticed after {seconds['noticed']:5.2f} s,"
        f" next token after {seconds['next token']:5.2f} s",
    )
    assert seconds["noticed"] < PATIENCE * plot.detection_seconds + 0.5


@pytest.mark.parametrize("plot", [marked(plot) for plot in GPU_PLOTS])
def test_a_rank_breaks_and_no_answer_changes(
    one_gpu: Stage, plot: Plot, record_property: Record
) -> None:
    hold(one_gpu, plot, record_property)


@pytest.mark.two_gpus
@pytest.mark.parametrize("plot", [marked(plot) for plot in GPU_GROUP_PLOTS])
def test_a_rank_of_two_breaks_and_the_devices_are_free_again(
    model: Path, folder: Path, plot: Plot, record_property: Record
) -> None:
    place = folder / f"2-{plot.fault.token_id}"
    place.mkdir()
    before = [torch.cuda.mem_get_info(device)[0] for device in (0, 1)]
    with staged(model, place, GPU_GROUP_PLOTS, "--device=cuda", "--tp=2") as stage:
        hold(stage, plot, record_property)
    after = [torch.cuda.mem_get_info(device)[0] for device in (0, 1)]
    assert all(b - a <= SPARE_BYTES for b, a in zip(before, after, strict=True)), (before, after)


@pytest.mark.fault("S22")
@pytest.mark.long
def test_a_device_without_room_is_refused_in_one_line_with_numbers(
    model: Path, folder: Path
) -> None:
    place = folder / "full"
    place.mkdir()
    free_bytes = torch.cuda.mem_get_info(0)[0]
    hog = torch.empty(free_bytes - LEFT_BYTES, dtype=torch.uint8, device="cuda:0")
    service = Service(model, place, "--device=cuda")
    code, _, err = service.end()
    service.close()
    del hog
    torch.cuda.empty_cache()
    assert code != 0
    assert "Traceback" not in err.replace("\\n", ""), err
    assert any(line.startswith("error: ") for line in err.splitlines()), err


@pytest.mark.fault("X1")
@pytest.mark.long
def test_sigterm_lets_running_answers_end(model: Path, folder: Path) -> None:
    place = folder / "drained"
    place.mkdir()
    with staged(model, place, [], "--device=cuda", stops=False) as stage:
        kinds = list(KINDS)
        truth = truth_of(stage.ask(kinds, 1))
        histories: list[Any] = []
        asking = threading.Thread(target=lambda: histories.append(stage.ask(kinds, 1)))
        asking.start()
        while stage.service.metric("santacoder_router_running_requests") == 0:
            pass
        stage.service.process.send_signal(signal.SIGTERM)
        asking.join()
        assert stage.service.end()[0] == 0
    [history] = histories
    assert not [entry for entry in history if entry.what is What.FAILED]
    assert Judge(truth).hear(history) == []


@pytest.mark.fault("S1")
@pytest.mark.long
def test_a_model_of_the_real_shape_is_soon_back(folder: Path, record_property: Record) -> None:
    spec = importlib.util.spec_from_file_location(
        "random_checkpoint", BENCHMARKS / "random_checkpoint.py"
    )
    assert spec is not None and spec.loader is not None
    random_checkpoint = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = random_checkpoint
    spec.loader.exec_module(random_checkpoint)
    shape = random_checkpoint.Shape()
    real = random_checkpoint.ensure(folder / "real", shape, torch.float16)
    place = folder / "r"
    place.mkdir()
    plots = [plot for plot in GPU_PLOTS if plot.name == "rank killed at decode"]
    with staged(real, place, plots, "--device=cuda") as stage:
        seconds = perform(stage, plots[0])
    record_property("figure", f"1.1B group: next token {seconds['next token']:.2f} s after a kill")
    assert seconds["next token"] < 8.0
