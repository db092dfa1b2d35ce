"""The frame around all verbs: finding them, helping, and turning errors into messages and exit codes."""

from __future__ import annotations

import errno
import itertools
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from searchft import __version__
from searchft.cli import VERBS
from searchft.cli import searchft as group
from searchft.cli.output import ReaderLeft, mask_passwords
from searchft.cli.studies import check_writable
from searchft.errors import InputError, Interrupted, NothingCompletedError, Problem, StorageError

Run = Callable[..., object]


def run_python(code: str, **settings: object) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, **settings)


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_and_version_answer_at_once(option: str) -> None:
    times: list[float] = []
    for _ in range(5):
        subprocess.run([sys.executable, "-m", "searchft", option], check=True, capture_output=True)
        used = resource.getrusage(resource.RUSAGE_CHILDREN)  # processor time: what else runs here does not count
        times.append(used.ru_utime + used.ru_stime)
    assert min(after - before for before, after in itertools.pairwise(times)) < 0.3, times


def test_the_overview_imports_nothing_heavy() -> None:
    done = run_python(
        "import sys; from searchft.cli import call; call(['--help']); call(['--version'])\n"
        "print({'torch', 'optuna', 'rich', 'numpy', 'timm', 'sqlalchemy'} & set(sys.modules), file=sys.stderr)",
        text=True,
    )
    assert done.stderr.strip() == "set()" and f"searchft {__version__}" in done.stdout


def test_reading_a_study_needs_no_torch(small_study) -> None:
    done = run_python(
        "import sys; from searchft.cli import call\n"
        f"for verb in (['list'], ['show', 'faces']): assert call([*verb, '--studies', {str(small_study.studies)!r}]) == 0\n"
        "print('torch' in sys.modules, file=sys.stderr)",
        text=True,
    )
    assert done.stderr.strip() == "False"


@pytest.mark.parametrize("verb", VERBS)
def test_every_verbs_help_ends_with_an_example_of_it(verb: str, searchft: Run) -> None:
    result = searchft(verb, "--help")
    assert result.code == 0 and result.out.startswith(f"Usage: searchft {verb} ")
    _, found, example = result.out.partition("Example:\n")
    lines = [line.strip() for line in example.strip().splitlines()]
    assert found and lines and all(line.startswith(f"searchft {verb}") for line in lines)


@pytest.mark.parametrize(
    ("typed", "answer"),
    [
        *(("exprt", "did you mean 'export'?"), ("shwo", "did you mean 'show'?"), ("lst", "did you mean 'list'?")),
        *(("pets.yaml", "did you mean 'searchft run pets.yaml'?"), ("xyzzy", f"the verbs are {', '.join(VERBS)}")),
    ],
)
def test_an_unknown_verb_is_answered_with_the_near_one(typed: str, answer: str, searchft: Run) -> None:
    result = searchft(typed)
    assert result.code == 2 and answer in result.err and result.out == ""


def test_nothing_typed_shows_the_overview(searchft: Run) -> None:
    result = searchft()
    assert result.code == 2 and "Verbs:" in result.err and result.out == ""


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[BaseException], None]:
    """Makes `searchft list` raise; logs go to `tmp_path`."""
    monkeypatch.setenv("SEARCHFT_CACHE", str(tmp_path))

    def fail(error: BaseException) -> None:
        @click.command("list")
        @click.option("--json", "as_json", is_flag=True)
        def command(as_json: bool) -> None:
            raise error

        monkeypatch.setattr(group, "get_command", lambda context, name: command)

    return fail


TWO = InputError([Problem("x.yaml:3", "recipe.lr", "must be positive but got 0"), Problem("x.yaml:9", "k", "rule")])


