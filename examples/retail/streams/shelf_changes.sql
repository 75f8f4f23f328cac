-- What happened on each shelf, out of the shops' database, for services that follow events.
--
-- A sale is told by its order: PostgreSQL's now() is one moment for all that a transaction writes.
--
-- topic: retail.shelf_changes
-- key: store_id, product_id
SELECT i.store_id, i.product_id, i.on_hand,
    l.order_id, l.quantity AS sold, CAST(l.unit_price * 100 AS INTEGER) AS unit_price_cents,
    i.__tx_id AS transaction, i.__lsn AS lsn, i.__topic AS topic, i.__partition AS partition, i.__offset AS "offset"
FROM changes.inventory i
LEFT JOIN current.orders o ON o.store_id = i.store_id AND o.placed_at = i.updated_at
LEFT JOIN current.order_lines l ON l.order_id = o.order_id AND l.product_id = i.product_id
WHERE i.__op IN ('c', 'u')
