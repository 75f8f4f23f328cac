-- The day's sales of each store. The day is that of the latest order, in UTC.
SELECT s.store_id, s.name AS store, count(*) AS orders,
       count(*) FILTER (WHERE o.channel = 'online') AS online, sum(o.total) AS revenue
FROM orders o
JOIN stores s ON s.store_id = o.store_id
WHERE CAST(o.placed_at AT TIME ZONE 'UTC' AS date)
      = (SELECT max(CAST(placed_at AT TIME ZONE 'UTC' AS date)) FROM orders)
  AND o.status <> 'cancelled'
GROUP BY s.store_id, s.name
ORDER BY revenue DESC, s.store_id
