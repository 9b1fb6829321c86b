"""What users may rely on: the names, their documentation, and a light install."""

from __future__ import annotations

import subprocess
import sys

import santacoder_client
from santacoder_client import testing

PUBLIC_NAMES = """
    TLS Accepted AlreadyExists AsyncClient AsyncCompletionStream AsyncSession CallerLimits Cancelled
    Choice Client Completion CompletionOptions CompletionStream DeadlineExceeded FailedPrecondition
    FimOrder FinishReason InvalidRequest Limits ModelInfo Output Overloaded PermissionDenied Piece
    PositionLogprobs Priority Prompt RetryPolicy Sampling SantaCoderError ServerError Session
    SpecialToken Stopping Timings TokenLogprob TruncatePolicy Unauthenticated Unavailable Usage
    Violation
""".split()
VERBS = """
    close complete detokenize infill model resume session stream stream_infill tokenize wait_ready
""".split()
PLAIN_INSTALL = {
    "google",
    "grpc",
    "grpc_status",
    "santacoder",
    "santacoder_client",
    "typing_extensions",  # grpcio's own
}


def public(kind: type) -> list[str]:
    return sorted(name for name in vars(kind) if not name.startswith("_"))


def test_the_public_names_are_these_in_order() -> None:
    assert santacoder_client.__all__ == PUBLIC_NAMES
    assert PUBLIC_NAMES == sorted(PUBLIC_NAMES, key=lambda name: (not name.isupper(), name))
    assert testing.__all__ == ["Answer", "Failure", "FakeRouter"]


def test_every_public_name_is_there_and_documented() -> None:
    for name in PUBLIC_NAMES:
        value = getattr(santacoder_client, name)
        assert name == "Prompt" or value.__doc__, name


def test_both_clients_have_the_same_documented_verbs() -> None:
    for kind in (santacoder_client.Client, santacoder_client.AsyncClient):
        assert public(kind) == VERBS
        assert all(getattr(kind, verb).__doc__ for verb in VERBS)
    assert public(santacoder_client.Session) == public(santacoder_client.AsyncSession)


def test_finish_reasons_are_the_fixed_ones() -> None:
    names = [reason.name for reason in santacoder_client.FinishReason]
    assert names == ["END_OF_TEXT", "LENGTH", "STOP", "TIME_BUDGET", "CANCELLED"]


def test_the_sdk_imports_where_only_the_plain_install_can_be_imported() -> None:
    code = f"""
import sys
sys.path[:] = {sys.path!r}
class PlainInstall:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in sys.stdlib_module_names | {PLAIN_INSTALL!r}:
            raise ModuleNotFoundError(name, name=name)
sys.meta_path.insert(0, PlainInstall())
import santacoder_client, santacoder_client.cli, santacoder_client.testing
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_importing_the_sdk_loads_no_torch_numpy_or_tokenizers() -> None:
    code = f"""
import sys
sys.path[:] = {sys.path!r}
import santacoder_client, santacoder_client.cli, santacoder_client.testing
print(*sorted({{"numpy", "tokenizers", "torch", "transformers"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"
