-- Tills against the web shop, region by region: orders, what they brought in, and how many were called off.
SELECT s.region, o.channel, count(*) AS orders, sum(o.total) AS revenue,
       count(*) FILTER (WHERE o.status IN ('cancelled', 'returned')) AS undone
FROM orders o
JOIN stores s ON s.store_id = o.store_id
GROUP BY s.region, o.channel
ORDER BY s.region, CAST(o.channel AS text)
