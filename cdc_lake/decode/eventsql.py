"""The SQL that takes CloudEvents apart, over `records` (raw, v, utf8, k, headers, topic, part, off, ts, n).

`v` and `k` are value and key as text, null where they are not UTF-8 (of the value `utf8` tells), `raw` is the value's
bytes. Each step is a relation over the one before it. Nothing in them raises for a bad record: JSON is looked into
where it was found to be valid.
"""

from __future__ import annotations

from cdc_lake.sqltext import literal

# Attributes with a meaning of their own that must be texts when they are there.
_TEXTS = ("subject", "datacontenttype", "dataschema")
_TIME = r"\d{4}-\d{2}-\d{2}[Tt]\d{2}:\d{2}:\d{2}(\.\d+)?([Zz]|[+-]\d{2}:\d{2})"
_JSON_TYPE = r"(application|text)/([a-z0-9.!#$&^_-]+\+)?json"
# An attribute as name and JSON text.
_ENTRY = "STRUCT(n VARCHAR, j JSON)"

# 1. How the event is bound: the content type says so, else headers, else an object that can only be an event.
# 2. Its attributes as a list of names and JSON values, and its data as JSON text.
MODES = f"""
    heads AS (
        SELECT *, list_transform(map_entries(from_json(headers, '"MAP(VARCHAR, VARCHAR)"')),
            lambda e: {{'n': lower(e.key), 'v': e.value}}) AS hs FROM records),
    typed AS (
        SELECT *, list_filter(hs, lambda e: e.n = 'content-type')[1].v AS ct,
            list_filter(hs, lambda e: starts_with(e.n, 'ce_') AND e.v IS NOT NULL) AS ce,
            list_filter(hs, lambda e: e.n = 'traceparent')[1].v AS trace, coalesce(json_valid(v), false) AS jv
        FROM heads),
    bound AS (
        SELECT *, CASE WHEN starts_with(lower(ct), 'application/cloudevents') THEN 'structured'
            WHEN len(ce) > 0 THEN 'binary' WHEN raw IS NULL THEN 'tombstone'
            WHEN jv AND json_type(v) = 'OBJECT' AND json_exists(v, '$.specversion') THEN 'structured' END AS mode
        FROM typed),
    parted AS (
        SELECT *, CASE WHEN mode = 'structured' AND jv AND json_type(v) = 'OBJECT'
            THEN map_entries(from_json(v, '"MAP(VARCHAR, JSON)"')) END AS whole FROM bound),
    attributed AS (
        SELECT *, list_concat(
            list_filter(CASE mode WHEN 'binary' THEN list_concat(
                    list_transform(ce, lambda e: {{'n': e.n[4:], 'j': to_json(e.v)}}::{_ENTRY}),
                    CASE WHEN ct IS NOT NULL THEN [{{'n': 'datacontenttype', 'j': to_json(ct)}}::{_ENTRY}] ELSE [] END)
                ELSE list_transform(list_filter(whole, lambda e: e.key NOT IN ('data', 'data_base64')
                    AND e.value IS NOT NULL), lambda e: {{'n': e.key, 'j': e.value}}::{_ENTRY}) END,
                lambda e: k IS NULL OR e.n <> 'partitionkey'),
            CASE WHEN k IS NOT NULL THEN [{{'n': 'partitionkey', 'j': to_json(k)}}::{_ENTRY}] ELSE [] END) AS own
        FROM parted),
    named AS (
        SELECT * REPLACE (CASE WHEN trace IS NULL OR list_contains(names, 'traceparent') THEN own
            ELSE list_append(own, {{'n': 'traceparent', 'j': to_json(trace)}}::{_ENTRY}) END AS own)
        FROM (SELECT *, list_transform(own, lambda e: e.n) AS names FROM attributed)),
    read AS (
        SELECT *, {
    ", ".join(
        f"list_filter(own, lambda e: e.n = {literal(n)})[1].j AS a_{n}"
        for n in ("id", "source", "type", "specversion", "time", *_TEXTS)
    )
},
            list_filter(whole, lambda e: e.key = 'data')[1].value AS sdata,
            list_filter(whole, lambda e: e.key = 'data_base64')[1].value AS sbase64
        FROM named),
    told AS (
        SELECT *, coalesce(regexp_full_match(lower(trim(split_part(a_datacontenttype->>'$', ';', 1))), {
    literal(_JSON_TYPE)
}),
            NULL) AS json_said FROM read),
    filled AS (
        SELECT *, CASE mode WHEN 'structured' THEN sdata
            WHEN 'binary' THEN CASE WHEN raw IS NULL OR octet_length(raw) = 0 OR NOT utf8 THEN NULL
                WHEN coalesce(json_said, true) AND jv THEN v
                WHEN NOT coalesce(json_said, false) THEN to_json(v)::VARCHAR END END AS d,
            CASE mode WHEN 'structured' THEN sbase64->>'$'
                WHEN 'binary' THEN CASE WHEN NOT utf8 THEN to_base64(raw) END END AS b
        FROM told)
"""


