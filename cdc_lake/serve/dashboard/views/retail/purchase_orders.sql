-- title: Reorders on their way
-- kind: table
-- key: order
-- about: What the reordering service has ordered and no supplier has delivered, the newest first.
-- order: 50
-- needs: events.reorders, stores, products
-- rows: 200
WITH arrived AS (
    SELECT DISTINCT purchase_order_id FROM events.reorders WHERE type = 'retail.reorder.delivered'
)
SELECT r.purchase_order_id AS "order", r.time AS since, p.name AS product, s.name AS store, r.quantity AS pieces,
    r.on_hand AS left_then, r.threshold AS needed
FROM events.reorders r ANTI JOIN arrived a ON a.purchase_order_id = r.purchase_order_id
LEFT JOIN stores s ON s.store_id = r.store_id LEFT JOIN products p ON p.product_id = r.product_id
WHERE r.type = 'retail.reorder.requested'
ORDER BY since DESC, "order"
