-- title: Changes per minute
-- kind: line
-- x: minute
-- y: changes
-- unit: changes
-- about: Changes that the source committed, by the minute of their commit; the last hour.
-- page: Pipeline
-- order: 910
-- width: full
WITH minutes AS (
    SELECT unnest(generate_series(time_bucket(INTERVAL 1 minute, CAST($page_time AS TIMESTAMPTZ)) - INTERVAL 59 minute,
        time_bucket(INTERVAL 1 minute, CAST($page_time AS TIMESTAMPTZ)), INTERVAL 1 minute)) AS minute
), committed AS (
    SELECT time_bucket(INTERVAL 1 minute, source_ts) AS minute, sum(event_count) AS changes
    FROM lake.transactions
    WHERE status = 'END' AND source_ts > CAST($page_time AS TIMESTAMPTZ) - INTERVAL 61 minute
    AND source_ts <= CAST($page_time AS TIMESTAMPTZ)
    GROUP BY ALL
)
SELECT minute, CAST(coalesce(changes, 0) AS BIGINT) AS changes FROM minutes LEFT JOIN committed USING (minute) ORDER BY minute
