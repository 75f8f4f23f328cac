-- Each change of a price that the lake has seen: the source itself has only the last price.
SELECT product_id, old_price, price AS new_price, round(100 * (price / old_price - 1), 1) AS percent, changed_at
FROM (
    SELECT product_id, price, __valid_from AS changed_at,
           lag(price) OVER (PARTITION BY product_id ORDER BY __from_position) AS old_price
    FROM {{ source('history', 'products') }}
)
WHERE old_price <> price
