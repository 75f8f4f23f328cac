"""May the role of the source's address read all that is compared? Asked before a row is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import psycopg

from cdc_lake.errors import SourceError, first_line
from cdc_lake.sqltext import ident

# `SELECT` may be granted column by column, and the policies of a table may hide rows from a role.
_RIGHTS = """
SELECT n.nspname, c.relname, current_user::text, has_schema_privilege(n.oid, 'USAGE'),
    NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
                AND NOT has_column_privilege(c.oid, a.attnum, 'SELECT')),
    row_security_active(c.oid)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p')
  AND (n.nspname, c.relname) IN (SELECT * FROM unnest(%(schemas)s::text[], %(tables)s::text[]))
ORDER BY n.nspname, c.relname
"""
_MARKER_RIGHTS = "GRANT USAGE ON SCHEMA cdc_lake TO {0}; GRANT SELECT, INSERT, UPDATE ON cdc_lake.heartbeat TO {0}"
_MOST = 5


def check_rights(connection: psycopg.Connection[Any], entries: Sequence[Mapping[str, Any]]) -> None:
    """Raises SourceError, with the SQL that mends it, if a table of the catalogue's `entries` cannot be read whole."""
    wanted = {"schemas": [e["schema"] for e in entries], "tables": [e["table"] for e in entries]}
    refused, statements, user = list[str](), dict[str, None](), ""
    for schema, name, user, enters, reads, hidden in connection.execute(_RIGHTS, wanted).fetchall():
        role, table = ident(user), f"{ident(schema)}.{ident(name)}"
        mended = [
            None if enters else f"GRANT USAGE ON SCHEMA {ident(schema)} TO {role}",
            None if reads else f"GRANT SELECT ON {table} TO {role}",
            f"ALTER ROLE {role} BYPASSRLS" if hidden else None,
        ]
        if any(mended):
            refused.append(f"{schema}.{name}")
            statements |= dict.fromkeys(s for s in mended if s)
    if refused:
        more = f" and {len(refused) - _MOST:,} more" if len(refused) > _MOST else ""
        raise SourceError(
            f"The role {user} may not read the whole of {', '.join(refused[:_MOST])}{more}.",
            why="Every column of every row is compared: a row that the role does not see would look like one too many.",
            next="; ".join(statements),
            code="permission_denied",
        )


def marker_refused(connection: psycopg.Connection[Any], error: psycopg.Error) -> SourceError:
    """The role may not write the row that tells when the lake has reached the source's position."""
    return SourceError(
        f"The role {connection.info.user} may not write to cdc_lake.heartbeat.",
        why=f"A beat of it tells when the lake has all that the source shows. PostgreSQL says: {first_line(error)}",
        next=_MARKER_RIGHTS.format(ident(connection.info.user)),
        code="permission_denied",
    )
