-- title: Reorders on their way
-- kind: table
-- key: store, product
-- about: Shelves below their reorder point, the ones that wait the longest first; since when, from their history.
-- order: 50
-- needs: inventory, stores, products
-- unless: events.reorders
-- rows: 200
-- every: 5 seconds
WITH low AS (
    SELECT store_id, product_id, on_hand, reorder_point FROM inventory WHERE on_hand < reorder_point
), above AS (
    SELECT store_id, product_id, max(__valid_to) AS since
    FROM history.public.inventory SEMI JOIN low USING (store_id, product_id)
    WHERE on_hand >= reorder_point AND __valid_to <= CAST($page_time AS TIMESTAMPTZ)
    GROUP BY ALL
)
SELECT CASE WHEN l.on_hand = 0 THEN 'out of stock' ELSE 'low' END AS state, a.since,
    p.name AS product, s.name AS store, l.on_hand, l.reorder_point
FROM low l JOIN stores s USING (store_id) JOIN products p USING (product_id) LEFT JOIN above a USING (store_id, product_id)
ORDER BY l.on_hand > 0, a.since NULLS FIRST, l.store_id, l.product_id
