"""DuckDB SQL that prints a value of the lake as PostgreSQL prints it (its output function, in ISO dates)."""

from __future__ import annotations

from cdc_lake.sqltext import literal


def printed(lake: str, value: str, *, delimiter: str = ",") -> str:
    """SQL of `value`, of the lake type `lake`, as PostgreSQL's text; a timestamp with a zone in the session's zone.

    `delimiter` separates the elements of a list; PostgreSQL's is a comma, and a semicolon for boxes.
    """
    if lake.endswith("[]"):
        return _list(lake.removesuffix("[]"), value, delimiter)
    if lake.startswith("STRUCT"):
        x, y = (_float(f"({value}).{axis}", digits=15) for axis in "xy")
        return f"'(' || {x} || ',' || {y} || ')'"
    if lake.startswith("DECIMAL"):
        # DuckDB leaves out the zero before the point where the type has no digits for it.
        no_zero, zero = literal(r"^(-?)\."), literal(r"\10.")
        return f"regexp_replace(({value})::VARCHAR, {no_zero}, {zero})"
    special = {
        "BOOLEAN": f"CASE WHEN {value} THEN 't' WHEN NOT {value} THEN 'f' END",
        "BLOB": f"'\\x' || lower(hex({value}))",
        "FLOAT": _float(value, digits=6),
        "DOUBLE": _float(value, digits=15),
        "INTERVAL": _interval(value),
    }
    if lake in ("DATE", "TIMESTAMP", "TIMESTAMP WITH TIME ZONE"):
        before_christ, year_last = literal(r"^(.*?) \(BC\)(.*)$"), literal(r"\1\2 BC")
        return f"regexp_replace(({value})::VARCHAR, {before_christ}, {year_last})"
    return special.get(lake, f"({value})::VARCHAR")


def _float(value: str, *, digits: int) -> str:
    """DuckDB writes `1000000.0` where PostgreSQL writes `1e+06`: from 10^`digits` on PostgreSQL uses an exponent."""
    whole = literal(r"\.0$")
    text = f"regexp_replace(({value})::VARCHAR, {whole}, '')"
    plain = f"ltrim({text}, '-')"
    figures = f"rtrim(replace({plain}, '.', ''), '0')"
    exponent = f"(length(split_part({plain}, '.', 1)) - 1)"
    fraction = f"CASE WHEN length({figures}) > 1 THEN '.' || substr({figures}, 2) ELSE '' END"
    scientific = (
        f"CASE WHEN {value} < 0 THEN '-' ELSE '' END || left({figures}, 1) || {fraction} "
        f"|| 'e+' || lpad({exponent}::VARCHAR, greatest(2, length({exponent}::VARCHAR))::INTEGER, '0')"
    )
    return (
        f"CASE {text} WHEN 'nan' THEN 'NaN' WHEN 'inf' THEN 'Infinity' WHEN '-inf' THEN '-Infinity' ELSE "
        f"CASE WHEN abs({value}) >= 1e{digits} AND NOT contains({text}, 'e') THEN {scientific} ELSE {text} END END"
    )


def _interval(value: str) -> str:
    """PostgreSQL's own style: `-1 mons +3 days -04:05:06`; a plus sign only after a negative part."""
    year, month, day = (f"datepart('{part}', {value})" for part in ("year", "month", "day"))
    hour, minute = (f"datepart('{part}', {value})" for part in ("hour", "minute"))
    micro = f"datepart('microsecond', {value})"
    clock = f"({hour} * 3600000000 + {minute} * 60000000 + {micro})"

    def part(number: str, word: str, plus: str = "false") -> str:
        sign = f"CASE WHEN {number} > 0 AND {plus} THEN '+' ELSE '' END"
        plural = f"CASE WHEN {number} = 1 THEN '' ELSE 's' END"
        return f"CASE WHEN {number} <> 0 THEN {sign} || {number} || ' {word}' || {plural} END"

    negative_months = f"({year} < 0 OR {month} < 0)"
    negative_before = f"CASE WHEN {day} <> 0 THEN {day} < 0 ELSE {negative_months} END"
    sign = f"CASE WHEN {clock} < 0 THEN '-' WHEN {negative_before} THEN '+' ELSE '' END"
    fraction = f"rtrim(rtrim(printf('%09.6f', abs({micro}) / 1e6), '0'), '.')"
    seconds = f"CASE WHEN length({fraction}) < 2 THEN lpad({fraction}, 2, '0') ELSE {fraction} END"
    time = f"{sign} || printf('%02d', abs({hour})) || ':' || printf('%02d', abs({minute})) || ':' || {seconds}"
    empty = f"({year} = 0 AND {month} = 0 AND {day} = 0)"
    parts = [
        part(year, "year"),
        part(month, "mon"),
        part(day, "day", negative_months),
        f"CASE WHEN {clock} <> 0 OR {empty} THEN {time} END",
    ]
    return f"CASE WHEN {value} IS NOT NULL THEN concat_ws(' ', {', '.join(parts)}) END"


def _list(element: str, value: str, delimiter: str) -> str:
    text = printed(element, "e")
    bare = literal(r'[{}"\\\s' + delimiter + "]")
    quoted = "'\"' || replace(replace(p, '\\', '\\\\'), '\"', '\\\"') || '\"'"
    shown = (
        f"CASE WHEN p IS NULL THEN 'NULL' WHEN p = '' OR lower(p) = 'null' OR regexp_matches(p, {bare}) "
        f"THEN {quoted} ELSE p END"
    )
    texts = f"list_transform({value}, lambda e: {text})"
    return f"'{{' || array_to_string(list_transform({texts}, lambda p: {shown}), '{delimiter}') || '}}'"
