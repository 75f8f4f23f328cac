-- Money asleep on the shelves: products in stock that nobody has bought.
SELECT p.product_id, p.sku, p.name, sum(i.on_hand) AS pieces, sum(i.on_hand * p.cost) AS value
FROM products p
JOIN inventory i ON i.product_id = p.product_id
WHERE NOT EXISTS (SELECT 1 FROM order_lines l WHERE l.product_id = p.product_id)
GROUP BY p.product_id, p.sku, p.name
HAVING sum(i.on_hand) > 0
ORDER BY value DESC, p.product_id