@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [
        (TWO, "input", 2),
        (NothingCompletedError("no trial completed"), "nothing-completed", 3),
        (StorageError("postgresql://ann:s3cret@db/x is down", "postgresql://ann:s3cret@db/x"), "storage", 4),
        (Interrupted("stopped"), "interrupted", 130),
        (KeyboardInterrupt(), "interrupted", 130),
        (RuntimeError("postgresql://ann:s3cret@db/x: boom"), "internal", 1),
    ],
)
def test_errors_become_exit_codes_and_one_json_object(
    error: BaseException, kind: str, code: int, searchft: Run, failing
) -> None:
    failing(error)
    plain, as_json = searchft("list"), searchft("list", "--json")
    assert plain.code == as_json.code == code
    assert plain.out == "" and plain.err.strip()
    assert list(as_json.json) == ["error"] and set(as_json.json["error"]) == {"kind", "message", "where"}
    assert as_json.json["error"]["kind"] == kind
    assert "s3cret" not in plain.err + as_json.out + as_json.err


def test_every_problem_has_a_line_of_its_own(searchft: Run, failing) -> None:
    failing(TWO)
    lines = ["error: x.yaml:3: recipe.lr: must be positive but got 0", "error: x.yaml:9: k: rule"]
    assert searchft("list").err.splitlines() == lines


def test_a_bug_is_one_line_and_a_log_with_the_traceback_without_passwords(searchft: Run, failing, tmp_path: Path) -> None:
    failing(ZeroDivisionError("postgresql://ann:s3cret@db/x"))
    err = searchft("list").err
    (log,) = (tmp_path / "logs").iterdir()
    assert len(err.splitlines()) == 1 and str(log) in err
    assert "Traceback" in log.read_text() and "s3cret" not in log.read_text()


def test_a_wrong_option_under_json_is_a_json_error(searchft: Run) -> None:
    result = searchft("list", "--json", "--nonsense")
    assert result.code == 2 and result.json["error"]["kind"] == "input"


@pytest.mark.slow
def test_a_reader_that_leaves_early_is_no_error() -> None:
    program = f"{sys.executable} -m searchft models --json | head -c 10; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(("error", "code"), [(BrokenPipeError("a worker's pipe"), 1), (ReaderLeft(), 0)])
def test_a_broken_pipe_elsewhere_is_not_taken_for_a_reader_that_left(error, code: int, searchft: Run, failing) -> None:
    failing(error)
    assert searchft("list").code == code


@pytest.mark.parametrize(
    ("error", "message", "code"),
    [
        (PermissionError(errno.EACCES, "Permission denied", "/a/x.yaml"), "/a/x.yaml: permission denied: choose another", 4),
        (PermissionError(errno.EACCES, "Permission denied", "/a/.x.yaml.q1.part"), "error: /a: permission denied", 4),
        (OSError(errno.ENOSPC, "No space left on device", "/a/x"), "/a/x: no space left on device: free some space", 4),
        (OSError(errno.EBADF, "Bad file descriptor"), "a bug of ours", 1),
    ],
)
def test_what_the_system_refuses_is_no_bug_of_ours(error: OSError, message: str, code: int, searchft: Run, failing) -> None:
    failing(error)
    result = searchft("list")
    assert result.code == code and message in result.err


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://ann:s3cret@db/studies",
        "postgresql+psycopg2://ann:s3c@ret@db:5432/x?sslmode=require is down",
        "could not connect: host=db user=ann password=s3cret dbname=x",
        "postgresql://db/x?user=ann&password=s3cret&sslmode=off",
        "connect(password='s3cret', host='db')",
        '{"password": "s3cret", "host": "db"}',
    ],
)
def test_passwords_are_masked_wherever_they_stand(text: str) -> None:
    masked = mask_passwords(text)
    assert "s3c" not in masked and "***" in masked and "db" in masked


def test_what_is_no_password_stays() -> None:
    text = "spaces/x.yaml:14: see https://pytorch.org:443/docs or ask ann@example.org"
    assert mask_passwords(text) == text


def test_an_ascii_terminal_gets_question_marks_instead_of_an_error() -> None:
    done = run_python("from searchft.cli.output import emit; emit('lr ×0.6')", env={"PYTHONIOENCODING": "ascii"})
    assert done.stdout == b"lr ?0.6\n"


def test_a_place_that_cannot_hold_studies_is_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("x")
    check_writable(tmp_path / "new" / "studies")
    with pytest.raises(InputError, match="that you may write to"):
        check_writable(tmp_path / "file")
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(InputError, match="that you may write to"):
        check_writable(tmp_path / "new")
