-- What is in stock now, and where does it run out? Every shelf below its reorder point, the emptiest first.
SELECT s.name AS store, p.name AS product, i.on_hand, i.reorder_point
FROM inventory i
JOIN stores s ON s.store_id = i.store_id
JOIN products p ON p.product_id = i.product_id
WHERE i.on_hand < i.reorder_point
ORDER BY i.on_hand - i.reorder_point, s.store_id, p.product_id
