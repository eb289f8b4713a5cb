"""Libraries are quiet in one block of one thread; everything else is as the process wants it."""

import ast
import logging
import re
import sys
import threading
import warnings
from pathlib import Path

import pytest

import medseg
from medseg.errors import InputWarning
from medseg.system.quiet_libraries import quiet, without_package


@pytest.fixture
def recorded():
    with warnings.catch_warnings(record=True) as recorded:
        warnings.simplefilter("always")
        yield recorded


def test_only_library_warnings_within_the_block_are_suppressed(recorded):
    warnings.warn("before", UserWarning, stacklevel=1)
    with quiet():
        warnings.warn("within", UserWarning, stacklevel=1)
        warnings.warn("within", DeprecationWarning, stacklevel=1)
        warnings.warn("ours", InputWarning, stacklevel=1)
    warnings.warn("after", UserWarning, stacklevel=1)
    assert [str(each.message) for each in recorded] == ["before", "ours", "after"]


def test_blocks_nest_and_errors_end_them(recorded):
    def fail() -> None:
        with quiet():
            with quiet("a"):
                pass
            warnings.warn("within", UserWarning, stacklevel=1)
            raise ValueError("x")

    with pytest.raises(ValueError, match="x"):
        fail()
    warnings.warn("after", UserWarning, stacklevel=1)
    assert [str(each.message) for each in recorded] == ["after"]


def test_warnings_as_errors_do_not_apply_within_the_block():
    with warnings.catch_warnings():
        with quiet():
            pass
        warnings.simplefilter("error")
        with quiet():
            warnings.warn("within", UserWarning, stacklevel=1)
        with pytest.raises(UserWarning, match="after"):
            warnings.warn("after", UserWarning, stacklevel=1)


def test_other_threads_still_warn_and_filters_do_not_accumulate(recorded):
    with quiet():
        filters, show = list(warnings.filters), warnings.showwarning
        thread = threading.Thread(target=warnings.warn, args=("elsewhere", UserWarning))
        thread.start()
        thread.join()
        with quiet():
            assert warnings.filters == filters
            assert warnings.showwarning is show
    assert [str(each.message) for each in recorded] == ["elsewhere"]


def test_records_of_named_loggers_and_their_children_are_dropped(caplog):
    below, other = logging.getLogger("somelibrary.part"), logging.getLogger("somelibraries")
    with quiet("somelibrary", below=logging.ERROR):
        below.warning("within")
        below.error("an error")
        other.warning("other")
        late = logging.getLogger("somelibrary.late")
        with quiet("somelibrary"):
            late.error("late")
    below.warning("after")
    assert [record.message for record in caplog.records] == ["an error", "other", "after"]
    assert (below.level, below.disabled) == (logging.NOTSET, False)


def test_a_package_is_blocked_in_this_thread_only(tmp_path, monkeypatch):
    (tmp_path / "reporting_package.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    places, found = sys.meta_path[:], []

    def elsewhere() -> None:
        import reporting_package

        found.append(reporting_package)

    with without_package("reporting_package"):
        with pytest.raises(ImportError, match="left out"):
            import reporting_package  # noqa: F401
        assert "reporting_package" not in sys.modules
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
    assert len(found) == 1
    assert sys.meta_path == places
    del sys.modules["reporting_package"]


def test_library_calls_leave_process_state_unchanged():
    """Filters, environment and modules are left alone, except in processes of our own."""
    package = Path(medseg.__file__).parent
    own = {"cli/app.py", "cli/train.py", "io/decoder/worker.py", "system/quiet_libraries.py"}
    forbidden = ("catch_warnings", "simplefilter", "filterwarnings", "warnings.showwarning", "os.putenv")
    forbidden += ("os.environ[", "os.environ.setdefault", "os.environ.update")
    forbidden += ("sys.modules.setdefault", "sys.modules.update", "sys.modules.pop", "del sys.modules")
    found = []
    for path in package.rglob("*.py"):
        name = path.relative_to(package).as_posix()
        if name not in own:
            code = _code(path)
            found += [f"{name}: {word}" for word in forbidden if word in code]
            found += [f"{name}: {text}" for text in re.findall(r"sys\.modules\[[^\]]*\] = .*", code)]
    assert sorted(found) == []


def _code(path) -> str:
    """A module's source without its comments and docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            node.value = ast.Constant(None)
    return ast.unparse(tree)
