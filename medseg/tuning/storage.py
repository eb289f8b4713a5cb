"""Where a study keeps its trials: a SQLite file, a journal file, or a database that machines share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from medseg.errors import ResourceError, UsageError, first_line
from medseg.system.quiet_libraries import quiet

if TYPE_CHECKING:
    from optuna.storages import BaseStorage
    from optuna.study import Study

DEFAULT = "study.sqlite"
_SQLITE = (".sqlite", ".sqlite3", ".db")
_JOURNAL = (".journal", ".log", ".jsonl")
LOGGERS = ("optuna", "alembic", "sqlalchemy")
"""Their messages are for developers."""


def check_installed() -> None:
    """Refuses to go on without Optuna.

    Raises:
        ResourceError: it is not installed (``missing-extra``).
    """
    try:
        import optuna  # noqa: F401
    except ImportError:
        raise ResourceError(
            "the search needs Optuna, which is not installed",
            where="medseg tune",
            remedy="pip install 'medseg[tune]'",
            reason="missing-extra",
        ) from None


def described(storage: str | Path) -> str:
    """A storage as it may be printed and recorded: without user, password and options of a URL.

    >>> described("postgresql+psycopg://me:secret@db.example.org:5432/studies?sslpassword=more")
    'postgresql+psycopg://db.example.org:5432/studies'
    """
    text = str(storage)
    if "://" not in text:
        return text
    # Not urlsplit's netloc: a password may contain an unquoted "/" or "?", which ends it there.
    scheme, _, rest = text.partition("://")
    rest = rest.rpartition("@")[2].partition("?")[0]
    return f"{scheme}://{rest}"


def open_study(storage: str | Path, name: str) -> Study:
    """The study of this name in a storage, new or continued.

    Args:
        storage: A file that ends in ``.sqlite`` or ``.db``, or in ``.journal`` (Optuna's journal, for network
            file systems on which SQLite is not safe), or the URL of a database as SQLAlchemy writes it.
        name: Name of the study.

    Raises:
        UsageError: the file's suffix is unknown, or it cannot be opened (``tune-storage``). No message has a
            user or password of the URL.
    """
    import optuna

    with quiet(*LOGGERS):
        try:
            return optuna.create_study(
                storage=_storage(str(storage)), study_name=name, direction="maximize", load_if_exists=True
            )
        except UsageError:
            raise
        except Exception as error:  # of any database driver
            raise UsageError(
                f"the study cannot be opened: {_without_secrets(error, str(storage))}",
                where=described(storage),
                remedy="check the address, that the database runs, and that its Python driver is installed",
                reason="tune-storage",
            ) from None


def _storage(text: str) -> BaseStorage:
    from optuna.storages import JournalStorage, RDBStorage
    from optuna.storages.journal import JournalFileBackend

    if "://" in text:
        return RDBStorage(text)
    suffix = Path(text).suffix.lower()
    if suffix in _SQLITE:
        # Absolute, and a timeout that outlasts another process's write on a slow disk.
        return RDBStorage(
            f"sqlite:///{Path(text).absolute()}", engine_kwargs={"connect_args": {"timeout": 60}}
        )
    if suffix in _JOURNAL:
        return JournalStorage(JournalFileBackend(text))
    raise UsageError(
        f"a study is not kept in a file that ends in {suffix!r}",
        where=text,
        remedy=f"end it in {', '.join((*_SQLITE, *_JOURNAL))}, or give the URL of a database",
        reason="tune-storage",
    )


def _without_secrets(error: Exception, storage: str) -> str:
    """What went wrong; of an error about a URL only the type, because drivers repeat parts of the URL."""
    if "://" not in storage:
        return first_line(error)
    missing = f" {error.name}" if isinstance(error, ModuleNotFoundError) else ""
    return f"{type(error).__name__}{missing}"