def _no_text(name: str) -> str:
    return f"json_type(a_{name}) IS DISTINCT FROM 'VARCHAR' OR a_{name}->>'$' = ''"


_MISSING = " ".join(
    f"WHEN a_{n} IS NULL THEN 'missing_attribute: there is no `{n}`' "
    f"WHEN {_no_text(n)} THEN 'invalid_attribute: `{n}` is no text, or empty'"
    for n in ("specversion", "id", "source", "type")
)
_OPTIONAL = " ".join(
    f"WHEN a_{n} IS NOT NULL AND ({_no_text(n)}) THEN 'invalid_attribute: `{n}` is no text, or empty'" for n in _TEXTS
)
_TIMED = f"""regexp_full_match(a_time->>'$', {literal(_TIME)})
    AND TRY_CAST(regexp_replace(upper(a_time->>'$'), ':60(\\.\\d+)?', ':59') AS TIMESTAMPTZ) IS NOT NULL"""
# What is wrong with a record, as `class: reason`: the first that is found.
_FAULT = f"""CASE
    WHEN mode = 'tombstone' THEN NULL
    WHEN mode IS NULL AND NOT utf8 THEN 'invalid_utf8: the value is not UTF-8, and no header says what it is'
    WHEN mode IS NULL THEN 'not_a_cloudevent: no header begins with ce_, and the value is no object with `specversion`'
    WHEN mode = 'structured' AND lower(ct) NOT IN ('application/cloudevents', 'application/cloudevents+json')
        AND NOT starts_with(lower(ct), 'application/cloudevents+json;')
        AND NOT starts_with(lower(ct), 'application/cloudevents;') THEN 'unsupported_format: ' || ct
    WHEN mode = 'structured' AND NOT utf8 THEN 'invalid_utf8: the value is not UTF-8'
    WHEN mode = 'structured' AND NOT jv THEN 'invalid_json: the value is not JSON'
    WHEN mode = 'structured' AND json_type(v) <> 'OBJECT' THEN 'not_a_cloudevent: the value is not a JSON object'
    WHEN mode = 'structured' AND whole IS NULL THEN 'invalid_json: an attribute is there twice'
    {_MISSING}
    WHEN a_specversion->>'$' <> '1.0' THEN 'unsupported_specversion: ' || (a_specversion->>'$')
    {_OPTIONAL}
    WHEN a_time IS NOT NULL AND NOT coalesce({_TIMED}, false)
        THEN 'invalid_attribute: `time` is no RFC 3339 timestamp: ' || (a_time->>'$')
    WHEN len(list_filter(names, lambda n: NOT regexp_full_match(n, '[a-z0-9]+') OR n = 'data')) > 0
        THEN 'invalid_attribute: the name `'
            || list_filter(names, lambda n: NOT regexp_full_match(n, '[a-z0-9]+') OR n = 'data')[1] || '`'
    WHEN sdata IS NOT NULL AND sbase64 IS NOT NULL THEN 'invalid_data: both `data` and `data_base64`'
    WHEN mode = 'structured' AND sbase64 IS NOT NULL
        AND (json_type(sbase64) <> 'VARCHAR' OR TRY(from_base64(b)) IS NULL)
        THEN 'invalid_data: `data_base64` is not base64'
    WHEN mode = 'binary' AND json_said AND utf8 AND octet_length(raw) > 0 AND NOT jv
        THEN 'invalid_json: the value is not JSON, and content-type says so'
    END"""
# Fields of the data that are called like an attribute are shown as data_<name>.
_OURS = ["data", "data_base64", "kafka_partition", "kafka_offset"]
_CLASH = f"list_contains(list_concat(names, {_OURS}), lower({{}}))"
# Behind the attributes: where the event is, for the order of its key. No attribute has a name with an underscore.
_PLACE = """',"kafka_partition":' || part || ',"kafka_offset":' || off"""
_FIELDS = f"""CASE WHEN len(list_filter(json_keys(d), lambda n: {_CLASH.format("n")})) = 0
    THEN trim(d, E' \\t\\n\\r')[2:-2]
    ELSE array_to_string(list_transform(map_entries(from_json(d, '"MAP(VARCHAR, JSON)"')), lambda e:
        to_json(CASE WHEN {_CLASH.format("e.key")} THEN 'data_' || e.key ELSE e.key END) || ':'
        || coalesce(e.value::VARCHAR, 'null')), ',') END"""

