-- title: Empty shelves, by store and category
-- kind: heat
-- x: category
-- y: store
-- value: empty
-- unit: % of products out of stock
-- about: The stores with the most empty shelves first.
-- order: 40
-- needs: inventory, stores, products
-- rows: 2000
WITH shelves AS (
    SELECT s.store_id, s.name AS store, p.category, count(*) AS products,
        count(*) FILTER (WHERE i.on_hand = 0) AS out_of_stock
    FROM inventory i JOIN stores s USING (store_id) JOIN products p USING (product_id)
    GROUP BY ALL
), worst AS (
    SELECT store_id FROM shelves GROUP BY store_id ORDER BY sum(out_of_stock) DESC, store_id LIMIT 60
)
SELECT store, category, round(100.0 * out_of_stock / products, 1) AS empty, out_of_stock, products
FROM shelves SEMI JOIN worst USING (store_id)
ORDER BY sum(out_of_stock) OVER (PARTITION BY store_id) DESC, store, category
