-- Customers with at least three orders: what they spent, when they were last seen.
SELECT c.customer_id, c.first_name, c.last_name, count(*) AS orders, sum(o.total) AS spent, max(o.placed_at) AS last_seen
FROM customers c
JOIN orders o ON o.customer_id = c.customer_id
WHERE o.status <> 'cancelled'
GROUP BY c.customer_id, c.first_name, c.last_name
HAVING count(*) >= 3
ORDER BY spent DESC, c.customer_id
