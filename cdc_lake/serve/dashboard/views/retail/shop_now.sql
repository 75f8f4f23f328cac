-- title: The shops now
-- kind: figures
-- about: Sales of the last hour, and what the shelves look like.
-- order: 10
-- width: full
-- needs: orders, inventory
WITH sold AS (
    SELECT count(*) AS sales, sum(total) AS revenue, count(*) FILTER (WHERE channel = 'online') AS online
    FROM orders
    WHERE placed_at > CAST($page_time AS TIMESTAMPTZ) - INTERVAL 1 hour AND status <> 'cancelled'
), shelves AS (
    SELECT count(*) AS shelves, count(*) FILTER (WHERE on_hand = 0) AS empty,
        count(*) FILTER (WHERE on_hand > 0 AND on_hand < reorder_point) AS low
    FROM inventory
)
SELECT sales AS "Sales in an hour", coalesce(revenue, 0) AS "Revenue in an hour",
    CASE WHEN sales > 0 THEN CAST(round(100.0 * online / sales) AS VARCHAR) || ' %' ELSE '–' END AS "Online",
    CASE WHEN shelves > 0 THEN CAST(round(100.0 * (shelves - empty) / shelves, 1) AS VARCHAR) || ' %' ELSE '–' END AS "On the shelf",
    empty AS "Out of stock", low AS "Running low"
FROM sold, shelves
