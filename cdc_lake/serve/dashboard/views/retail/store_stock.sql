-- title: Stock of a store
-- kind: table
-- key: product_id
-- about: Every product of the store, what runs out first.
-- page: Stock
-- order: 110
-- width: full
-- needs: inventory, stores, products
-- rows: 5000
-- parameter store_id: SELECT store_id AS value, name AS label FROM stores ORDER BY name
SELECT CASE WHEN i.on_hand = 0 THEN 'out of stock' WHEN i.on_hand < i.reorder_point THEN 'low' ELSE 'in stock' END AS state,
    p.name AS product, p.category, i.on_hand, i.reorder_point, p.product_id, i.updated_at AS changed
FROM inventory i JOIN products p USING (product_id)
WHERE i.store_id = TRY_CAST($store_id AS INTEGER)
ORDER BY i.on_hand - i.reorder_point, p.name
