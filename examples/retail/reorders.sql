-- What to order from which supplier today: every shelf at its reorder point, the slowest suppliers first.
SELECT CAST((p.attributes -> 'supplier') ->> 'no' AS integer) AS supplier,
       max(CAST((p.attributes -> 'supplier') ->> 'lead_days' AS integer)) AS lead_days,
       count(*) AS shelves, sum(48 - i.on_hand) AS pieces
FROM inventory i
JOIN products p ON p.product_id = i.product_id
WHERE i.on_hand <= i.reorder_point
GROUP BY CAST((p.attributes -> 'supplier') ->> 'no' AS integer)
ORDER BY lead_days DESC, supplier
