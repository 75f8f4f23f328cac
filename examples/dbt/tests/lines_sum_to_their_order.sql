-- Rows that should not be: orders whose lines do not sum to their total. Both tables are read at one cut, so there are
-- none at any moment, also while the shops go on selling.
SELECT o.order_id, o.total, sum(l.line_total) AS lines
FROM {{ source('current', 'orders') }} o
LEFT JOIN {{ source('current', 'order_lines') }} l USING (order_id)
WHERE o.status <> 'cancelled'
GROUP BY o.order_id, o.total
HAVING o.total IS DISTINCT FROM coalesce(sum(l.line_total), 0)
