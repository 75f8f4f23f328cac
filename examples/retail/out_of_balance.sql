-- Orders whose lines or payments do not add up to the total. There are none, at any moment, in the source or the lake:
-- a session never sees a part of a transaction.
SELECT o.order_id, o.total, l.lines, p.paid
FROM orders o
LEFT JOIN (SELECT order_id, sum(line_total) AS lines FROM order_lines GROUP BY order_id) AS l ON l.order_id = o.order_id
LEFT JOIN (SELECT order_id, sum(amount) AS paid FROM payments GROUP BY order_id) AS p ON p.order_id = o.order_id
WHERE o.total <> coalesce(l.lines, 0) OR o.total <> coalesce(p.paid, 0)
ORDER BY o.order_id