# 3. What is wrong. 4. The image and the key of what is right.
EVENT = f"""
    , judged AS (SELECT *, {_FAULT} AS fault FROM filled),
    shaped AS (
        SELECT *, CASE WHEN fault IS NULL AND d IS NOT NULL THEN json_type(d) END AS kind FROM judged),
    content AS (
        SELECT *, CASE WHEN kind = 'OBJECT' THEN nullif(trim({_FIELDS}, E' \\t\\n\\r'), '')
            WHEN kind IS NOT NULL AND kind <> 'NULL' THEN '"data":' || d
            WHEN b IS NOT NULL THEN '"data_base64":' || to_json(b) END AS inner_text FROM shaped)
    SELECT n, topic, part, off, headers, make_timestamptz(greatest(ts, 0) * 1000) AS sent,
        CASE WHEN mode = 'tombstone' THEN 'x' ELSE 'c' END AS op,
        CASE WHEN kind = 'OBJECT' AND inner_text IS NULL AND len(json_keys(d)) > 0
            THEN 'invalid_json: a field of the data is there twice' ELSE fault END AS fault,
        CASE WHEN fault IS NULL AND mode <> 'tombstone' THEN
            CAST(json_object('source', a_source->>'$', 'id', a_id->>'$') AS VARCHAR) END AS key,
        CASE WHEN fault IS NULL AND mode <> 'tombstone' THEN
            '{{' || array_to_string(list_transform(own, lambda e: to_json(e.n) || ':'
                || CASE WHEN e.n = 'time' THEN upper(e.j::VARCHAR) ELSE e.j::VARCHAR END), ',')
            || {_PLACE} || coalesce(',' || inner_text, '') || '}}' END AS image
    FROM content ORDER BY n
"""

# The same at once for records as most producers send them, image null for all others: binary, each attribute a header
# of its own, the data a JSON object without a field that is called like one of them. The text of the headers is that of
# `consume.columns.header_json`, in which an unescaped quote behind a comma and a space begins a name.
_RARE = ("partitionkey", "data", "traceparent", "datacontenttype", "dataschema")
_HEADER = "ce_[a-z0-9]+|content-type|traceparent"
_PATHS = ", ".join(
    literal(f'$."{n}"')
    for n in ("ce_specversion", "ce_id", "ce_source", "ce_type", "ce_time", "ce_subject", "content-type", "traceparent")
)
_PLAIN_TIME = r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d+)?(Z|[+-]\d{2}:\d{2})"
_RENAMED = (
    """replace(replace(', ' || headers[2:-2], ', "ce_', ', "'), ', "content-type":', ', "datacontenttype":')[3:]"""
)
USUAL = f"""
    WITH looked AS (
        SELECT *, json_extract_string(headers, [{_PATHS}]) AS x, json_keys(headers) AS names,
            CASE WHEN json_valid(v) AND starts_with(v, '{{') THEN json_keys(v) END AS fields FROM records),
    kinds AS (
        SELECT DISTINCT names, fields FROM looked WHERE fields IS NOT NULL),
    usual AS (
        SELECT names, fields FROM kinds
        WHERE len(list_filter(names, lambda n: NOT regexp_full_match(n, '{_HEADER}'))) = 0 AND len(fields) > 0
        AND NOT list_has_any(names, [{", ".join(literal(f"ce_{n}") for n in _RARE)}])
        AND NOT list_has_any(list_transform(fields, lambda n: lower(n)), list_concat([{", ".join(map(literal, _OURS))},
            'datacontenttype', 'partitionkey', 'traceparent'], list_transform(names, lambda n: replace(n, 'ce_', '')))))
    SELECT n, topic, part, off, headers, make_timestamptz(greatest(ts, 0) * 1000) AS sent, 'c' AS op,
        NULL::VARCHAR AS fault,
        CASE WHEN good THEN CAST(json_object('source', x[3], 'id', x[2]) AS VARCHAR) END AS key,
        CASE WHEN good THEN '{{' || {_RENAMED} || coalesce(', "partitionkey": ' || to_json(k), '') || {_PLACE}
            || ',' || v[2:] END AS image
    FROM (SELECT l.*, coalesce(u.names IS NOT NULL AND x[1] = '1.0' AND x[2] <> '' AND x[3] <> '' AND x[4] <> ''
            AND coalesce(x[6] <> '', true) AND coalesce(x[7] IN ('application/json'), true)
            AND NOT contains(headers, ': null') AND ends_with(v, '}}') AND (x[5] IS NULL OR
                regexp_full_match(x[5], {literal(_PLAIN_TIME)}) AND TRY_CAST(x[5] AS TIMESTAMPTZ) IS NOT NULL),
            false) AS good
        FROM looked l LEFT JOIN usual u ON l.names = u.names AND l.fields = u.fields)
    ORDER BY n
"""
