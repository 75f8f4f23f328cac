-- The revenue of all days is that of all orders.
SELECT sold, expected
FROM (SELECT sum(revenue) AS sold FROM {{ ref('daily_sales') }}),
     (SELECT sum(total) AS expected FROM {{ source('current', 'orders') }} WHERE status <> 'cancelled')
WHERE sold IS DISTINCT FROM expected
