-- How many days the stock of a shelf lasts at the rate at which the store sold the product in 30 days.
WITH sold AS (
    SELECT o.store_id, l.product_id, sum(l.quantity) / 30.0 AS per_day
    FROM {{ source('current', 'order_lines') }} l
    JOIN {{ source('current', 'orders') }} o USING (order_id)
    WHERE o.placed_at > (SELECT max(placed_at) FROM {{ source('current', 'orders') }}) - INTERVAL 30 DAY
    GROUP BY ALL
)
SELECT i.store_id, i.product_id, i.on_hand, i.on_hand < i.reorder_point AS is_low,
       coalesce(s.per_day, 0) AS sold_per_day, i.on_hand / s.per_day AS days_left
FROM {{ source('current', 'inventory') }} i
LEFT JOIN sold s USING (store_id, product_id)
