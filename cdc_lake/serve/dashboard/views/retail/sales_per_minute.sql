-- title: Sales per minute
-- kind: line
-- x: minute
-- y: sales
-- series: channel
-- unit: orders
-- about: Orders of the last hour by the minute, in each channel.
-- order: 20
-- width: full
-- needs: orders
-- rows: 1000
WITH minutes AS (
    SELECT unnest(generate_series(time_bucket(INTERVAL 1 minute, CAST($page_time AS TIMESTAMPTZ)) - INTERVAL 59 minute,
        time_bucket(INTERVAL 1 minute, CAST($page_time AS TIMESTAMPTZ)), INTERVAL 1 minute)) AS minute
), sold AS (
    SELECT time_bucket(INTERVAL 1 minute, placed_at) AS minute, CAST(channel AS VARCHAR) AS channel, count(*) AS sales
    FROM orders
    WHERE placed_at > CAST($page_time AS TIMESTAMPTZ) - INTERVAL 61 minute
    GROUP BY ALL
), channels AS (
    SELECT unnest(['pos', 'online']) AS channel
)
SELECT minute, channel, coalesce(sales, 0) AS sales
FROM minutes CROSS JOIN channels LEFT JOIN sold USING (minute, channel)
ORDER BY minute, channel DESC
