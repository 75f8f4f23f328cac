-- Revenue per day, store and channel, of orders that were not cancelled.
SELECT CAST(placed_at AS date) AS day, store_id, channel, count(*) AS orders, sum(total) AS revenue
FROM {{ source('current', 'orders') }}
WHERE status <> 'cancelled'
GROUP BY ALL
