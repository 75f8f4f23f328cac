-- title: Dead letters
-- kind: table
-- about: Records that could not be decoded, and what was decided about them: cdc-lake dlq list
-- page: Pipeline
-- order: 920
-- width: full
-- rows: 100
SELECT ingested_at, topic, "partition", "offset", error_class, reason
FROM lake.dead_letters
WHERE ingested_at <= CAST($clock AS TIMESTAMPTZ)
ORDER BY ingested_at DESC
